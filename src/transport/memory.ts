/**
 * A session pair without sockets, for tests: lanes are memory pipes. `latencyMs` delays every delivery on the clock
 * that is given, in order.
 */

import type { Clock } from "../core/clock.ts";
import { idleHandler, type Duplex, type DuplexHandler } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";
import { memoryDuplexPair, type MemoryDuplex, type MemoryDuplexOptions } from "../core/memory-duplex.ts";
import type { Session } from "../ports/session.ts";

export interface MemoryPairOptions {
  readonly clock?: Clock;
  /** One way. Needs `clock`. Default 0: a microtask. */
  readonly latencyMs?: number;
  readonly host?: string;
  /** What each side sees of the other; default none, as behind a proxy. */
  readonly agentCertificate?: Uint8Array;
  readonly nodeCertificate?: Uint8Array;
  /** Both sides' TLS exporter. */
  readonly exporter?: Uint8Array;
  readonly isProxied?: boolean;
}

/** The agent's side and the node's. Only the first opens lanes. */
export function memoryPair(options: MemoryPairOptions = {}): [MemorySession, MemorySession] {
  const { agentCertificate, nodeCertificate } = options;
  const agent = new MemorySession(options, nodeCertificate, true);
  const node = new MemorySession(options, agentCertificate, false);
  agent.join(node);
  node.join(agent);
  return [agent, node];
}

export class MemorySession implements Session {
  readonly transport = "memory";
  readonly remote = { host: "127.0.0.1", port: 1 };
  readonly host: string;
  readonly peerCertificate: Uint8Array | undefined;
  readonly exporter: Uint8Array | undefined;
  readonly isProxied: boolean;
  readonly closed: Promise<SallyError | undefined>;
  readonly #schedule: (task: () => void) => void;
  readonly #opensLanes: boolean;
  readonly #lanes = new Set<MemoryLane>();
  #peer: MemorySession | undefined;
  #unclaimed: MemoryLane[] = [];
  #onLane: ((lane: Duplex) => void) | undefined;
  #isClosed = false;
  #reason: SallyError | undefined;
  #resolveClosed!: (reason: SallyError | undefined) => void;

  /** Use `memoryPair`. */
  constructor(options: MemoryPairOptions, peerCertificate: Uint8Array | undefined, opensLanes: boolean) {
    const { clock, latencyMs = 0 } = options;
    this.host = options.host ?? "node.test";
    this.exporter = options.exporter;
    this.isProxied = options.isProxied ?? false;
    this.peerCertificate = peerCertificate;
    this.#opensLanes = opensLanes;
    this.#schedule =
      clock === undefined || latencyMs === 0 ? queueMicrotask : (task) => void clock.after(latencyMs, task);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** Use `memoryPair`. */
  join(peer: MemorySession): void {
    this.#peer = peer;
  }

  get onLane(): (lane: Duplex) => void {
    return this.#onLane ?? (() => {});
  }

  set onLane(receive: (lane: Duplex) => void) {
    this.#onLane = receive;
    for (const lane of this.#unclaimed.splice(0)) receive(lane);
  }

  async openLane(signal: AbortSignal): Promise<Duplex> {
    signal.throwIfAborted();
    const peer = this.#peer;
    if (this.#isClosed || peer === undefined) throw this.#reason ?? new SallyError("LINK_LOST");
    if (!this.#opensLanes) throw new SallyError("LINK_LOST", "the accepting side opens no lanes");
    const options: MemoryDuplexOptions = { schedule: this.#schedule };
    const [near, far] = memoryDuplexPair(options);
    const [ours, theirs] = [this.#addLane(near), peer.#addLane(far)];
    ours.peer = theirs;
    theirs.peer = ours;
    this.#schedule(() => peer.#handUp(theirs));
    return ours;
  }

  close(error?: SallyError): void {
    if (this.#isClosed) return;
    this.#over(error);
    for (const lane of this.#lanes) lane.finish(error);
    const peer = this.#peer;
    if (peer !== undefined) this.#schedule(() => peer.#peerClosed(error));
  }

  #addLane(pipe: MemoryDuplex): MemoryLane {
    const lane: MemoryLane = new MemoryLane(pipe, () => this.#lanes.delete(lane));
    this.#lanes.add(lane);
    return lane;
  }

  #handUp(lane: MemoryLane): void {
    if (this.#isClosed) return;
    if (this.#onLane === undefined) this.#unclaimed.push(lane);
    else this.#onLane(lane);
  }

  /** What was queued before a clean close has to arrive first: each lane ends by itself. */
  #peerClosed(error: SallyError | undefined): void {
    if (this.#isClosed) return;
    this.#over(error);
    if (error === undefined) return;
    for (const lane of this.#lanes) lane.lose(error);
  }

  #over(error: SallyError | undefined): void {
    this.#isClosed = true;
    this.#reason = error;
    this.#resolveClosed(error);
  }
}

/** A memory pipe whose reset carries its code, and which a session can end. */
class MemoryLane implements Duplex {
  peer: MemoryLane | undefined;
  readonly #pipe: MemoryDuplex;
  readonly #onOver: () => void;
  #handler: DuplexHandler = idleHandler;
  #isOver = false;
  #hasEnded = false;
  #isFinishing = false;

  constructor(pipe: MemoryDuplex, onOver: () => void) {
    this.#pipe = pipe;
    pipe.isHeld = true; // Until the peer's owner listens.
    this.#onOver = onOver;
    pipe.handler = {
      onData: (chunk) => (this.#isFinishing ? pipe.consume(chunk.length) : this.#handler.onData(chunk)),
      onEnd: () => this.#peerEnded(),
      onDrain: () => this.#handler.onDrain(),
      onClose: (error) => this.#close(error),
    };
  }

  get handler(): DuplexHandler {
    return this.#handler;
  }

  set handler(handler: DuplexHandler) {
    this.#handler = handler;
    if (this.peer !== undefined) this.peer.#pipe.isHeld = false;
  }

  get queuedBytes(): number {
    return this.#pipe.queuedBytes;
  }

  write(chunk: Uint8Array): boolean {
    return this.#pipe.write(chunk);
  }

  end(): void {
    this.#hasEnded = true;
    this.#pipe.end();
  }

  reset(error: SallyError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#handler = idleHandler;
    this.peer?.lose(error);
    this.#pipe.reset(error);
    this.#onOver();
  }

  consume(byteCount: number): void {
    if (!this.#isFinishing) this.#pipe.consume(byteCount);
  }

  /** Our session closes: with an error everybody hears it, without one what is queued still goes out. */
  finish(error: SallyError | undefined): void {
    if (this.#isOver) return;
    if (error !== undefined) {
      this.peer?.lose(error);
      this.#pipe.reset(error);
    } else {
      const unread = this.#pipe.unconsumedBytes;
      this.#isFinishing = true;
      if (unread > 0) this.#pipe.consume(unread);
      this.#pipe.end();
    }
    queueMicrotask(() => this.#close(error));
  }

  /** The other side dropped the lane. */
  lose(error: SallyError): void {
    this.#pipe.fail(error);
  }

  #peerEnded(): void {
    if (this.#isOver) return;
    this.#handler.onEnd();
    // As over WebSocket, a session that closed cleanly is gone in both directions.
    const { peer } = this;
    if (peer !== undefined && peer.#isFinishing && !this.#isOver) {
      const error = this.#hasEnded ? undefined : new SallyError("LINK_LOST", "the peer closed the session");
      this.#pipe.end();
      queueMicrotask(() => this.#close(error));
    }
  }

  #close(error: SallyError | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const handler = this.#handler;
    this.#handler = idleHandler;
    this.#onOver();
    handler.onClose(error);
  }
}
