/** The WebSocket transport over real sockets: who may join a session, bounds, proxies, and foreign implementations. */

import { afterAll, describe, expect, test } from "bun:test";
import net from "node:net";
import { WebSocketServer } from "ws";
import { Ear, pattern, send, sha256 } from "./duplex.fixture.ts";
import { serveLanes, websocketWorld, type WebsocketWorld } from "./transports.fixture.ts";
import { systemClock } from "../../src/core/clock.ts";
import { SallyError, type ErrorCode } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import type { Session } from "../../src/ports/session.ts";
import { connectSocket } from "../../src/sockets/connect.ts";
import { listenTcp } from "../../src/sockets/listen.ts";
import { WebsocketLinkAcceptor } from "../../src/transport/websocket/acceptor.ts";
import { createWebsocketConnector, type WebsocketConnectOptions } from "../../src/transport/websocket/connector.ts";

const never = new AbortController().signal;
const closers: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closers) await close();
});

async function codeOf(work: Promise<unknown>): Promise<ErrorCode | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => (error as SallyError).code,
  );
}

async function openWorld(options: Parameters<typeof websocketWorld>[0] = {}): Promise<WebsocketWorld> {
  const world = await websocketWorld(options);
  closers.push(() => world.close());
  return world;
}

function dial(world: WebsocketWorld, options: Partial<WebsocketConnectOptions> = {}): Promise<Session> {
  return createWebsocketConnector({ url: world.url, tls: world.clientTls, ...options }).connect(never);
}

/** Sends a hand-written request and returns the whole answer. */
async function ask(world: WebsocketWorld, target: string, tls = world.clientTls, extra = ""): Promise<string> {
  const { port } = world.listener.address;
  const socket = await connectSocket(
    { kind: "tcp", host: "127.0.0.1", port },
    { tls, signal: never, timeoutMs: 2_000, clock: systemClock },
  );
  const ear = new Ear(socket.duplex);
  const fields =
    extra ||
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
      "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sallyport.1\r\n";
  socket.duplex.write(Buffer.from(`GET ${target} HTTP/1.1\r\nHost: node\r\n${fields}\r\n`, "latin1"));
  await ear.when(() => ear.ended || ear.isClosed || ear.text.startsWith("HTTP/1.1 101"));
  closers.push(() => socket.duplex.reset(new SallyError("CANCELLED")));
  return ear.text;
}

const id = "0123456789abcdef0123456789abcdef";

describe("who may join", () => {
  test("both sides know the other's certificate and share the exporter; a stranger's certificate is refused", async () => {
    const world = await openWorld();
    const [agent, node] = await Promise.all([dial(world), world.nextSession()]);
    expect(node.peerCertificate).toBeDefined();
    expect(agent.peerCertificate).toBeDefined();
    expect(agent.exporter).toEqual(node.exporter);
    expect(node.host).toBe(new URL(world.url).host);
    expect(await codeOf(dial(world, { tls: world.strangerTls }))).toBe("CERTIFICATE_INVALID");
  });

  test("a lane joins only with the certificate that opened the session", async () => {
    const world = await openWorld();
    expect(await ask(world, `/_sally/link?session=${id}&lane=0`)).toStartWith("HTTP/1.1 101");
    expect(await ask(world, `/_sally/link?session=${id}&lane=1`, world.otherTls)).toContain("Sally-Error: FORBIDDEN");
    const { keyPem: _key, certPem: _cert, ...anonymous } = world.clientTls;
    expect(await ask(world, `/_sally/link?session=${id}&lane=1`, anonymous)).toStartWith("HTTP/1.1 403");
    expect(await ask(world, `/_sally/link?session=${id}&lane=1`)).toStartWith("HTTP/1.1 101");
    // Lanes that were lost are replaced, so their numbers grow for as long as the session lives.
    expect(await ask(world, `/_sally/link?session=${id}&lane=123456789`)).toStartWith("HTTP/1.1 101");
    expect(await ask(world, `/_sally/link?session=${id}&lane=1234567890`)).toStartWith("HTTP/1.1 400");
    expect(world.acceptor.sessionCount).toBe(1);
  });

  test("a lane of a session that ended is refused instead of opening another", async () => {
    const world = await openWorld();
    expect(await ask(world, `/_sally/link?session=${id}&lane=3`)).toContain("Sally-Error: NOT_FOUND");
    expect(world.acceptor.sessionCount).toBe(0);
  });

  test("behind a TLS proxy that the node trusts, the session says so and proves nothing", async () => {
    const sessions: Session[] = [];
    const acceptor = new WebsocketLinkAcceptor({ onSession: (s) => void sessions.push(s), trustsTlsProxy: true });
    const listener = await listenTcp({ host: "127.0.0.1", port: 0, onConnection: (s) => serveLanes(acceptor, s) });
    closers.push(() => listener.close());
    const url = `ws://127.0.0.1:${listener.address.port}`;
    const agent = await createWebsocketConnector({ url, host: "edge.example" }).connect(never);
    expect(sessions[0]).toMatchObject({ host: "edge.example", isProxied: true });
    expect(sessions[0]!.peerCertificate ?? sessions[0]!.exporter ?? agent.exporter).toBeUndefined();
  });

  test("where TLS ended on the way and no proxy is trusted, nothing is opened", async () => {
    const acceptor = new WebsocketLinkAcceptor({ onSession: () => expect.unreachable() });
    const listener = await listenTcp({ host: "127.0.0.1", port: 0, onConnection: (s) => serveLanes(acceptor, s) });
    closers.push(() => listener.close());
    const connector = createWebsocketConnector({ url: `ws://127.0.0.1:${listener.address.port}` });
    expect(await codeOf(connector.connect(never))).toBe("PROXY_UNTRUSTED");
    expect(acceptor.sessionCount).toBe(0);
  });

  test("malformed requests are refused with a reason", async () => {
    const world = await openWorld();
    expect(await ask(world, "/_sally/link")).toContain("Sally-Error: BAD_REQUEST");
    expect(await ask(world, `/_sally/link?session=short&lane=0`)).toStartWith("HTTP/1.1 400");
    expect(await ask(world, `/_sally/link?session=${id}&lane=x`)).toStartWith("HTTP/1.1 400");
    expect(await ask(world, `/_sally/link?session=${id}&lane=0`, world.clientTls, "Accept: */*\r\n")).toStartWith(
      "HTTP/1.1 400",
    );
    const old = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n";
    const reply = await ask(world, `/_sally/link?session=${id}&lane=0`, world.clientTls, old);
    expect(reply).toStartWith("HTTP/1.1 426");
    expect(reply).toContain("Sec-WebSocket-Version: 13");
  });
});

describe("bounds", () => {
  test("a session takes as many lanes as a link may have, and no more", async () => {
    const world = await openWorld();
    const [agent, node] = await Promise.all([dial(world), world.nextSession()]);
    let arrived = 0;
    node.onLane = (lane) => {
      arrived++;
      void new Ear(lane);
    };
    for (let i = 0; i < limits.lanesPerLinkMax; i++) void new Ear(await agent.openLane(never));
    expect(await codeOf(agent.openLane(never))).toBe("STREAM_LIMIT");
    expect(arrived).toBe(limits.lanesPerLinkMax);
  });

  test("sessions beyond the limit are refused, and gone ones make room", async () => {
    const world = await openWorld({ sessionsMax: 2 });
    const first = await dial(world);
    await dial(world);
    expect(await codeOf(dial(world))).toBe("OVERLOADED");
    void new Ear(await first.openLane(never));
    first.close();
    const node = await world.nextSession();
    node.onLane = (lane) => void new Ear(lane);
    await node.closed;
    expect(world.acceptor.sessionCount).toBe(1);
    await dial(world);
  });

  test("a session is gone with its last lane", async () => {
    const world = await openWorld();
    const [agent, node] = await Promise.all([dial(world), world.nextSession()]);
    const ears: Ear[] = [];
    node.onLane = (lane) => void ears.push(new Ear(lane));
    const [a, b] = [await agent.openLane(never), await agent.openLane(never)];
    void new Ear(a);
    void new Ear(b);
    a.reset(new SallyError("CANCELLED"));
    await ears[0]!.when(() => ears[0]!.isClosed);
    b.write(pattern(5, 1));
    await ears[1]!.when(() => ears[1]!.receivedBytes === 5);
    expect(await Promise.race([node.closed.then(() => "closed"), Promise.resolve("open")])).toBe("open");
    b.reset(new SallyError("CREDIT_EXCEEDED"));
    expect((await node.closed)?.code).toBe("CREDIT_EXCEEDED");
    expect((await agent.closed)?.code).toBe("CREDIT_EXCEEDED");
  });

  test("an acceptor has closed only when what its sessions had queued has arrived, and takes no new ones", async () => {
    const world = await openWorld();
    const [agent, node] = await Promise.all([dial(world), world.nextSession()]);
    const arrived = Promise.withResolvers<Ear>();
    node.onLane = (lane) => arrived.resolve(new Ear(lane));
    const ear = new Ear(await agent.openLane(never));
    ear.holds = true;
    const bytes = pattern(32 * 1024 * 1024, 7); // more than the system takes
    (await arrived.promise).duplex.write(bytes);
    node.close();
    const closed = world.acceptor.close(new SallyError("DRAINING")).then(() => world.listener.close());
    expect(await codeOf(dial(world))).toBe("DRAINING");
    ear.release();
    await closed;
    await ear.when(() => ear.isClosed);
    expect(ear.receivedBytes).toBe(bytes.length);
  });

  test("a server that accepts and says nothing is a time-out; one that is no node is an error", async () => {
    const silent = net.createServer(() => {});
    const http = net.createServer((socket) => socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
    const noise = net.createServer((socket) => socket.end("220 smtp ready\r\n\r\n"));
    const ports = await Promise.all(
      [silent, http, noise].map(
        (server) =>
          new Promise<number>((resolve) =>
            server.listen(0, "127.0.0.1", () => resolve((server.address() as net.AddressInfo).port)),
          ),
      ),
    );
    const codes = await Promise.all(
      ports.map((port) =>
        codeOf(createWebsocketConnector({ url: `ws://127.0.0.1:${port}`, connectMs: 100 }).connect(never)),
      ),
    );
    expect(codes).toEqual(["CONNECT_TIMEOUT", "CONNECT_FAILED", "CONNECT_FAILED"]);
    for (const server of [silent, http, noise]) server.close();
  });
});

describe("through an HTTP proxy", () => {
  test("every lane is a tunnel of its own, with TLS inside", async () => {
    const world = await openWorld();
    let connects = 0;
    const proxy = net.createServer((client) => {
      client.once("data", (head) => {
        connects++;
        const port = Number(/^CONNECT 127\.0\.0\.1:(\d+) /.exec(head.toString("latin1"))?.[1]);
        const upstream = net.connect(port, "127.0.0.1", () => {
          client.write("HTTP/1.1 200 OK\r\n\r\n");
          client.pipe(upstream).pipe(client);
        });
        for (const socket of [client, upstream]) socket.on("error", () => upstream.destroy());
      });
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    const proxyUrl = `http://127.0.0.1:${(proxy.address() as net.AddressInfo).port}`;
    const [agent, node] = await Promise.all([dial(world, { proxyUrl }), world.nextSession()]);
    const arrived = Promise.withResolvers<Ear>();
    node.onLane = (lane) => arrived.resolve(new Ear(lane));
    const near = new Ear(await agent.openLane(never));
    void new Ear(await agent.openLane(never));
    const bytes = pattern(500_000, 8);
    await send(near, bytes, false);
    const far = await arrived.promise;
    await far.when(() => far.receivedBytes === bytes.length);
    expect(far.sha256()).toBe(sha256(bytes));
    expect(connects).toBe(2);
    expect(node.peerCertificate).toBeDefined();
    proxy.close();
  });
});

describe("foreign implementations", () => {
  test("the ws server understands our client, whatever the sizes", async () => {
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "sallyport.1" });
    await new Promise((resolve) => server.once("listening", resolve));
    server.on("connection", (socket) => {
      socket.ping("are you there");
      socket.on("message", (data: Buffer) => socket.send(data));
    });
    const { port } = server.address() as net.AddressInfo;
    const agent = await createWebsocketConnector({ url: `ws://127.0.0.1:${port}`, isProxied: true }).connect(never);
    const ear = new Ear(await agent.openLane(never));
    const bytes = pattern(1_500_000, 9);
    await send(ear, bytes, false);
    await ear.when(() => ear.receivedBytes === bytes.length);
    expect(ear.sha256()).toBe(sha256(bytes));
    agent.close();
    expect(await agent.closed).toBeUndefined();
    server.close();
  });

  test("Bun's client understands our server", async () => {
    const arrived = Promise.withResolvers<Session>();
    const acceptor = new WebsocketLinkAcceptor({ onSession: arrived.resolve, trustsTlsProxy: true });
    const listener = await listenTcp({ host: "127.0.0.1", port: 0, onConnection: (s) => serveLanes(acceptor, s) });
    closers.push(() => listener.close());
    const client = new WebSocket(`ws://127.0.0.1:${listener.address.port}/_sally/link?session=${id}&lane=0`, [
      "sallyport.1",
    ]);
    client.binaryType = "arraybuffer";
    let received = 0;
    const done = Promise.withResolvers<void>();
    const closed = new Promise<CloseEvent>((resolve) => client.addEventListener("close", resolve));
    const bytes = pattern(200_000, 10);
    client.addEventListener("message", ({ data }) => {
      received += (data as ArrayBuffer).byteLength;
      if (received === bytes.length) done.resolve();
    });
    client.addEventListener("open", () => {
      for (let at = 0; at < bytes.length; at += 50_000) client.send(bytes.slice(at, at + 50_000));
    });
    const node = await arrived.promise;
    node.onLane = (lane) => {
      lane.handler = {
        onData(chunk) {
          lane.write(Uint8Array.from(chunk));
          lane.consume(chunk.length);
        },
        onEnd() {},
        onDrain() {},
        onClose() {},
      };
    };
    await done.promise;
    node.close(new SallyError("DRAINING"));
    expect(await closed).toMatchObject({ code: 4000 + new SallyError("DRAINING").row.wire, reason: "DRAINING" });
  });
});
