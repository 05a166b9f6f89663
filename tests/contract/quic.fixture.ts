/** A node and an agent over real QUIC on loopback, for tests. */

import { createSocket, type Socket } from "node:dgram";
import { readdirSync } from "node:fs";
import { createTestAuthority, type TestAuthority } from "./certificates.fixture.ts";
import type { Address } from "../../src/core/address.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Duplex, DuplexHandler } from "../../src/core/duplex.ts";
import { SallyError } from "../../src/core/errors.ts";
import { silentLogger } from "../../src/core/log.ts";
import type { Session } from "../../src/ports/session.ts";
import {
  createQuicConnector,
  QuicEndpoints,
  type QuicConnectOptions,
  type QuicConnector,
} from "../../src/transport/quic/connector.ts";
import type { QuicSessionHandle } from "../../src/transport/quic/dialled-carrier.ts";
import { listenQuic, type QuicListener, type QuicListenOptions } from "../../src/transport/quic/listener.ts";
import type { QuicTls } from "../../src/transport/quic/options.ts";

export const never = new AbortController().signal;

/** Remembers what a lane reports; consumes at once unless told otherwise. */
export class Recorder implements DuplexHandler {
  readonly chunks: Uint8Array[] = [];
  receivedBytes = 0;
  ended = false;
  drains = 0;
  closes: (SallyError | undefined)[] = [];
  readonly #lane: Duplex;
  readonly #keeps: boolean;
  readonly #consumes: boolean;
  #waiters: (() => void)[] = [];

  constructor(lane: Duplex, { keeps = true, consumes = true }: { keeps?: boolean; consumes?: boolean } = {}) {
    this.#lane = lane;
    this.#keeps = keeps;
    this.#consumes = consumes;
    lane.handler = this;
  }

  onData(chunk: Uint8Array): void {
    this.receivedBytes += chunk.length;
    if (this.#keeps) this.chunks.push(chunk);
    if (this.#consumes) this.#lane.consume(chunk.length);
    this.#wake();
  }

  onEnd(): void {
    this.ended = true;
    this.#wake();
  }

  onDrain(): void {
    this.drains++;
    this.#wake();
  }

  onClose(error: SallyError | undefined): void {
    this.closes.push(error);
    this.#wake();
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }

  async until(what: string, holds: () => boolean, withinMs = 5_000): Promise<void> {
    const endMs = performance.now() + withinMs;
    while (!holds()) {
      const left = endMs - performance.now();
      if (left <= 0) throw new Error(`not within ${withinMs} ms: ${what} (received ${this.receivedBytes})`);
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.push(resolve);
      const timer = setTimeout(resolve, left);
      await promise;
      clearTimeout(timer);
    }
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }
}

export interface QuicWorld extends AsyncDisposable {
  readonly authority: TestAuthority;
  readonly nodeTls: QuicTls;
  readonly agentTls: QuicTls;
  readonly listener: QuicListener;
  readonly endpoints: QuicEndpoints;
  readonly connector: QuicConnector;
  connectorWith(options: Partial<QuicConnectOptions>): QuicConnector;
  /** An agent's session and the node's view of it. */
  pair(connector?: QuicConnector): Promise<{ agent: QuicSessionHandle; node: NodeSide }>;
  /** Sessions as the node received them. */
  readonly sessions: NodeSide[];
}

export class NodeSide {
  readonly session: Session;
  readonly lanes: Recorder[] = [];
  readonly pipes: Duplex[] = [];
  #waiting: ((at: number) => void)[] = [];

  constructor(session: Session, recorder: { keeps?: boolean; consumes?: boolean; echoes?: boolean } = {}) {
    this.session = session;
    session.onLane = (lane) => {
      this.pipes.push(lane);
      const record = new Recorder(lane, recorder);
      this.lanes.push(record);
      if (recorder.echoes === true) {
        const onData = record.onData.bind(record);
        record.onData = (chunk) => {
          lane.write(chunk);
          onData(chunk);
        };
      }
      for (const wake of this.#waiting.splice(0)) wake(this.lanes.length);
    };
  }

  async lane(at: number): Promise<Recorder> {
    while (this.lanes[at] === undefined) await new Promise((resolve) => this.#waiting.push(resolve));
    return this.lanes[at];
  }
}

export interface WorldOptions {
  readonly listen?: Partial<QuicListenOptions>;
  readonly recorder?: { keeps?: boolean; consumes?: boolean; echoes?: boolean };
}

export async function quicWorld({ listen = {}, recorder = {} }: WorldOptions = {}): Promise<QuicWorld> {
  const authority = await createTestAuthority();
  const { caPem } = authority;
  const nodeTls = { ...(await authority.issue({ role: "node" })), caPem };
  const agentTls = { ...(await authority.issue({ role: "agent" })), caPem };
  const sessions: NodeSide[] = [];
  const waiting: (() => void)[] = [];
  const listener = await listenQuic({
    host: "127.0.0.1",
    port: 0,
    tls: nodeTls,
    onSession: (session) => {
      sessions.push(new NodeSide(session, recorder));
      for (const wake of waiting.splice(0)) wake();
    },
    log: silentLogger,
    clock: systemClock,
    ...listen,
  });
  const endpoints = new QuicEndpoints();
  const connectorWith = (options: Partial<QuicConnectOptions>): QuicConnector =>
    createQuicConnector({ address: listener.address, tls: agentTls, endpoints, clock: systemClock, ...options });
  const connector = connectorWith({});
  return {
    authority,
    nodeTls,
    agentTls,
    listener,
    endpoints,
    connector,
    connectorWith,
    sessions,
    async pair(from = connector) {
      const at = sessions.length;
      const agent = await from.connect(never);
      while (sessions[at] === undefined) await new Promise<void>((resolve) => waiting.push(resolve));
      return { agent, node: sessions[at] };
    },
    async [Symbol.asyncDispose]() {
      await endpoints.close();
      await listener.close(new SallyError("CANCELLED")); // nobody is left to linger for
    },
  };
}

export function der(certPem: string): Uint8Array {
  return Uint8Array.fromBase64(certPem.replaceAll(/-----[^-]+-----|\s/g, ""));
}

export async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "no error",
    (error: unknown) => (error instanceof SallyError ? error.code : String(error)),
  );
}

export async function until(what: string, holds: () => boolean | Promise<boolean>, withinMs: number): Promise<void> {
  const endMs = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await Bun.sleep(5);
  }
}

/** Open descriptors of this process. */
export function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** A UDP port that takes everything and says nothing. */
export async function blackHole(): Promise<
  Disposable & { readonly address: Address; readonly reached: Promise<void> }
> {
  const socket = await boundSocket();
  return {
    address: { host: "127.0.0.1", port: socket.address().port },
    reached: new Promise((resolve) => socket.once("message", () => resolve())),
    [Symbol.dispose]: () => void socket.close(),
  };
}

export interface UdpRelay extends AsyncDisposable {
  readonly address: Address;
  /** The port that the node sees. */
  readonly outerPort: number;
  readonly portsSeen: number;
  /** What a NAT does that forgot its mapping. */
  changePort(): Promise<void>;
  /** Nothing reaches the agent any more. */
  deafen(): void;
  /** Nothing passes any more. */
  silence(): void;
}

/** Stands between one agent and the node as a NAT does. */
export async function udpRelay(node: Address): Promise<UdpRelay> {
  const inner = await boundSocket();
  const outers: Socket[] = [];
  let agentPort = 0;
  const changePort = async (): Promise<void> => {
    const outer = await boundSocket();
    outer.on("message", (data) => inner.send(data, agentPort, "127.0.0.1"));
    outers.at(-1)?.removeAllListeners("message"); // what still comes to the old port is lost
    outers.push(outer);
  };
  await changePort();
  inner.on("message", (data, from) => {
    agentPort = from.port;
    outers.at(-1)?.send(data, node.port, node.host);
  });
  return {
    address: { host: "127.0.0.1", port: inner.address().port },
    get outerPort() {
      return outers.at(-1)!.address().port;
    },
    get portsSeen() {
      return outers.length;
    },
    changePort,
    deafen() {
      outers.at(-1)?.removeAllListeners("message");
    },
    silence() {
      inner.removeAllListeners("message");
      outers.at(-1)?.removeAllListeners("message");
    },
    async [Symbol.asyncDispose]() {
      inner.close();
      for (const outer of outers) outer.close();
    },
  };
}

function boundSocket(): Promise<Socket> {
  const socket = createSocket({ type: "udp4", recvBufferSize: 4 * 1024 * 1024, sendBufferSize: 4 * 1024 * 1024 });
  return new Promise((resolve) => socket.bind(0, "127.0.0.1", () => resolve(socket)));
}

/** The QUIC packets that share a datagram, each in one of its own, the Initial packet first and padded (RFC 9000 12.2). */
export function splitPackets(datagram: Uint8Array): Uint8Array[] {
  const packets: { readonly isInitial: boolean; readonly bytes: Uint8Array }[] = [];
  let start = 0;
  while (start < datagram.length && (datagram[start]! & 0x80) !== 0) {
    const isVersion2 = datagram[start + 1] === 0x6b;
    const isInitial = ((datagram[start]! >> 4) & 3) === (isVersion2 ? 1 : 0);
    let at = start + 5;
    at += 1 + datagram[at]!; // destination connection id
    at += 1 + datagram[at]!; // source connection id
    if (isInitial) {
      const token = varint(datagram, at);
      at = token.next + token.value;
    }
    const length = varint(datagram, at);
    const end = length.next + length.value;
    packets.push({ isInitial, bytes: datagram.subarray(start, end) });
    start = end;
  }
  packets.sort((a, b) => Number(b.isInitial) - Number(a.isInitial));
  return packets.map(({ isInitial, bytes }) => {
    if (!isInitial) return bytes;
    const padded = new Uint8Array(1_200);
    padded.set(bytes);
    return padded;
  });
}

function varint(bytes: Uint8Array, at: number): { value: number; next: number } {
  const length = 1 << (bytes[at]! >> 6);
  let value = bytes[at]! & 0x3f;
  for (let i = 1; i < length; i++) value = value * 256 + bytes[at + i]!;
  return { value, next: at + length };
}
