/** Real sockets: TCP, TLS and unix, as listeners, agents and transports use them. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SallyError, type ErrorCode } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import { connectThroughProxy } from "../../src/sockets/connect-through-proxy.ts";
import { connectSocket, type ConnectOptions, type SocketTarget } from "../../src/sockets/connect.ts";
import { listenTcp, listenUnix, type AcceptedSocket, type TcpListener } from "../../src/sockets/listen.ts";
import type { TlsClientOptions, TlsServerOptions } from "../../src/sockets/tls-options.ts";
import { createTestAuthority, type TestAuthority, type TestIdentity } from "../contract/certificates.fixture.ts";
import { Ear, pattern, send, sha256 } from "../contract/duplex.fixture.ts";

const never = new AbortController().signal;
const options: ConnectOptions = { signal: never, timeoutMs: 5_000 };
const serverName = "node.sally.internal";
const bulkBytes = 8 * 1024 * 1024;

let authority: TestAuthority;
let foreign: TestAuthority;
let node: TestIdentity;
let agent: TestIdentity;
let stranger: TestIdentity;
let serverTls: TlsServerOptions;
let clientTls: TlsClientOptions;
const opened: TcpListener[] = [];

beforeAll(async () => {
  authority = await createTestAuthority();
  foreign = await createTestAuthority("Foreign CA");
  node = await authority.issue({ role: "node" });
  agent = await authority.issue({ role: "agent" });
  stranger = await foreign.issue({ role: "agent" });
  serverTls = { keyPem: node.keyPem, certPem: node.certPem, caPem: authority.caPem, requestCert: true };
  clientTls = { serverName, caPem: authority.caPem, keyPem: agent.keyPem, certPem: agent.certPem };
});

afterAll(async () => {
  for (const listener of opened) await listener.close();
});

/** A queue of accepted sockets, whose events are recorded from the first on. */
class Door {
  readonly accepted: (AcceptedSocket & { readonly ear: Ear })[] = [];
  #waiting: (() => void)[] = [];
  readonly onConnection = (socket: AcceptedSocket): void => {
    this.accepted.push({ ...socket, ear: new Ear(socket.duplex) });
    for (const wake of this.#waiting.splice(0)) wake();
  };
  async next(): Promise<AcceptedSocket & { readonly ear: Ear }> {
    while (this.accepted.length === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.accepted.shift()!; // checked
  }
}

async function failureOf(work: Promise<unknown>): Promise<SallyError | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    if (error instanceof SallyError) return error;
    throw error;
  }
}

async function codeOf(work: Promise<unknown>): Promise<ErrorCode | undefined> {
  return (await failureOf(work))?.code;
}

interface Place {
  readonly name: string;
  readonly tls: boolean;
  readonly unix: boolean;
}

const places: Place[] = [
  { name: "TCP", tls: false, unix: false },
  { name: "TLS", tls: true, unix: false },
  { name: "unix", tls: false, unix: true },
];

async function pair({ tls, unix }: Place): Promise<{ near: Ear; far: Ear; close(): Promise<void> }> {
  const door = new Door();
  const common = { onConnection: door.onConnection, ...(tls ? { tls: serverTls } : {}) };
  const path = join(tmpdir(), `sally-${crypto.randomUUID()}.sock`);
  const listener = unix
    ? await listenUnix({ ...common, path })
    : await listenTcp({ ...common, host: "127.0.0.1", port: 0 });
  opened.push(listener);
  const target: SocketTarget = unix
    ? { kind: "unix", path }
    : { kind: "tcp", host: "127.0.0.1", port: listener.address.port };
  const { duplex } = await connectSocket(target, { ...options, ...(tls ? { tls: clientTls } : {}) });
  const near = new Ear(duplex);
  const { ear: far } = await door.next();
  return {
    near,
    far,
    async close() {
      await listener.close();
      if (unix) await rm(path, { force: true });
    },
  };
}

/** Bytes that arrive on another connection of the same kind: what was to happen before has happened. */
async function beside(place: Place, bytes: Uint8Array): Promise<void> {
  const { near, far, close } = await pair(place);
  await send(near, bytes);
  await far.when(() => far.ended);
  expect(far.receivedBytes).toBe(bytes.length);
  await close();
}

describe.each(places)("over $name", (place) => {
  test("8 MB each way at once arrive whole and both sides close cleanly", async () => {
    const { near, far, close } = await pair(place);
    const up = pattern(bulkBytes, 1);
    const down = pattern(bulkBytes, 2);
    await Promise.all([send(near, up), send(far, down)]);
    await Promise.all([near.when(() => near.isClosed), far.when(() => far.isClosed)]);
    expect(far.sha256()).toBe(sha256(up));
    expect(near.sha256()).toBe(sha256(down));
    expect([near.closes, far.closes]).toEqual([[undefined], [undefined]]);
    expect(near.ended && far.ended).toBe(true);
    await close();
  });

  test.each(["the dialling", "the accepting"])("%s side ends first and still gets the whole answer", async (first) => {
    const { near, far, close } = await pair(place);
    const [asker, answerer] = first === "the dialling" ? [near, far] : [far, near];
    const question = pattern(100_000, 3);
    const answer = pattern(bulkBytes, 4);
    await send(asker, question);
    await answerer.when(() => answerer.ended);
    expect(answerer.isClosed).toBe(false);
    expect(answerer.sha256()).toBe(sha256(question));
    await send(answerer, answer);
    await asker.when(() => asker.isClosed);
    await answerer.when(() => answerer.isClosed);
    expect(asker.sha256()).toBe(sha256(answer));
    expect([asker.closes, answerer.closes]).toEqual([[undefined], [undefined]]);
    expect(asker.order.slice(-2)).toEqual(["end", "close"]);
    await close();
  });

  test("a reader that stops holds the writer back, and later gets everything", async () => {
    const { near, far, close } = await pair(place);
    far.holds = true;
    const bytes = pattern(32 * 1024 * 1024, 5);
    const sending = send(near, bytes);
    await far.when(() => far.receivedBytes > limits.socketReadHighBytes);
    await beside(place, bytes.subarray(0, bulkBytes)); // it had as much time, and more room
    expect(far.receivedBytes).toBeLessThan(limits.socketReadHighBytes + 2 * 1024 * 1024);
    expect(near.duplex.queuedBytes).toBeLessThan(limits.socketQueueHighBytes + 128 * 1024);
    far.release();
    await sending;
    await far.when(() => far.ended);
    expect(far.sha256()).toBe(sha256(bytes));
    far.duplex.end();
    await near.when(() => near.isClosed);
    await close();
  });

  // A unix socket has no RST: its peer sees an end, and an error only when it writes.
  const resets = place.unix ? () => {} : test;
  resets("a reset reaches the peer as an error, and the resetting side hears nothing", async () => {
    const { near, far, close } = await pair(place);
    near.duplex.write(pattern(10, 6));
    await far.when(() => far.receivedBytes === 10);
    near.duplex.reset(new SallyError("CANCELLED"));
    await far.when(() => far.isClosed);
    expect(far.closes[0]?.code).toBe("LINK_LOST");
    expect(far.ended).toBe(false);
    await beside(place, pattern(10, 6));
    expect(near.closes).toEqual([]);
    expect(near.duplex.write(pattern(10, 6))).toBe(true);
    await close();
  });

  test("closing the listener resets its connections", async () => {
    const { near, far, close } = await pair(place);
    await close();
    await far.when(() => far.isClosed);
    expect(far.closes[0]?.code).toBe("LINK_LOST");
    if (place.unix) {
      await near.when(() => near.ended);
      near.duplex.write(pattern(10, 6));
    }
    await near.when(() => near.isClosed);
    expect(near.closes[0]?.code).toBe("LINK_LOST");
  });
});

describe("listening", () => {
  test("a second listener on one port is told the address", async () => {
    const first = await listenTcp({ host: "127.0.0.1", port: 0, onConnection() {} });
    opened.push(first);
    const { port } = first.address;
    const second = listenTcp({ host: "127.0.0.1", port, onConnection() {} });
    expect((await failureOf(second))?.message).toContain(`127.0.0.1:${port}`);
    expect(await codeOf(listenTcp({ host: "127.0.0.1", port, onConnection() {} }))).toBe("ADDRESS_IN_USE");
  });

  test("IPv6 loopback is listened on and reported without brackets", async () => {
    const door = new Door();
    const listener = await listenTcp({ host: "::1", port: 0, onConnection: door.onConnection });
    opened.push(listener);
    const socket = await connectSocket({ kind: "tcp", host: "::1", port: listener.address.port }, options);
    const { remote, local } = await door.next();
    expect(remote.host).toBe("::1");
    expect(local.port).toBe(listener.address.port);
    socket.duplex.reset(new SallyError("CANCELLED"));
  });

  test("after stopAccepting live connections go on and new ones are refused", async () => {
    const door = new Door();
    const listener = await listenTcp({ host: "127.0.0.1", port: 0, onConnection: door.onConnection });
    opened.push(listener);
    const target = { kind: "tcp", host: "127.0.0.1", port: listener.address.port } as const;
    const near = new Ear((await connectSocket(target, options)).duplex);
    const { ear: far } = await door.next();
    listener.stopAccepting();
    expect(await codeOf(connectSocket(target, options))).toBe("CONNECT_FAILED");
    await send(near, pattern(1_000, 1));
    await far.when(() => far.ended);
    expect(far.receivedBytes).toBe(1_000);
    far.duplex.end();
    await near.when(() => near.isClosed);
  });
});

describe("a peer that closes", () => {
  const request = new Uint8Array(100);

  /** A connection whose far side is closed by `closeWhen`; what the near side knew of its bytes when it saw the end. */
  async function knownAtEnd(
    closeWhen: (far: net.Socket, write: () => void) => void,
  ): Promise<[unreceived: number, closed: string]> {
    const near = Promise.withResolvers<Awaited<ReturnType<typeof connectSocket>>>();
    const server = net.createServer((far) => {
      far.on("error", () => {});
      void near.promise.then(({ duplex }) => closeWhen(far, () => void duplex.write(request)));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo; // it listens on TCP
    near.resolve(await connectSocket({ kind: "tcp", host: "127.0.0.1", port }, options));
    const { duplex } = await near.promise;
    const { promise, resolve } = Promise.withResolvers<[number, string]>();
    let unreceived = -1;
    duplex.handler = {
      onData: (chunk) => duplex.consume(chunk.length),
      onEnd() {
        unreceived = duplex.unreceivedBytes!; // sockets have it
        duplex.end();
      },
      onDrain() {},
      onClose: (error) => resolve([unreceived, error === undefined ? "clean" : "broken"]),
    };
    const known = await promise;
    server.close();
    return known;
  }

  test.skipIf(process.platform !== "linux")("before it got what was sent has not received it", async () => {
    for (let n = 0; n < 50; n++) {
      const known = await knownAtEnd((far, write) => {
        far.destroy();
        write();
      });
      expect(known).toEqual([request.length, "broken"]);
    }
  });

  test("after it read what was sent has received it", async () => {
    const known = await knownAtEnd((far, write) => {
      far.once("data", () => far.destroy());
      write();
    });
    expect(known).toEqual([0, "clean"]);
  });
});

describe("dialling", () => {
  test.each(["127.0.0.1", "::1"])("localhost is reached when only %s is listened on", async (host) => {
    const door = new Door();
    const listener = await listenTcp({ host, port: 0, onConnection: door.onConnection });
    opened.push(listener);
    const socket = await connectSocket({ kind: "tcp", host: "localhost", port: listener.address.port }, options);
    expect(socket.remote.host).toBe(host);
    socket.duplex.reset(new SallyError("CANCELLED"));
  });

  test("a port that nobody listens on is an error at once, and names it", async () => {
    const free = await listenTcp({ host: "127.0.0.1", port: 0, onConnection() {} });
    await free.close();
    const { port } = free.address;
    const dialling = connectSocket({ kind: "tcp", host: "127.0.0.1", port }, options);
    expect((await failureOf(dialling))?.message).toContain(`nothing listens on 127.0.0.1:${port}`);
    expect(await codeOf(connectSocket({ kind: "tcp", host: "localhost", port }, options))).toBe("CONNECT_FAILED");
    expect(await codeOf(connectSocket({ kind: "unix", path: "/nonexistent/s.sock" }, options))).toBe("CONNECT_FAILED");
  });

  test("an unknown name is an error", async () => {
    expect(await codeOf(connectSocket({ kind: "tcp", host: "no-such-host.invalid", port: 1 }, options))).toBe(
      "CONNECT_FAILED",
    );
  });

  test("an aborted dial rejects at once", async () => {
    const abort = new AbortController();
    const door = new Door();
    const silent = await listenTcp({ host: "127.0.0.1", port: 0, onConnection: door.onConnection });
    opened.push(silent);
    const dialling = connectSocket(
      { kind: "tcp", host: "127.0.0.1", port: silent.address.port },
      { ...options, tls: clientTls, signal: abort.signal },
    );
    const { ear } = await door.next();
    await ear.when(() => ear.receivedBytes > 0); // the handshake has begun
    abort.abort();
    expect(await codeOf(dialling)).toBe("CANCELLED");
  });

  test("a server that never finishes its handshake is a time-out", async () => {
    const silent = await listenTcp({ host: "127.0.0.1", port: 0, onConnection: (s) => void new Ear(s.duplex) });
    opened.push(silent);
    const target = { kind: "tcp", host: "127.0.0.1", port: silent.address.port } as const;
    expect(await codeOf(connectSocket(target, { ...options, tls: clientTls, timeoutMs: 50 }))).toBe("CONNECT_TIMEOUT");
  });
});

describe("TLS", () => {
  async function meet(client: TlsClientOptions, server: TlsServerOptions = serverTls) {
    const door = new Door();
    const listener = await listenTcp({ host: "127.0.0.1", port: 0, tls: server, onConnection: door.onConnection });
    opened.push(listener);
    const target = { kind: "tcp", host: "127.0.0.1", port: listener.address.port } as const;
    const connecting = connectSocket(target, { ...options, tls: client });
    return { door, listener, target, connecting };
  }

  test("both sides see the other's certificate and the same exporter", async () => {
    const alpn = ["sallyport.1", "http/1.1"];
    const { door, connecting } = await meet({ ...clientTls, alpn: ["http/1.1"] }, { ...serverTls, alpn });
    const near = await connecting;
    const far = await door.next();
    expect(near.tls?.peerCertificate).toEqual(node.der);
    expect(far.tls?.peerCertificate).toEqual(agent.der);
    expect(far.tls?.peerCertificateRejected).toBe(false);
    expect(near.tls!.exporter).toHaveLength(32);
    expect(near.tls!.exporter).toEqual(far.tls!.exporter);
    expect([far.tls?.serverName, far.tls?.alpn, near.tls?.alpn]).toEqual([serverName, "http/1.1", "http/1.1"]);
    expect(far.remote.host).toBe("127.0.0.1");
    expect(far.remote.port).toBeGreaterThan(0);
    near.duplex.reset(new SallyError("CANCELLED"));
  });

  test("a client without a certificate is let in and told apart from one that was rejected", async () => {
    const { door, connecting } = await meet({ serverName, caPem: authority.caPem });
    await connecting;
    const { tls } = await door.next();
    expect([tls?.peerCertificate, tls?.peerCertificateRejected]).toEqual([undefined, false]);
  });

  test("a client with a foreign certificate is reported as rejected", async () => {
    const { door, connecting } = await meet({ ...clientTls, keyPem: stranger.keyPem, certPem: stranger.certPem });
    await connecting;
    const { tls } = await door.next();
    expect([tls?.peerCertificate, tls?.peerCertificateRejected]).toEqual([undefined, true]);
  });

  test("a wrong server name or an unknown authority is refused with the code that was asked for", async () => {
    const wrongName = await meet({ ...clientTls, serverName: "other.example" });
    expect(await codeOf(wrongName.connecting)).toBe("CA_MISMATCH");
    const wrongCa = await meet({ ...clientTls, caPem: foreign.caPem, failureCode: "ORIGIN_TLS" });
    expect(await codeOf(wrongCa.connecting)).toBe("ORIGIN_TLS");
    await connectSocket(wrongName.target, { ...options, tls: clientTls });
    expect((await wrongName.door.next()).tls?.peerCertificate).toEqual(agent.der); // the first that got in
    expect(wrongName.door.accepted).toHaveLength(0);
    const anything = await meet({ serverName: "other.example", rejectUnauthorized: false });
    expect((await anything.connecting).tls?.peerCertificate).toEqual(node.der);
  });

  test("a server that does not speak TLS is not taken for one with a wrong certificate", async () => {
    using plain = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("plain") });
    const port = plain.port!; // it listens on TCP
    for (const extra of [{}, { rejectUnauthorized: false }]) {
      const tls = { ...clientTls, ...extra, plainAdvice: "use the other port" };
      const connecting = connectSocket({ kind: "tcp", host: "127.0.0.1", port }, { ...options, tls });
      const error = await connecting.then(
        () => undefined,
        (thrown: SallyError) => thrown,
      );
      expect(error?.code).toBe("CONNECT_FAILED");
      expect(error?.message).toBe(`127.0.0.1:${port} does not speak TLS: use the other port`);
    }
  });

  test("a new certificate counts from the next connection on; a broken one is refused and the old one kept", async () => {
    const { listener, target, connecting, door } = await meet(clientTls);
    const first = new Ear((await connecting).duplex);
    const renewed = await authority.issue({ role: "node" });
    expect(() => listener.replaceTls({ ...serverTls, certPem: "nonsense" })).toThrow(SallyError);
    listener.replaceTls({ ...serverTls, keyPem: renewed.keyPem, certPem: renewed.certPem });
    const second = await connectSocket(target, { ...options, tls: clientTls });
    expect(second.tls?.peerCertificate).toEqual(renewed.der);
    const { ear: far } = await door.next();
    await send(first, pattern(1_000, 1));
    await far.when(() => far.ended);
    expect(far.receivedBytes).toBe(1_000);
  });

  test("handshakes that never end are bounded in number and in time, and give way to those that come", async () => {
    const door = new Door();
    const bounds = { pendingHandshakes: 3, handshakeMs: 1_000 };
    const listener = await listenTcp({
      host: "127.0.0.1",
      port: 0,
      tls: serverTls,
      limits: bounds,
      onConnection: door.onConnection,
    });
    opened.push(listener);
    const target = { kind: "tcp", host: "127.0.0.1", port: listener.address.port } as const;
    const ears: Ear[] = [];
    for (let i = 0; i < 5; i++) ears.push(new Ear((await connectSocket(target, options)).duplex));
    await Promise.all(ears.slice(0, 2).map((ear) => ear.when(() => ear.isClosed)));
    expect(listener.pendingHandshakes).toBe(3);
    expect(ears.map((ear) => ear.isClosed)).toEqual([true, true, false, false, false]);
    await connectSocket(target, { ...options, tls: clientTls });
    await door.next();
    await Promise.all(ears.map((ear) => ear.when(() => ear.isClosed)));
    expect(listener.pendingHandshakes).toBe(0);
    await connectSocket(target, { ...options, tls: clientTls });
    await door.next();
  });
});

describe("an HTTP proxy", () => {
  /** A real CONNECT proxy that remembers what it was asked. */
  async function openProxy(answer = "HTTP/1.1 200 Connection established\r\n\r\n") {
    const heads: string[] = [];
    const server = net.createServer((client) => {
      client.once("data", (head) => {
        heads.push(head.toString("latin1"));
        const [, host, port] = /^CONNECT \[?([^\s\]]+?)\]?:(\d+) /.exec(head.toString("latin1")) ?? [];
        if (!answer.startsWith("HTTP/1.1 200")) return client.end(answer);
        const upstream = net.connect(Number(port), host, () => {
          client.write(answer);
          client.pipe(upstream).pipe(client);
        });
        for (const socket of [client, upstream]) socket.on("error", () => upstream.destroy());
        return undefined;
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return { heads, port: (server.address() as net.AddressInfo).port, close: () => server.close() };
  }

  test("carries TLS to the target, which still sees our certificate", async () => {
    const door = new Door();
    const listener = await listenTcp({ host: "127.0.0.1", port: 0, tls: serverTls, onConnection: door.onConnection });
    opened.push(listener);
    const proxy = await openProxy();
    const { port } = listener.address;
    const socket = await connectThroughProxy(
      `http://ann:s%20cret@127.0.0.1:${proxy.port}`,
      { host: "127.0.0.1", port },
      { ...options, tls: clientTls },
    );
    const near = new Ear(socket.duplex);
    const far = await door.next();
    expect(far.tls?.peerCertificate).toEqual(agent.der);
    expect(socket.tls?.exporter).toEqual(far.tls?.exporter);
    expect(proxy.heads[0]).toStartWith(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n`);
    expect(proxy.heads[0]).toContain(`Proxy-Authorization: Basic ${btoa("ann:s cret")}\r\n`);
    const bytes = pattern(1024 * 1024, 9);
    await Promise.all([send(near, bytes, false), send(far.ear, bytes, false)]);
    await near.when(() => near.receivedBytes === bytes.length);
    await far.ear.when(() => far.ear.receivedBytes === bytes.length);
    expect(near.sha256()).toBe(sha256(bytes));
    expect(far.ear.sha256()).toBe(sha256(bytes));
    proxy.close();
  });

  test("that refuses is an error with its status, without the password", async () => {
    const target = { host: "127.0.0.1", port: 9 };
    const refusing = await openProxy("HTTP/1.1 403 Forbidden\r\n\r\n");
    const url = `http://ann:secret@127.0.0.1:${refusing.port}`;
    expect((await failureOf(connectThroughProxy(url, target, options)))?.message).toContain("(403)");
    const asking = await openProxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    const dialling = connectThroughProxy(`127.0.0.1:${asking.port}`, target, options);
    expect(await codeOf(dialling)).toBe("AUTH_FAILED");
    expect(await codeOf(connectThroughProxy("https://127.0.0.1:1", target, options))).toBe("USAGE");
    refusing.close();
    asking.close();
  });
});
