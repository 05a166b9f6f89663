/**
 * Joins one stream from the node with one connection to the origin. Bytes are credited back when the other side's
 * queue has room for them, half-closes are kept both ways, and the end of the stream tells the edge how much of what
 * it sent reached the origin, so that it knows whether a request may be replayed.
 */

import { ByteQueue } from "../core/byte-queue.ts";
import type { Clock, Timer } from "../core/clock.ts";
import type { Duplex, DuplexHandler } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { IncomingStream } from "../wire/link.ts";
import type { StreamTap } from "./tap.ts";
import type { TurnEnd } from "./turn-end.ts";

/** Totals of an agent, shared by its streams. */
export interface TrafficCounters {
  streams: number;
  openStreams: number;
  bytesToOrigin: number;
  bytesFromOrigin: number;
}

export interface OriginStreamOptions {
  readonly stream: IncomingStream;
  readonly counters: TrafficCounters;
  readonly tap: StreamTap | undefined;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly turnEnd: TurnEnd;
  /** Whether the agent serves this tunnel still; asked before each request on a kept connection. */
  readonly isServed: (tunnel: string) => boolean;
}

/** How often the last bytes of a broken origin are looked after, before the stream is reset. */
const lingerStepMs = 5;

export class OriginStream {
  readonly #stream: IncomingStream;
  readonly #options: OriginStreamOptions;
  readonly #counters: TrafficCounters;
  readonly #tap: StreamTap | undefined;
  readonly #abandoned = new AbortController();
  #isDone = false;
  /** What came before the origin answered. */
  readonly #early = new ByteQueue();
  #hasEarlyEnd = false;
  #openSides = 2;
  /** Bytes given to the origin's socket. */
  #writtenBytes = 0;
  /** Delivered to us by the stream, and not consumed because the origin's queue is full; and the other way. */
  #owedToStream = 0;
  #owedToOrigin = 0;
  #isUpgraded = false;
  #isSealed = false;
  /** The origin spoke last: what comes next is a request on a kept connection, which it may have closed already. */
  #isQuiet = false;
  /** The start of such a request, for the rest of this turn. */
  #held: Uint8Array[] | undefined;
  /** Something was written since the origin last spoke. */
  #isAsked = false;
  /** The origin has ended, and these bytes had not reached it; whether anybody took them is not known yet. */
  #unreceivedBytes = 0;
  #endWait: Timer | undefined;

  /** Takes over the stream at once: what arrives before the origin does is kept, bounded by the stream's window. */
  constructor(options: OriginStreamOptions) {
    this.#options = options;
    this.#stream = options.stream;
    this.#counters = options.counters;
    this.#tap = options.tap;
    options.counters.streams++;
    options.counters.openStreams++;
    this.#stream.handler = {
      onData: (chunk) => this.#early.push(chunk),
      onEnd: () => void (this.#hasEarlyEnd = true),
      onDrain() {},
      onClose: () => {
        this.#dropEarly();
        this.#finish();
        this.#abandoned.abort(new SallyError("CANCELLED"));
      },
    };
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** Aborted when the visitor gives up before the origin has answered. */
  get signal(): AbortSignal {
    return this.#abandoned.signal;
  }

  get tunnel(): string {
    return this.#stream.preamble.tunnel;
  }

  /** There is no origin for this stream. */
  refuse(error: SallyError): void {
    if (this.#isDone) return;
    this.#dropEarly();
    this.#finish();
    this.#stream.refuse(error);
  }

  /** The origin answered: from here on bytes flow. */
  join(origin: Duplex): void {
    if (this.#isDone) return origin.reset(new SallyError("CANCELLED"));
    this.#stream.handler = this.#fromStream(origin);
    origin.handler = this.#fromOrigin(origin);
    this.#stream.accept();
    while (this.#early.length > 0) this.#stream.handler.onData(this.#early.shift());
    if (this.#hasEarlyEnd) origin.end();
  }

  #dropEarly(): void {
    const { length } = this.#early;
    this.#early.clear();
    if (length > 0) this.#stream.consume(length);
  }

  #fromStream(origin: Duplex): DuplexHandler {
    const stream = this.#stream;
    return {
      // hot: bench/relay, every byte towards the origin passes here once
      onData: (chunk) => {
        const { length } = chunk;
        if (this.#isSealed) return stream.consume(length);
        if (this.#isQuiet) return this.#hold(chunk, origin);
        if (this.#held !== undefined) return void this.#held.push(chunk);
        this.#writtenBytes += length;
        this.#isAsked = true;
        this.#counters.bytesToOrigin += length;
        if (this.#tap !== undefined) this.#tap.toOrigin(chunk);
        if (origin.write(chunk)) stream.consume(length);
        else this.#owedToStream += length;
      },
      onEnd: () => {
        this.letGo();
        origin.end();
      },
      onDrain: () => {
        const bytes = this.#owedToOrigin;
        this.#owedToOrigin = 0;
        if (bytes > 0) origin.consume(bytes);
      },
      onClose: (error) => {
        if (error === undefined) return this.#closeSide();
        // The visitor went away, or the link did: the origin must not take the cut for an end.
        this.#finish();
        origin.reset(error);
        this.#takeOwed();
      },
    };
  }

  #fromOrigin(origin: Duplex): DuplexHandler {
    const stream = this.#stream;
    return {
      // hot: bench/relay, every byte from the origin passes here once
      onData: (chunk) => {
        const { length } = chunk;
        this.#counters.bytesFromOrigin += length;
        this.#isAsked = false;
        if (chunk[9] === 0x31 && isSwitching(chunk)) this.#isUpgraded = true;
        this.#isQuiet = !this.#isUpgraded && stream.preamble.protocol === "http";
        if (this.#tap !== undefined) this.#tap.fromOrigin(chunk);
        if (stream.write(chunk)) origin.consume(length);
        else this.#owedToOrigin += length;
      },
      onEnd: () => this.#endFromOrigin(origin),
      onDrain: () => this.#takeOwed(),
      onClose: (error) => {
        this.#takeOwed(); // the queue that held it is gone
        if (this.#endWait !== undefined) this.#reportEnd(error === undefined ? 0 : this.#unreceivedBytes);
        else if (error !== undefined) return this.#failFromOrigin(origin, error);
        this.#closeSide();
      },
    };
  }

  /**
   * The origin may have closed an idle connection in the same turn that brings the next request: then its end is seen
   * first, and the edge learns that nothing was delivered and sends the request elsewhere, whatever the method.
   */
  #hold(chunk: Uint8Array, origin: Duplex): void {
    if (!this.#options.isServed(this.tunnel) && beginsRequest(chunk)) return this.#turnAway(chunk, origin);
    this.#isQuiet = false;
    this.#held = [chunk];
    this.#options.turnEnd.wait(this);
  }

  /** Another agent has the name now: nothing of this request is delivered, and the edge takes it there. */
  #turnAway(chunk: Uint8Array, origin: Duplex): void {
    this.#isSealed = true;
    this.#stream.consume(chunk.length);
    origin.end();
    this.#reportEnd(0);
  }

  /** Writes what was held; if the origin has ended meanwhile, drops it. */
  letGo(): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    for (const chunk of held) {
      if (this.#isDone) this.#stream.consume(chunk.length);
      else this.#stream.handler.onData(chunk);
    }
  }

  /**
   * An HTTP origin that ended its direction takes no further request on this connection, and what the FIN says was
   * delivered must stay true: the edge replays whatever came later. Raw and upgraded connections keep the half-close.
   */
  #endFromOrigin(origin: Duplex): void {
    if (this.#stream.preamble.protocol !== "http" || this.#isUpgraded) return this.#reportEnd(0);
    this.#isSealed = true;
    const unreceivedBytes = this.#isAsked ? unreceivedBy(origin) : 0;
    const isRefused = (origin.refusedBytes ?? 0) > 0;
    this.letGo();
    this.#takeOwed();
    origin.end();
    if (unreceivedBytes === 0 || isRefused) return this.#reportEnd(unreceivedBytes);
    this.#unreceivedBytes = unreceivedBytes;
    this.#endWait = this.#options.clock.after(this.#options.limits.originEndSettleMs, () => this.#reportEnd(0));
  }

  /**
   * Ends the stream. Bytes that had not reached the origin's system when its end left, and that it refused when they
   * did, were seen by nobody: these are the `unseenBytes`. Only the two together prove it: an origin may end its side and
   * read on, and a reset also follows an end when a program leaves a part of what it began to read.
   */
  #reportEnd(unseenBytes: number): void {
    this.#endWait?.cancel();
    this.#endWait = undefined;
    this.#stream.reportDelivered(this.#writtenBytes - unseenBytes);
    this.#stream.end();
  }

  /** What the origin sent before it broke still goes out; then the stream is reset. */
  #failFromOrigin(origin: Duplex, error: SallyError): void {
    const stream = this.#stream;
    stream.reportDelivered(Math.max(0, this.#writtenBytes - unreceivedBy(origin)));
    this.#isSealed = true;
    this.letGo();
    const reset = new SallyError("ORIGIN_RESET", undefined, { cause: error });
    const deadlineMs = this.#options.clock.nowMs() + this.#options.limits.socketLingerMs;
    const step = (): void => {
      if (this.#isDone) return;
      if (stream.queuedBytes > 0 && this.#options.clock.nowMs() < deadlineMs) {
        this.#options.clock.after(lingerStepMs, step);
        return;
      }
      this.#finish();
      stream.reset(reset);
    };
    step();
  }

  /** What waited in the origin's queue has left it. */
  #takeOwed(): void {
    const bytes = this.#owedToStream;
    this.#owedToStream = 0;
    if (bytes > 0) this.#stream.consume(bytes);
  }

  #closeSide(): void {
    this.#openSides--;
    if (this.#openSides === 0) this.#finish();
  }

  #finish(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#endWait?.cancel();
    this.#counters.openStreams--;
  }
}

function unreceivedBy(origin: Duplex): number {
  return origin.unreceivedBytes ?? origin.queuedBytes;
}

/** A method that is in use, and the start of a target. */
const requestStart = /^[!#$%&'*+.^_`|~\w-]{1,32} (?:\/|\*|https?:\/\/)/i;

/** What else an origin that spoke last may be sent is the rest of a body. */
function beginsRequest(chunk: Uint8Array): boolean {
  return requestStart.test(String.fromCharCode(...chunk.subarray(0, 48)));
}

/** `HTTP/1.1 101`, at the start of a chunk. */
function isSwitching(chunk: Uint8Array): boolean {
  return (
    chunk[0] === 0x48 && chunk[1] === 0x54 && chunk[5] === 0x31 && chunk[10] === 0x30 && chunk[11] === 0x31 // H T 1 0 1
  );
}
