/** Connections that switch protocols, end to end: WebSocket between the ws package's client and server, and others. */

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { NodeProgram } from "../support/node-program.ts";
import type { RawSocket } from "../support/raw-socket.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat/2\r\nConnection: Upgrade\r\n\r\n";

describe.each([...transports])("over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport, limits: { keepAliveIdleMs: 1_000, bodyStallMs: 1_000, headMs: 1_000 } });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  const upgrade = (...fields: string[]): string =>
    [
      "GET /chat HTTP/1.1",
      `Host: ${path.host}`,
      "Connection: keep-alive, Upgrade",
      "Upgrade: chat/2",
      ...fields,
      "",
      "",
    ].join("\r\n");

  /** Both ends of a switched connection. */
  async function join(early = ""): Promise<{ visitor: RawSocket; connection: RawSocket }> {
    const visitor = await path.visit();
    visitor.write(upgrade() + early);
    const connection = await path.origin.accept();
    await connection.readHead();
    connection.write(switching);
    expect(await visitor.readHead()).toBe(switching);
    return { visitor, connection };
  }

  test("the heads of a made-up protocol arrive as they were sent", async () => {
    const visitor = await path.visit();
    visitor.write(upgrade("X-Key: 1", "Sec-WebSocket-Key: abc", "sec-websocket-extensions: a", "TE: trailers"));
    const connection = await path.origin.accept();
    expect(await connection.readHead()).toStartWith(
      `GET /chat HTTP/1.1\r\nHost: ${path.host}\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\nX-Key: 1\r\n` +
        "Sec-WebSocket-Key: abc\r\nsec-websocket-extensions: a\r\nX-Forwarded-For: 127.0.0.1\r\n",
    );
    const reply =
      "HTTP/1.1 101 Do It\r\nX-First: 1\r\nconnection: Upgrade\r\nx-first: 2\r\nUPGRADE: chat/2\r\nSet-Cookie: a=1\r\n\r\n";
    connection.write(`HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n${reply}`);
    expect(await visitor.readHead()).toBe("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
    expect(await visitor.readHead()).toBe(reply);
  });

  test("bytes that a visitor sends early wait for the 101", async () => {
    const visitor = await path.visit();
    visitor.write(`${upgrade()}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n`);
    const connection = await path.origin.accept();
    await connection.readHead();
    visitor.write("more");
    await visitor.until(() => visitor.queuedBytes === 0, "flush");
    // A full way there and back for somebody else: by then the early bytes would have come too.
    const other = await path.visit();
    other.write(`GET /other HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
    const otherConnection = await path.origin.accept();
    expect(otherConnection).not.toBe(connection);
    expect(await otherConnection.readHead()).toStartWith("GET /other ");
    otherConnection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    await other.readHead();
    expect(connection.unread).toBe("");
    connection.write(switching);
    await visitor.readHead();
    expect(await connection.readUntil("more")).toBe("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nmore");
  });

  test("bytes that an origin sends with its 101, and before the visitor says anything, arrive", async () => {
    const visitor = await path.visit();
    visitor.write(upgrade());
    const connection = await path.origin.accept();
    await connection.readHead();
    connection.write(`${switching}HTTP/1.1 200 OK\r\n\r\nfirst`);
    expect(await visitor.readUntil("first")).toBe(`${switching}HTTP/1.1 200 OK\r\n\r\nfirst`);
    connection.write("second");
    expect(await visitor.read(6)).toBe("second");
  });

  test("every byte value passes, one by one and in megabytes at once in both directions", async () => {
    const { visitor, connection } = await join();
    const all = String.fromCharCode(...Array.from({ length: 256 }, (_, code) => code));
    for (const byte of all) {
      visitor.write(byte);
      expect(await connection.read(1)).toBe(byte);
      connection.write(byte);
      expect(await visitor.read(1)).toBe(byte);
    }
    const much = all.repeat(20_000);
    visitor.write(much);
    connection.write(much);
    expect((await connection.read(much.length)) === much).toBe(true);
    expect((await visitor.read(much.length)) === much).toBe(true);
  });

  test("an end of one side leaves the other open, both ways", async () => {
    const { visitor, connection } = await join();
    visitor.end("last words");
    expect(await connection.readToEnd()).toBe("last words");
    connection.write("still here");
    expect(await visitor.read(10)).toBe("still here");
    connection.end();
    expect(await visitor.readToEnd()).toBe("");

    const second = await join();
    second.connection.end("last words");
    expect(await second.visitor.readToEnd()).toBe("last words");
    second.visitor.write("still here");
    expect(await second.connection.read(10)).toBe("still here");
    second.visitor.end();
    expect(await second.connection.readToEnd()).toBe("");
  });

  test("a reset of one side resets the other", async () => {
    const first = await join();
    first.visitor.reset();
    await first.connection.until(() => first.connection.wasReset, "reset");
    const second = await join();
    second.connection.reset();
    await second.visitor.until(() => second.visitor.wasReset, "reset");
  });

  test("silence is no reason to end it", async () => {
    const { visitor, connection } = await join();
    await Bun.sleep(3_500); // longer than every time-out of HTTP that this node was given
    visitor.write("a");
    expect(await connection.read(1)).toBe("a");
    connection.write("b");
    expect(await visitor.read(1)).toBe("b");
  });

  test("if the origin declines, its reply arrives, and what was sent early is the next request", async () => {
    const visitor = await path.visit();
    for (const status of ["200 OK", "426 Upgrade Required", "403 Forbidden"]) {
      visitor.write(`${upgrade()}GET /next HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
      const connection = await path.origin.accept();
      expect(await connection.readHead()).toStartWith("GET /chat ");
      connection.write(`HTTP/1.1 ${status}\r\nContent-Length: 2\r\n\r\nno`);
      expect(await visitor.readUntil("no")).toBe(`HTTP/1.1 ${status}\r\nContent-Length: 2\r\n\r\nno`);
      const next = await path.origin.accept();
      expect(await next.readHead()).toStartWith("GET /next ");
      next.write("HTTP/1.1 204 No Content\r\n\r\n");
      expect(await visitor.readHead()).toBe("HTTP/1.1 204 No Content\r\n\r\n");
    }
  });

  test("a 426 says which protocols are wanted", async () => {
    const visitor = await path.visit();
    visitor.write(`GET / HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
    const connection = await path.origin.accept();
    await connection.readHead();
    connection.write(
      "HTTP/1.1 426 Upgrade Required\r\nUpgrade: chat/2\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
    );
    expect((await visitor.readHead()).split("\r\n").slice(1, -2).toSorted()).toEqual([
      "Connection: upgrade",
      "Content-Length: 0",
      "Upgrade: chat/2",
    ]);
  });

  test("a POST may switch too, behind its body", async () => {
    const visitor = await path.visit();
    visitor.write(
      `POST /chat HTTP/1.1\r\nHost: ${path.host}\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\nContent-Length: 4\r\n\r\nbody`,
    );
    const connection = await path.origin.accept();
    await connection.readHead();
    expect(await connection.read(4)).toBe("body");
    connection.write(`${switching}raw`);
    expect(await visitor.readUntil("raw")).toBe(`${switching}raw`);
    visitor.write("raw too");
    expect(await connection.read(7)).toBe("raw too");
  });

  test("an Upgrade that Connection does not name, and one to HTTP/2, are not passed on", async () => {
    for (const fields of [
      "Upgrade: chat/2\r\n",
      "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
    ]) {
      const visitor = await path.visit();
      visitor.write(`GET / HTTP/1.1\r\nHost: ${path.host}\r\n${fields}\r\n`);
      const connection = await path.origin.accept();
      expect(await connection.readHead()).not.toMatch(/upgrade|http2/i);
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      expect(await visitor.readHead()).toBe("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      path.forget();
    }
  });

  test("a switched connection is never used for another request", async () => {
    const { visitor, connection } = await join();
    const other = await path.visit();
    other.write(`GET /other HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
    const fresh = await path.origin.accept();
    expect(fresh).not.toBe(connection);
    fresh.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    await other.readHead();
    visitor.end();
    connection.end();
    await visitor.until(() => visitor.isClosed || visitor.hasEnded, "end");
  });

  test("the ws package's client and server do everything through it", async () => {
    await using origin = new NodeProgram("ws-origin.mjs");
    const { port } = await origin.waitFor("port");
    await using wsPath = await VisitorPath.open({ transport, target: Number(port) });
    await using visitor = new NodeProgram("ws-visitor.mjs", [wsPath.node.port, wsPath.host]);
    await visitor.waitFor("done", 50_000);
    const said = Object.assign({}, ...visitor.lines) as Record<string, unknown>;
    expect(said).toMatchObject({
      greeting: "hello /chat//%2f?x=1",
      protocol: "good.v2",
      text: true,
      empty: true,
      binary: true,
      compressible: true,
      fragments: "one two three",
      pong: "between",
      pinged: "from origin",
      ordered: true,
      closedByVisitor: 4_321,
      closedByOrigin: 4_567,
      reason: "asked to",
      cutByOrigin: 1_006,
      many: true,
    });
    expect(String(said["extensions"])).toContain("permessage-deflate");
    expect(said["head"]).toContain("X-Origin");
    // What the origin saw of it.
    expect(origin.lines).toContainEqual({ ping: "between" });
    expect(origin.lines).toContainEqual({ closed: 4_321, reason: "good bye" });
    expect(origin.lines.filter((line) => line["closed"] === 1_006).length).toBeGreaterThanOrEqual(1);
  });
});
