/** Slow, silent and stalled parties: bytes come through one by one, memory stays, and nobody else waits for them. */

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { limits } from "../../src/core/limits.ts";
import { chunk } from "../support/chunked.ts";
import { note } from "../support/fault-rig.ts";
import { MemoryWatch } from "../support/process-memory.ts";
import type { RawSocket } from "../support/raw-socket.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(120_000);

const mebibyte = 1024 * 1024;
/** Windows, queues and what the run-time keeps: a small part of what is sent below. */
const growthMaxBytes = 128 * mebibyte;

/** Writes until nothing moves any more; gives what the kernel has taken. */
async function pump(
  socket: RawSocket,
  mostBytes: number,
  piece: Uint8Array = Buffer.alloc(64 * 1_024, "x"),
): Promise<number> {
  let written = 0;
  let movedAtMs = performance.now();
  let lastTaken = 0;
  while (written < mostBytes && performance.now() - movedAtMs < 1_500) {
    while (socket.queuedBytes < mebibyte && written < mostBytes) {
      socket.write(piece);
      written += piece.length;
    }
    await Bun.sleep(10); // how often it is looked
    const taken = written - socket.queuedBytes;
    if (taken !== lastTaken) movedAtMs = performance.now();
    lastTaken = taken;
  }
  return lastTaken;
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

  async function ask(request = head("GET /")): Promise<{ visitor: RawSocket; connection: RawSocket }> {
    const visitor = await path.visit();
    visitor.write(request);
    const connection = await path.origin.accept();
    await connection.readHead();
    return { visitor, connection };
  }

  test("each byte of a reply is with the visitor before the next is sent, whatever its type and framing", async () => {
    const text = "data: grüße\n\n".repeat(10);
    for (const fields of [
      "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
      `Content-Type: text/plain\r\nContent-Length: ${text.length}\r\n`,
      "Content-Type: application/json\r\n",
    ]) {
      const { visitor, connection } = await ask();
      connection.write(`HTTP/1.1 200 OK\r\n${fields}\r\n`);
      expect(await visitor.readHead()).toStartWith("HTTP/1.1 200 OK\r\n");
      const isChunked = !fields.includes("Content-Length");
      for (const byte of text) {
        connection.write(fields.includes("chunked") ? chunk(byte) : byte);
        const expected = isChunked ? chunk(byte) : byte;
        expect(await visitor.read(expected.length)).toBe(expected);
      }
      if (isChunked) connection.end(fields.includes("chunked") ? "0\r\n\r\n" : "");
      if (isChunked) expect(await visitor.read(5)).toBe("0\r\n\r\n");
      path.forget();
    }
  });

  test("each byte of a request body is with the origin before the next is sent", async () => {
    for (const framing of ["Transfer-Encoding: chunked", "Content-Length: 100"]) {
      const { visitor, connection } = await ask(head("POST /", framing));
      const isChunked = framing.includes("chunked");
      for (let n = 0; n < 100; n++) {
        const byte = String.fromCharCode(n + 128);
        const sent = isChunked ? chunk(byte) : byte;
        visitor.write(sent);
        expect(await connection.read(sent.length)).toBe(sent);
      }
      if (isChunked) {
        visitor.write("0\r\n\r\n");
        expect(await connection.read(5)).toBe("0\r\n\r\n");
      }
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      expect(await visitor.readHead()).toStartWith("HTTP/1.1 200 OK\r\n");
    }
  });

  test("visitors that do not read stop the origin, and no process grows with what it wants to send", async () => {
    using memory = new MemoryWatch([path.node.process.pid, path.agent.process.pid]);
    const stalled: RawSocket[] = [];
    for (let n = 0; n < 8; n++) {
      const { visitor, connection } = await ask();
      visitor.pause();
      stalled.push(connection);
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    }
    const taken = await Promise.all(stalled.map((connection) => pump(connection, 200 * mebibyte)));
    for (const bytes of taken) expect(bytes).toBeLessThan(64 * mebibyte);
    // They share lanes with everybody else, and nobody else notices.
    for (let n = 0; n < 50; n++) {
      const { visitor, connection } = await ask();
      connection.write(`HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n${"y".repeat(100_000)}`);
      await visitor.readHead();
      expect(await visitor.read(100_000)).toEndWith("y");
      visitor.reset();
    }
    for (const growth of memory.growthBytes) expect(growth).toBeLessThan(growthMaxBytes);
  });

  test("visitors that ask again and again without reading wait, and the node does not grow with what they ask", async () => {
    using memory = new MemoryWatch([path.node.process.pid, path.agent.process.pid]);
    const page = "GET / HTTP/1.1\r\nHost: nobody.localhost\r\nAccept: text/html\r\n\r\n";
    const visitor = await path.visit();
    visitor.pause();
    await pump(visitor, 32 * mebibyte, Buffer.from(page.repeat(1_000)));
    const other = await ask();
    other.connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    expect(await other.visitor.readUntil("hi")).toStartWith("HTTP/1.1 200 OK\r\n");
    for (const growth of memory.growthBytes) expect(growth).toBeLessThan(growthMaxBytes);
    visitor.discard();
    visitor.resume();
    await visitor.until(() => visitor.receivedBytes > 32 * mebibyte, "replies, now that it reads");
    visitor.close();
  });

  test("origins that do not read stop the visitor, and no process grows with what it wants to send", async () => {
    using memory = new MemoryWatch([path.node.process.pid, path.agent.process.pid]);
    const stalled: RawSocket[] = [];
    for (let n = 0; n < 8; n++) {
      const { visitor, connection } = await ask(head("POST /", "Content-Length: 1000000000"));
      connection.discard();
      connection.pause();
      stalled.push(visitor);
    }
    const taken = await Promise.all(stalled.map((visitor) => pump(visitor, 200 * mebibyte)));
    for (const bytes of taken) expect(bytes).toBeLessThan(64 * mebibyte);
    for (let n = 0; n < 50; n++) {
      const { visitor, connection } = await ask(head("POST /", "Content-Length: 100000"));
      visitor.write("z".repeat(100_000));
      expect(await connection.read(100_000)).toEndWith("z");
      visitor.reset();
    }
    for (const growth of memory.growthBytes) expect(growth).toBeLessThan(growthMaxBytes);
  });

  test.each([
    { what: "", fields: [], total: 3_000_000, pauseMs: 1 },
    // More than our own queue, most of it in the system's; and much longer than we linger.
    {
      what: " also where the connection ends with the reply",
      fields: ["Connection: close"],
      total: 6_000_000,
      pauseMs: 600,
    },
  ])("a visitor who reads slowly gets everything$what", async ({ fields, total, pauseMs }) => {
    const { visitor, connection } = await ask(head("GET /", ...fields));
    connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`);
    await visitor.readHead();
    connection.write("x".repeat(total));
    let read = 0;
    while (read < total) {
      visitor.resume();
      read += (await visitor.readSome()).length;
      visitor.pause();
      await Bun.sleep(pauseMs); // the pace
    }
    expect(read).toBe(total);
    visitor.resume();
    if (fields.length > 0) expect(await visitor.readToClose()).toEqual({ rest: "", wasReset: false });
  });

  test("2,000 requests that wait for the origin keep nobody waiting", async () => {
    using memory = new MemoryWatch([path.node.process.pid, path.agent.process.pid]);
    const count = 2_000;
    const visitors: RawSocket[] = [];
    for (let n = 0; n < count; n += 100) {
      const some = await Promise.all(Array.from({ length: 100 }, () => path.visit()));
      for (const [k, visitor] of some.entries()) visitor.write(head(`GET /slow/${n + k}`));
      visitors.push(...some);
    }
    const waiting: { readonly connection: RawSocket; readonly id: string }[] = [];
    while (waiting.length < count) {
      const connection = await path.origin.accept();
      waiting.push({ connection, id: /\/slow\/(\d+) /.exec(await connection.readHead())?.[1] ?? "" });
    }
    expect(new Set(waiting.map(({ id }) => id)).size).toBe(count);
    // All of these are answered while none of those is.
    const good = await path.visit();
    const tookMs: number[] = [];
    for (let n = 0; n < 300; n++) {
      const startedMs = performance.now();
      good.write(head(`GET /good/${n}`));
      const connection = await path.origin.accept();
      expect(await connection.readHead()).toStartWith(`GET /good/${n} `);
      connection.write(`HTTP/1.1 200 OK\r\nX-N: ${n}\r\nContent-Length: 0\r\n\r\n`);
      expect(await good.readHead()).toContain(`\r\nX-N: ${n}\r\n`);
      tookMs.push(performance.now() - startedMs);
    }
    const [median, p99] = [150, 297].map((at) => tookMs.toSorted((a, b) => a - b)[at]!) as [number, number];
    note(`beside ${count} slow requests: median ${median.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms`);
    expect(p99).toBeLessThan(limits.openWaitMs); // it waits for no place that the others hold
    expect(visitors.every((visitor) => visitor.receivedBytes === 0)).toBe(true);
    for (const { connection, id } of waiting.toReversed()) {
      connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${id.length}\r\n\r\n${id}`);
    }
    for (const [n, visitor] of visitors.entries()) {
      await visitor.readHead();
      expect(await visitor.read(String(n).length)).toBe(String(n));
    }
    // 2,000 connections and streams on each process.
    for (const growth of memory.growthBytes) expect(growth).toBeLessThan(growthMaxBytes + count * 32 * 1_024);
  });
});
