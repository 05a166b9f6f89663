/** Whoever breaks off is known at the other end, long before any time-out, and what was cut never looks complete. */

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { RawSocket } from "../support/raw-socket.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

const isGone = (connection: RawSocket) => (): boolean => connection.wasReset || connection.hasEnded;

describe.each([...transports])("over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  const head = (line: string, ...fields: string[]): string =>
    [`${line} HTTP/1.1`, `Host: ${path.host}`, ...fields, "", ""].join("\r\n");

  /** A visitor whose request is with the origin. */
  async function ask(request = head("GET /")): Promise<{ visitor: RawSocket; connection: RawSocket }> {
    const visitor = await path.visit();
    visitor.write(request);
    const connection = await path.origin.accept();
    await connection.readHead();
    return { visitor, connection };
  }

  describe.each(["reset", "close"] as const)("a visitor that leaves by %s", (how) => {
    test("before the reply is seen by the origin", async () => {
      for (const request of [head("GET /"), `${head("POST /", "Content-Length: 1")}x`]) {
        const { visitor, connection } = await ask(request);
        visitor[how]();
        await connection.until(isGone(connection), "end");
      }
    });

    test("while a reply is silent is seen by the origin", async () => {
      const { visitor, connection } = await ask(head("GET /events", "Accept: text/event-stream"));
      connection.write(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:x\n\r\n",
      );
      await visitor.readUntil(":x\n\r\n");
      visitor[how]();
      await connection.until(isGone(connection), "end");
    });

    test("in the middle of its body is seen as an abort, not as an end", async () => {
      for (const request of [
        `${head("POST /", "Content-Length: 100")}part`,
        `${head("POST /", "Transfer-Encoding: chunked")}4\r\npart\r\n`,
      ]) {
        const { visitor, connection } = await ask(request);
        await connection.readUntil("part");
        visitor[how]();
        await connection.until(() => connection.wasReset, "reset");
        expect(connection.unread).not.toContain("0\r\n\r\n");
      }
    });

    test("in the middle of an endless reply stops the origin", async () => {
      const { visitor, connection } = await ask();
      connection.write("HTTP/1.1 200 OK\r\n\r\n");
      const flow = setInterval(() => connection.write(Buffer.alloc(16_384)), 5);
      try {
        await visitor.until(() => visitor.receivedBytes > 100_000, "100,000 bytes");
        visitor[how]();
        await connection.until(isGone(connection), "end");
      } finally {
        clearInterval(flow);
      }
    });

    test("with requests behind the one that runs has none of them executed", async () => {
      const { visitor, connection } = await ask(head("GET /1") + head("POST /2", "Content-Length: 0") + head("GET /3"));
      visitor[how]();
      await connection.until(isGone(connection), "end");
      const { connection: next } = await ask(head("GET /other"));
      next.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      const seen = path.origin.connections.map((one) => one.unread).join("");
      expect(seen).not.toMatch(/\/2|\/3/);
    });
  });

  test("a visitor that ended its side and stays gets its reply, with a 100 before it when that takes long", async () => {
    const { visitor, connection } = await ask();
    visitor.end();
    expect(await visitor.readHead()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    expect((await visitor.readToEnd()).replaceAll("HTTP/1.1 100 Continue\r\n\r\n", "")).toBe(
      "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate",
    );
  });

  describe.each(["reset", "end"] as const)("an origin that leaves by %s in the middle of a reply", (how) => {
    test.each([
      ["with a length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "part", "part"],
      ["chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "4\r\npart\r\n", "4\r\npart\r\n"],
      ["in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "ff\r\npart", "4\r\npart\r\n"],
      [
        "in a trailer",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "4\r\npart\r\n0\r\nX: 1\r\n",
        "4\r\npart\r\n",
      ],
    ] as const)("that comes %s shows as a reset to the visitor", async (_name, replyHead, body, expected) => {
      const { visitor, connection } = await ask();
      connection.write(replyHead + body);
      expect(await visitor.readHead()).toBe(replyHead);
      expect(await visitor.readUntil(expected)).toBe(expected);
      connection[how]();
      await visitor.until(() => visitor.wasReset || visitor.hasEnded, "end");
      expect(visitor.wasReset).toBe(true);
      expect(visitor.unread).toBe("");
    });

    test("shows as a reset to an HTTP/1.0 visitor too", async () => {
      const { visitor, connection } = await ask(`GET / HTTP/1.0\r\nHost: ${path.host}\r\n\r\n`);
      connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
      await visitor.readUntil("part");
      connection[how]();
      await visitor.until(() => visitor.wasReset || visitor.hasEnded, "end");
      expect(visitor.wasReset).toBe(true);
    });
  });

  test("a reply that ends with the connection is complete by an end, and cut by a reset", async () => {
    for (const how of ["reset", "end"] as const) {
      const { visitor, connection } = await ask();
      connection.write("HTTP/1.1 200 OK\r\n\r\nbody");
      await visitor.readUntil("4\r\nbody\r\n");
      connection[how]();
      if (how === "end") expect(await visitor.readUntil("0\r\n\r\n")).toBe("0\r\n\r\n");
      else {
        await visitor.until(() => visitor.wasReset || visitor.hasEnded, "end");
        expect([visitor.wasReset, visitor.unread]).toEqual([true, ""]);
      }
      path.forget();
    }
  });

  test("what an origin sent before it broke off arrives before the reset", async () => {
    const bodyBytes = 3 * 1024 * 1024; // so much the systems of node and visitor hold, and nobody waits to send it
    for (const framing of ["Content-Length: 9000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n900000\r\n"]) {
      const { visitor, connection } = await ask();
      visitor.pause();
      connection.end(`HTTP/1.1 200 OK\r\n${framing}${"x".repeat(bodyBytes)}`);
      await connection.until(isGone(connection), "end of the stream");
      visitor.resume();
      await visitor.until(() => visitor.wasReset || visitor.hasEnded, "end");
      expect(visitor.wasReset).toBe(true);
      expect(visitor.unread.match(/x/g)).toHaveLength(bodyBytes);
      path.forget();
    }
  });
});
