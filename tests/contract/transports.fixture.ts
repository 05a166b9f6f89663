/** Every transport, opened the same way: the table of the contract suite. */

import { createTestAuthority } from "./certificates.fixture.ts";
import { quicWorld } from "./quic.fixture.ts";
import { SallyError } from "../../src/core/errors.ts";
import { RequestParser } from "../../src/http/http1/head-parser.ts";
import { limits } from "../../src/core/limits.ts";
import type { Session } from "../../src/ports/session.ts";
import { listenTcp, type AcceptedSocket, type TcpListener } from "../../src/sockets/listen.ts";
import type { TlsClientOptions } from "../../src/sockets/tls-options.ts";
import { memoryPair } from "../../src/transport/memory.ts";
import { WebsocketLinkAcceptor, type WebsocketAcceptorOptions } from "../../src/transport/websocket/acceptor.ts";
import { createWebsocketConnector } from "../../src/transport/websocket/connector.ts";

export interface OpenedTransport {
  readonly agent: Session;
  readonly node: Session;
  close(): Promise<void> | void;
}

export interface TransportUnderTest {
  readonly name: string;
  /** False: only the multiplexer's credit, and a ceiling, bound what a reader has not taken (node:quic). */
  readonly holdsWriterBack: boolean;
  open(): Promise<OpenedTransport>;
}

const never = new AbortController().signal;

export const memoryTransport: TransportUnderTest = {
  name: "memory",
  holdsWriterBack: true,
  async open() {
    const [agent, node] = memoryPair();
    return { agent, node, close: () => agent.close() };
  },
};

/** A listener that only knows the lane endpoint: reads one head and gives the connection to the acceptor. */
export function serveLanes(acceptor: WebsocketLinkAcceptor, { duplex, remote, tls }: AcceptedSocket): void {
  const parser = new RequestParser(limits);
  duplex.handler = {
    onData(chunk) {
      const head = parser.push(chunk, 0);
      duplex.consume(head === undefined ? chunk.length : parser.end);
      if (head !== undefined) acceptor.accept({ duplex, head, remote, tls, earlyBytes: chunk.subarray(parser.end) });
    },
    onEnd: () => duplex.end(),
    onDrain() {},
    onClose() {},
  };
}

export interface WebsocketWorld {
  readonly listener: TcpListener;
  readonly acceptor: WebsocketLinkAcceptor;
  readonly url: string;
  readonly clientTls: TlsClientOptions;
  readonly strangerTls: TlsClientOptions;
  readonly otherTls: TlsClientOptions;
  nextSession(): Promise<Session>;
  close(): Promise<void>;
}

/** A node that listens with mutual TLS, and the certificates of its agents. */
export async function websocketWorld(options: Partial<WebsocketAcceptorOptions> = {}): Promise<WebsocketWorld> {
  const authority = await createTestAuthority();
  const foreign = await createTestAuthority("Foreign CA");
  const node = await authority.issue({ role: "node" });
  const [agent, other] = [await authority.issue({ role: "agent" }), await authority.issue({ role: "agent" })];
  const stranger = await foreign.issue({ role: "agent" });
  const sessions: Session[] = [];
  const waiting: ((session: Session) => void)[] = [];
  const acceptor = new WebsocketLinkAcceptor({
    onSession(session) {
      const next = waiting.shift();
      if (next === undefined) sessions.push(session);
      else next(session);
    },
    ...options,
  });
  const listener = await listenTcp({
    host: "127.0.0.1",
    port: 0,
    tls: { keyPem: node.keyPem, certPem: node.certPem, caPem: authority.caPem, requestCert: true },
    onConnection: (socket) => serveLanes(acceptor, socket),
  });
  const common = { serverName: "node.sally.internal", caPem: authority.caPem };
  return {
    listener,
    acceptor,
    url: `wss://127.0.0.1:${listener.address.port}`,
    clientTls: { ...common, keyPem: agent.keyPem, certPem: agent.certPem },
    otherTls: { ...common, keyPem: other.keyPem, certPem: other.certPem },
    strangerTls: { ...common, keyPem: stranger.keyPem, certPem: stranger.certPem },
    nextSession() {
      const first = sessions.shift();
      return first === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(first);
    },
    close: () => listener.close(),
  };
}

export const websocketTransport: TransportUnderTest = {
  name: "websocket",
  holdsWriterBack: true,
  async open() {
    const world = await websocketWorld();
    const connector = createWebsocketConnector({ url: world.url, tls: world.clientTls });
    const [agent, node] = await Promise.all([connector.connect(never), world.nextSession()]);
    return { agent, node, close: () => world.close() };
  },
};

export const quicTransport: TransportUnderTest = {
  name: "quic",
  holdsWriterBack: false,
  async open() {
    const received = Promise.withResolvers<Session>();
    const world = await quicWorld({ listen: { onSession: received.resolve } });
    const [agent, node] = await Promise.all([world.connector.connect(never), received.promise]);
    return {
      agent,
      node,
      async close() {
        node.close(new SallyError("CANCELLED"));
        await Promise.all([agent.closed, node.closed]);
        await world[Symbol.asyncDispose]();
      },
    };
  },
};
