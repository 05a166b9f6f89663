/** A path between agents and a node: a relay of datagrams that takes its time, loses everything on demand, and remembers. */

import { createSocket, type Socket } from "node:dgram";
import type { Address } from "../../src/core/address.ts";

const bufferBytes = 4 * 1024 * 1024;

export class UdpPath {
  /** Each way. */
  delayMs = 0;
  /** What passes towards the node, in the order in which it came; undefined: at once. */
  bytesPerMs: number | undefined;
  /** True: nothing passes, in either direction. */
  isCut = false;
  /** What agents sent while this was set. */
  recording: Uint8Array[] | undefined;
  /** Bytes that passed towards agents. */
  bytesToAgents = 0;
  readonly #node: Address;
  readonly #inner: Socket;
  readonly #outers = new Map<number, Socket>();
  #freeAtMs = 0;

  private constructor(node: Address, inner: Socket) {
    this.#node = node;
    this.#inner = inner;
    inner.on("message", (data, from) => {
      this.recording?.push(Uint8Array.from(data));
      this.#pass(() => this.#outer(from.port).send(data, node.port, node.host), this.#queueMs(data.length));
    });
  }

  static async to(node: Address): Promise<UdpPath> {
    return new UdpPath(node, await bound());
  }

  get address(): Address {
    return { host: "127.0.0.1", port: this.#inner.address().port };
  }

  /** Sends to the node as somebody else would who recorded it: from a port of its own. */
  async replay(datagrams: readonly Uint8Array[]): Promise<UdpReplay> {
    const socket = await bound();
    let answeredBytes = 0;
    socket.on("message", (data) => (answeredBytes += data.length));
    for (const datagram of datagrams) socket.send(datagram, this.#node.port, this.#node.host);
    return {
      get answeredBytes() {
        return answeredBytes;
      },
      [Symbol.dispose]: () => void socket.close(),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.isCut = true;
    for (const outer of this.#outers.values()) outer.close();
    return new Promise((resolve) => this.#inner.close(() => resolve()));
  }

  #outer(agentPort: number): Socket {
    const known = this.#outers.get(agentPort);
    if (known !== undefined) return known;
    const outer = createSocket({ type: "udp4", recvBufferSize: bufferBytes, sendBufferSize: bufferBytes });
    outer.on("message", (data) =>
      this.#pass(() => {
        this.bytesToAgents += data.length;
        this.#inner.send(data, agentPort, "127.0.0.1");
      }),
    );
    this.#outers.set(agentPort, outer);
    return outer;
  }

  /** How long it takes until so many bytes have passed, behind those that came before. */
  #queueMs(byteCount: number): number {
    if (this.bytesPerMs === undefined) return 0;
    const nowMs = performance.now();
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + byteCount / this.bytesPerMs;
    return this.#freeAtMs - nowMs;
  }

  #pass(send: () => void, queueMs = 0): void {
    if (this.isCut) return;
    setTimeout(() => {
      if (!this.isCut) send();
    }, this.delayMs + queueMs);
  }
}

/** The packet that opens a connection, and early data behind it of so many bytes; undefined while there is less. */
export function firstFlight(recorded: readonly Uint8Array[], earlyBytes = 600): Uint8Array[] | undefined {
  const isLong = (datagram: Uint8Array): boolean => (datagram[0]! & 0x80) !== 0;
  const first = recorded.findIndex((datagram) => isLong(datagram) && datagram.length >= 1_200);
  if (first < 0) return undefined;
  let bytes = 0;
  for (let end = first + 1; end < recorded.length && isLong(recorded[end]!); end++) {
    bytes += recorded[end]!.length;
    if (bytes >= earlyBytes) return recorded.slice(first, end + 1);
  }
  return undefined;
}

export interface UdpReplay extends Disposable {
  readonly answeredBytes: number;
}

function bound(): Promise<Socket> {
  const socket = createSocket({ type: "udp4", recvBufferSize: bufferBytes, sendBufferSize: bufferBytes });
  return new Promise((resolve) => socket.bind(0, "127.0.0.1", () => resolve(socket)));
}
