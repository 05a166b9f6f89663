/** Whole messages, end to end: which have bodies, interim replies, trailers, early replies, pipelines and half-closes. */

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chunk, dechunk } from "../support/chunked.ts";
import type { RawSocket } from "../support/raw-socket.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

/** Reads one chunked body from a socket, up to the end of its trailer section. */
async function readChunked(socket: RawSocket): Promise<ReturnType<typeof dechunk>> {
  let text = "";
  do text += await socket.readUntil("0\r\n");
  while (!/(?:^|\r\n)0\r\n$/.test(text));
  do text += await socket.readUntil("\r\n");
  while (!text.endsWith("\r\n\r\n"));
  return dechunk(text);
}

/** So many bytes of a chunked body, in whole chunks. */
async function readPieces(socket: RawSocket, byteCount: number): Promise<string> {
  let body = "";
  while (body.length < byteCount) {
    const line = await socket.readUntil("\r\n");
    const data = await socket.read(Number.parseInt(line, 16) + 2);
    body += data.slice(0, -2);
  }
  return body;
}

/** Text that differs at every place, so that nothing can be swapped or repeated unseen. */
function textOf(byteCount: number): string {
  let text = "";
  for (let n = 0; text.length < byteCount; n++) text += `${n.toString(36)}.`;
  return text.slice(0, byteCount);
}

describe.each([...transports])("over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  const head = (line: string, ...fields: string[]): string =>
    [`${line} HTTP/1.1`, `Host: ${path.host}`, ...fields, "", ""].join("\r\n");

  /** The next request at the origin, answered. */
  async function answer(reply: string): Promise<string> {
    const connection = await path.origin.accept();
    const seen = await connection.readHead();
    connection.write(reply);
    return seen;
  }

  describe("replies without a body", () => {
    test("HEAD gets the head of a GET, its length too, and the connections go on", async () => {
      const visitor = await path.visit();
      visitor.write(head("HEAD /a") + head("GET /b"));
      const reply = 'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 12345\r\n\r\n';
      expect(await answer(reply)).toStartWith("HEAD /a HTTP/1.1\r\n");
      expect(await answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")).toStartWith("GET /b HTTP/1.1\r\n");
      expect(await visitor.readHead()).toBe(reply);
      expect(await visitor.readUntil("\r\n\r\nb")).toBe("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb");
      expect(path.origin.usedConnections).toBe(1);
    });

    test("HEAD of a chunked resource has no body either", async () => {
      const visitor = await path.visit();
      visitor.write(head("HEAD /a") + head("GET /b"));
      await answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      await answer("HTTP/1.1 200 Second\r\nContent-Length: 0\r\n\r\n");
      expect(await visitor.readHead()).toStartWith("HTTP/1.1 200 OK\r\n");
      expect(await visitor.readHead()).toBe("HTTP/1.1 200 Second\r\nContent-Length: 0\r\n\r\n");
    });

    test("304 keeps the length it speaks of, 204 has none", async () => {
      const visitor = await path.visit();
      for (const [reply, expected] of [
        ['HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: "e"\r\n\r\n', undefined],
        ["HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", undefined],
        ["HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: 1\r\n\r\n", "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n"],
        ["HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", undefined],
        ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", undefined],
      ] as const) {
        visitor.write(head("GET /n"));
        await answer(reply);
        expect(await visitor.readHead()).toBe(expected ?? reply);
      }
      expect(path.origin.usedConnections).toBe(1);
      expect(visitor.unread).toBe("");
    });

    test("bytes behind a reply that has no body never become the reply to another request", async () => {
      const visitor = await path.visit();
      for (const [request, reply] of [
        [head("HEAD /a"), "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"],
        [head("GET /a"), "HTTP/1.1 204 No Content\r\n\r\n"],
        [head("GET /a"), "HTTP/1.1 304 Not Modified\r\n\r\n"],
        [head("GET /a"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
      ] as const) {
        visitor.write(request);
        await answer(`${reply}HTTP/1.1 299 Poison\r\nContent-Length: 0\r\n\r\n`);
        expect(await visitor.readHead()).toStartWith(reply.slice(0, 12));
        visitor.write(head("GET /next"));
        expect(await answer("HTTP/1.1 200 Clean\r\nContent-Length: 0\r\n\r\n")).toStartWith("GET /next");
        expect(await visitor.readHead()).toBe("HTTP/1.1 200 Clean\r\nContent-Length: 0\r\n\r\n");
      }
      expect(path.origin.usedConnections).toBeGreaterThanOrEqual(4);
    });
  });

  describe("interim replies", () => {
    test("several arrive one by one, as they were sent, each before the next is sent", async () => {
      const visitor = await path.visit();
      visitor.write(head("GET /hints"));
      const connection = await path.origin.accept();
      await connection.readHead();
      for (const interim of [
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </c.css>\r\nX-Obs: \xe9\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 199 Whatever\r\nX: 1\r\n\r\n",
      ]) {
        connection.write(interim);
        expect(await visitor.readHead()).toBe(interim);
      }
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      expect(await visitor.readUntil("ok")).toBe("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });

    test("interim and final reply in one packet are taken apart", async () => {
      const visitor = await path.visit();
      visitor.write(head("GET /hints"));
      const all = "HTTP/1.1 103 A\r\nLink: a\r\n\r\nHTTP/1.1 103 B\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
      await answer(all);
      expect(await visitor.readUntil("Content-Length: 0\r\n\r\n")).toBe(all);
    });

    test("fields of one connection are removed from them too", async () => {
      const visitor = await path.visit();
      visitor.write(head("GET /hints"));
      await answer(
        "HTTP/1.1 103 A\r\nConnection: X-Own\r\nX-Own: 1\r\nKeep-Alive: a\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
      );
      expect(await visitor.readHead()).toBe("HTTP/1.1 103 A\r\nLink: a\r\n\r\n");
    });

    test("an HTTP/1.0 visitor gets the final reply only", async () => {
      const visitor = await path.visit();
      visitor.write(`GET / HTTP/1.0\r\nHost: ${path.host}\r\n\r\n`);
      await answer("HTTP/1.1 103 A\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
      expect(await visitor.readToEnd()).toBe("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    });

    test("an origin that sends them without end is answered for with 502", async () => {
      const visitor = await path.visit();
      visitor.write(head("GET /hints"));
      await answer("HTTP/1.1 103 A\r\n\r\n".repeat(1_000));
      let last = "";
      let count = 0;
      do {
        last = await visitor.readHead();
        count++;
      } while (last.startsWith("HTTP/1.1 103 "));
      expect(count).toBe(33);
      expect(last).toStartWith("HTTP/1.1 502 ");
      expect(last).toContain("\r\nSally-Error: ORIGIN_BAD_REPLY\r\n");
    });
  });

  describe("Expect: 100-continue", () => {
    const expectant = (): string => head("POST /e", "Content-Length: 5", "Expect: 100-continue");

    test("where the origin accepts, the body follows its 100", async () => {
      const visitor = await path.visit();
      visitor.write(expectant());
      const connection = await path.origin.accept();
      expect(await connection.readHead()).toContain("\r\nExpect: 100-continue\r\n");
      connection.write("HTTP/1.1 100 Continue\r\nX-Why: not\r\n\r\n");
      expect(await visitor.readHead()).toBe("HTTP/1.1 100 Continue\r\nX-Why: not\r\n\r\n");
      expect(connection.unread).toBe("");
      visitor.write("hello");
      expect(await connection.read(5)).toBe("hello");
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      expect(await visitor.readHead()).toBe("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });

    test("where the origin refuses, its reply comes at once and no body is asked for", async () => {
      for (const status of ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized"]) {
        const visitor = await path.visit();
        visitor.write(expectant());
        const connection = await path.origin.accept();
        await connection.readHead();
        connection.write(`HTTP/1.1 ${status}\r\nContent-Length: 2\r\n\r\nno`);
        // What the visitor will do about the body is unknown, so the connection ends.
        expect(await visitor.readToEnd()).toBe(
          `HTTP/1.1 ${status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno`,
        );
        await connection.until(() => connection.hasEnded || connection.wasReset, "the end of the abandoned request");
        expect(connection.unread).toBe("");
      }
    });

    test("where the origin ignores it, the body goes on after a second, behind one 100 only", async () => {
      const visitor = await path.visit();
      visitor.write(expectant());
      const connection = await path.origin.accept();
      await connection.readHead();
      expect(await visitor.readHead()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
      visitor.write("hello");
      expect(await connection.read(5)).toBe("hello");
      connection.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      expect(await visitor.readHead()).toBe("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });

    test("a visitor that does not wait is served all the same", async () => {
      const visitor = await path.visit();
      visitor.write(`${expectant()}hello${head("GET /next")}`);
      const connection = await path.origin.accept();
      await connection.readHead();
      connection.write("HTTP/1.1 100 Continue\r\n\r\n");
      expect(await connection.read(5)).toBe("hello");
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      expect(await answer("HTTP/1.1 200 Next\r\nContent-Length: 0\r\n\r\n")).toStartWith("GET /next ");
      expect(await visitor.readUntil("Next\r\n")).toEndWith("HTTP/1.1 200 Next\r\n");
    });

    test("another expectation is answered with 417, and nothing reaches the origin", async () => {
      const before = path.origin.receivedBytes;
      const visitor = await path.visit();
      visitor.write(head("POST /e", "Content-Length: 5", "Expect: 200-ok"));
      expect(await visitor.readToEnd()).toStartWith("HTTP/1.1 417 ");
      expect(path.origin.receivedBytes).toBe(before);
    });
  });

  describe("bodies", () => {
    const sizes = [0, 1, 2, 1_023, 1_024, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 300_000, 1_000_000];

    test("with a length, of any size, both ways", async () => {
      const visitor = await path.visit();
      for (const size of sizes) {
        const body = textOf(size);
        visitor.write(head("PUT /l", `Content-Length: ${size}`) + body);
        const connection = await path.origin.accept();
        expect(await connection.readHead()).toContain(`\r\nContent-Length: ${size}\r\n`);
        expect((await connection.read(size)) === body).toBe(true);
        connection.write(`HTTP/1.1 200 OK\r\ncontent-length: ${size}\r\n\r\n${body}`);
        expect(await visitor.readHead()).toBe(`HTTP/1.1 200 OK\r\ncontent-length: ${size}\r\n\r\n`);
        expect((await visitor.read(size)) === body).toBe(true);
      }
      expect(path.origin.usedConnections).toBe(1);
    });

    test("chunked, in chunks of any size, both ways", async () => {
      const visitor = await path.visit();
      for (const pieces of [
        [],
        [1],
        [1, 1, 1, 1],
        [5, 0x10, 0xfff, 3],
        [65_536, 1, 65_535],
        [300_000],
        [7, 200_000, 2],
      ]) {
        const body = textOf(pieces.reduce((sum, size) => sum + size, 0));
        let at = 0;
        const chunks = pieces.map((size) => chunk(body.slice(at, (at += size)))).join("");
        visitor.write(`${head("POST /c", "transfer-encoding: Chunked")}${chunks}0\r\n\r\n`);
        const connection = await path.origin.accept();
        expect(await connection.readHead()).toMatch(/\r\ntransfer-encoding: chunked\r\n/i);
        expect((await readChunked(connection)).body === body).toBe(true);
        connection.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`);
        expect(await visitor.readHead()).toMatch(/\r\nTransfer-Encoding: chunked\r\n/i);
        expect((await readChunked(visitor)).body === body).toBe(true);
      }
      expect(path.origin.usedConnections).toBe(1);
    });

    test("extensions, leading zeros and upper case in chunk sizes change nothing", async () => {
      const visitor = await path.visit();
      visitor.write(
        `${head("POST /c", "Transfer-Encoding: chunked")}00A;x="y;z"\r\n0123456789\r\n1;a\r\n!\r\n000;end\r\n\r\n`,
      );
      const connection = await path.origin.accept();
      await connection.readHead();
      expect((await readChunked(connection)).body).toBe("0123456789!");
    });

    test("of GET, DELETE and OPTIONS too; a POST without one stays without", async () => {
      const visitor = await path.visit();
      for (const method of ["GET", "DELETE", "OPTIONS"]) {
        visitor.write(`${head(`${method} /b`, "Content-Length: 3")}abc`);
        const connection = await path.origin.accept();
        expect(await connection.readHead()).toContain("\r\nContent-Length: 3\r\n");
        expect(await connection.read(3)).toBe("abc");
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        await visitor.readHead();
      }
      visitor.write(head("POST /b", "Content-Length: 0"));
      expect(await answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).toContain("\r\nContent-Length: 0\r\n");
      await visitor.readHead();
      visitor.write(head("POST /b"));
      expect(await answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).not.toMatch(/content-length|transfer-enc/i);
    });

    test("a reply that ends with the connection is chunked for 1.1, and ends the connection of a 1.0 visitor", async () => {
      for (const [version, expected] of [
        ["1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
        ["1.0", "Connection: close\r\n\r\nhello"],
      ] as const) {
        const visitor = await path.visit();
        visitor.write(`GET / HTTP/${version}\r\nHost: ${path.host}\r\n\r\n`);
        const connection = await path.origin.accept();
        await connection.readHead();
        connection.end("HTTP/1.0 200 OK\r\n\r\nhello");
        expect(await visitor.readUntil(expected.slice(-5))).toBe(`HTTP/1.1 200 OK\r\n${expected}`);
      }
    });
  });

  describe("trailers", () => {
    test("arrive both ways, in order, with case and duplicates", async () => {
      const visitor = await path.visit();
      const fields = "X-Sum: 1\r\nx-sum: 2\r\nX-Obs: \xe9\r\nX-Empty: \r\ngrpc-status: 0\r\n";
      const request = head("POST /t", "Trailer: X-Sum, grpc-status", "Transfer-Encoding: chunked", "TE: trailers");
      visitor.write(`${request}3\r\nabc\r\n0\r\n${fields}\r\n`);
      const connection = await path.origin.accept();
      expect(await connection.readHead()).toContain("\r\nTrailer: X-Sum, grpc-status\r\n");
      const up = await readChunked(connection);
      expect([up.body, up.trailers.join("\r\n")]).toEqual(["abc", fields.trimEnd()]);
      connection.write(
        `HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n0\r\n${fields}\r\n`,
      );
      expect(await visitor.readHead()).toContain("\r\nTrailer: X-Sum\r\n");
      const down = await readChunked(visitor);
      expect([down.body, down.trailers.join("\r\n")]).toEqual(["down", fields.trimEnd()]);
    });

    test("that come long after the body, or without a body, arrive too", async () => {
      const visitor = await path.visit();
      visitor.write(head("POST /t", "Transfer-Encoding: chunked"));
      visitor.write("0\r\nX-Only: 1\r\n\r\n");
      const connection = await path.origin.accept();
      await connection.readHead();
      expect((await readChunked(connection)).trailers).toEqual(["X-Only: 1"]);
      connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
      expect(await visitor.readUntil("2\r\nok\r\n")).toEndWith("2\r\nok\r\n");
      connection.write("0\r\nX-Late: ");
      connection.write("1\r\n");
      connection.write("\r\n");
      expect((await readChunked(visitor)).trailers).toEqual(["X-Late: 1"]);
    });

    test("cannot bring what frames, routes or authenticates a message", async () => {
      const visitor = await path.visit();
      const bad = [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil.example",
        "Authorization: Basic Og==",
        "X-Forwarded-For: 6.6.6.6",
        "x_forwarded_for: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "Cookie: a=1",
        "Set-Cookie: a=1",
        "Connection: close",
        "Content-Type: text/html",
        "Sally-Request-Id: 1",
      ];
      visitor.write(`${head("POST /t", "Transfer-Encoding: chunked")}0\r\n${bad.join("\r\n")}\r\nX-Good: 1\r\n\r\n`);
      const connection = await path.origin.accept();
      await connection.readHead();
      expect((await readChunked(connection)).trailers).toEqual(["X-Good: 1"]);
    });
  });

  describe("a reply before the request is complete", () => {
    test("comes at once; little that is left goes through, and the connections go on", async () => {
      const visitor = await path.visit();
      visitor.write(`${head("POST /early", "Content-Length: 50000")}first`);
      const connection = await path.origin.accept();
      await connection.readHead();
      expect(await connection.read(5)).toBe("first");
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsoon");
      expect(await visitor.readUntil("soon")).toBe("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsoon");
      visitor.write(textOf(49_995));
      expect((await connection.read(49_995)) === textOf(49_995)).toBe(true);
      visitor.write(head("GET /next"));
      expect(await answer("HTTP/1.1 200 Next\r\nContent-Length: 0\r\n\r\n")).toStartWith("GET /next ");
      expect(await visitor.readHead()).toBe("HTTP/1.1 200 Next\r\nContent-Length: 0\r\n\r\n");
      expect(path.origin.usedConnections).toBe(1);
    });

    test("comes whole though megabytes follow, then both connections end", async () => {
      const visitor = await path.visit();
      visitor.write(`${head("POST /early", "Content-Length: 5000000")}first`);
      const connection = await path.origin.accept();
      await connection.readHead();
      const body = textOf(100_000);
      connection.write(`HTTP/1.1 403 Forbidden\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      // A visitor that reads only when it has sent everything.
      visitor.pause();
      visitor.write(textOf(4_000_000));
      visitor.resume();
      const reply = await visitor.readToEnd();
      expect(reply.slice(0, 24)).toBe("HTTP/1.1 403 Forbidden\r\n");
      expect(reply.slice(reply.indexOf("\r\n\r\n") + 4) === body).toBe(true);
      await connection.until(() => connection.hasEnded || connection.wasReset, "the end of the rest of the request");
      expect(connection.receivedBytes).toBeLessThan(1_000_000);
    });

    test("may run beside the request: each piece is answered before the next is sent", async () => {
      const visitor = await path.visit();
      visitor.write(head("POST /duplex", "Transfer-Encoding: chunked"));
      const connection = await path.origin.accept();
      await connection.readHead();
      connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      await visitor.readHead();
      for (const piece of ["a", "bc", "def", textOf(30_000), "g"]) {
        visitor.write(chunk(piece));
        expect((await readPieces(connection, piece.length)) === piece).toBe(true);
        connection.write(chunk(piece));
        expect((await readPieces(visitor, piece.length)) === piece).toBe(true);
      }
      visitor.write("0\r\n\r\n");
      expect(await connection.read(5)).toBe("0\r\n\r\n");
      connection.write("0\r\n\r\n");
      expect(await visitor.read(5)).toBe("0\r\n\r\n");
      visitor.write(head("GET /next"));
      expect(await answer("HTTP/1.1 200 Next\r\nContent-Length: 0\r\n\r\n")).toStartWith("GET /next ");
      expect(path.origin.usedConnections).toBe(1);
    });
  });

  describe("a visitor that ends its side", () => {
    test("behind its request still gets the whole reply, however late and long", async () => {
      for (const request of [
        head("GET /half"),
        `${head("POST /half", "Content-Length: 3")}abc`,
        `${head("POST /half", "Transfer-Encoding: chunked")}3\r\nabc\r\n0\r\n\r\n`,
      ]) {
        const visitor = await path.visit();
        visitor.end(request);
        const connection = await path.origin.accept();
        await connection.readHead();
        await Bun.sleep(200); // the end has long arrived when the reply starts
        const body = textOf(700_000);
        connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 10)}`);
        await visitor.readUntil(body.slice(0, 10));
        connection.write(body.slice(10));
        expect((await visitor.readToEnd()) === body.slice(10)).toBe(true);
        path.forget();
      }
    });

    test("behind several requests gets all replies", async () => {
      const visitor = await path.visit();
      visitor.end(head("GET /1") + head("GET /2") + head("GET /3"));
      for (const n of [1, 2, 3]) {
        expect(await answer(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${n}`)).toStartWith(`GET /${n} `);
      }
      expect((await visitor.readToEnd()).match(/\r\n\r\n\d/g)?.join("")).toBe("\r\n\r\n1\r\n\r\n2\r\n\r\n3");
    });
  });

  describe("many requests on one connection", () => {
    test("pipelined ones are answered in order, one at a time at the origin", async () => {
      const visitor = await path.visit();
      const requests: string[] = [];
      for (let n = 0; n < 40; n++) {
        if (n % 4 === 0) requests.push(head(`GET /${n}`));
        else if (n % 4 === 1) requests.push(`${head(`POST /${n}`, "Content-Length: 4")}body`);
        else if (n % 4 === 2) requests.push(`${head(`PUT /${n}`, "Transfer-Encoding: chunked")}4\r\nbody\r\n0\r\n\r\n`);
        else requests.push(head(`HEAD /${n}`));
      }
      visitor.write(requests.join(""));
      for (let n = 0; n < 40; n++) {
        const connection = await path.origin.accept();
        expect(await connection.readHead()).toMatch(new RegExp(`^[A-Z]+ /${n} HTTP/1\\.1\r\n`));
        if (n % 4 === 1) expect(await connection.read(4)).toBe("body");
        if (n % 4 === 2) expect((await readChunked(connection)).body).toBe("body");
        expect(connection.unread).toBe("");
        const body = `<${n}>`;
        connection.write(
          `HTTP/1.1 200 OK\r\nX-N: ${n}\r\nContent-Length: ${body.length}\r\n\r\n${n % 4 === 3 ? "" : body}`,
        );
        expect(await visitor.readHead()).toContain(`\r\nX-N: ${n}\r\n`);
        if (n % 4 !== 3) expect(await visitor.read(body.length)).toBe(body);
      }
      expect(path.origin.usedConnections).toBe(1);
    });

    test("one origin connection serves visitors in turn, and as many as needed at once", async () => {
      const visitors = await Promise.all([path.visit(), path.visit(), path.visit()]);
      for (let round = 0; round < 5; round++) {
        for (const visitor of visitors) {
          visitor.write(head(`GET /${round}`));
          await answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
          await visitor.readHead();
        }
      }
      expect(path.origin.usedConnections).toBe(1);
      const taken: RawSocket[] = [];
      for (const visitor of visitors) {
        visitor.write(head("GET /at-once"));
        const connection = await path.origin.accept();
        await connection.readHead();
        taken.push(connection);
      }
      expect(new Set(taken).size).toBe(3);
      for (const connection of taken) connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      await Promise.all(visitors.map((visitor) => visitor.readHead()));
    });

    test("a visitor's close is kept to itself, an origin's too", async () => {
      const leaving = await path.visit();
      leaving.write(head("GET /", "Connection: close"));
      await answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      expect(await leaving.readToEnd()).toBe("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      const staying = await path.visit();
      for (let n = 0; n < 3; n++) {
        staying.write(head("GET /"));
        const connection = await path.origin.accept();
        await connection.readHead();
        connection.end("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        expect(await staying.readHead()).toBe("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      }
      expect(path.origin.usedConnections).toBe(3);
    });
  });
});
