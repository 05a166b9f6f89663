/**
 * One QUIC stream as a byte pipe. It hides three habits of `node:quic`: writing needs a loop with a drain promise, a
 * lost connection can look like a clean end, and early data may have to be sent again. It keeps the rule that a clean
 * end is one that we began: the multiplexer above says with its own frames when it is done, so a stream that the peer
 * ends first is a lost link.
 */

import { closeCode, isEarlyRefusal, reasonOf } from "./close-codes.ts";
import type { QuicModule } from "./load-quic.ts";
import type { SendTurns, TurnTaker } from "./send-turns.ts";
import type { Clock, Timer } from "../../core/clock.ts";
import { idleHandler, type Duplex, type DuplexHandler } from "../../core/duplex.ts";
import { SallyError, toSallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { QuicStream, StreamWriter } from "node:quic";

const drainable = Symbol.for("Stream.drainableProtocol");

/**
 * The first byte of each stream: it makes the stream visible to the node before the link has anything to say. The
 * early one marks a stream of a resumed connection's first flight: when the node rejects early data, node:quic tells
 * the agent that the stream was reset, and yet sends its bytes again, so the node must know what to ignore.
 */
const lanePreface = 0x01;
const earlyLanePreface = 0x02;
/** Carries nothing: that the stream exists proves that the agent took part in this handshake. */
export const confirmPreface = 0x03;

/** What a lane needs of the session that it belongs to. */
export interface LaneHost {
  readonly turns: SendTurns;
  readonly quic: QuicModule;
  readonly clock: Clock;
  /** False: streams of the first flight are leftovers of early data that was rejected, and sent again elsewhere. */
  readonly takesEarlyLanes: boolean;
  /** Counts bytes that were delivered and not consumed yet. False: over the ceiling, the session is closing. */
  received(byteCount: number): boolean;
  consumed(byteCount: number): void;
  /** The peer's stream proved to be a lane: it is handed up before anything is delivered. */
  arrived(lane: QuicLane): void;
  /** The peer said something on a lane of the first flight, so it took the early data; comes before it is delivered. */
  answered(): void;
  /** The peer did not take the early data, and its lanes are lost. */
  earlyRefused(): void;
  /** The lane is over, and needs no more attention. */
  over(lane: QuicLane): void;
  /** True once the connection is gone. */
  readonly isGone: boolean;
  /** True after a clean `close()` of ours: then whatever the peer does with a lane that we ended is a clean end. */
  readonly isClosing: boolean;
  /** Why a lane ends with its connection: undefined only for a lane that we ended on a connection closed cleanly. */
  endReason(lane: QuicLane): SallyError | undefined;
}

/** Bytes sent as early data; kept until the node is known to have taken them. */
interface EarlyFlight {
  readonly maxBytes: number;
  readonly sent: Uint8Array[];
  sentBytes: number;
}

export interface LaneOptions {
  readonly stream: QuicStream;
  /** True: we opened it, so we send the preface. False: we expect it. */
  readonly isOurs: boolean;
  /** So many bytes may go out as early data; undefined when none may. */
  readonly earlyMaxBytes?: number | undefined;
}

export class QuicLane implements Duplex, TurnTaker {
  handler: DuplexHandler = idleHandler;
  readonly #host: LaneHost;
  #stream: QuicStream;
  #writer: StreamWriter;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #early: EarlyFlight | undefined;
  #unreadBytes = 0;
  #expectsPreface: boolean;
  /** What came before the lane had a handler, or the peer was authenticated; the session's ceiling bounds it. */
  #held: Uint8Array[] | undefined = [];
  #isWaiting = false;
  #owesDrain = false;
  #isEnding = false;
  #isEnded = false;
  #sawEnd = false;
  #isStreamOver = false;
  #resetReason: unknown;
  #unexplained: Timer | undefined;
  #isClosed = false;

  constructor(host: LaneHost, { stream, isOurs, earlyMaxBytes }: LaneOptions) {
    this.#host = host;
    this.#stream = stream;
    this.#writer = stream.writer;
    this.#expectsPreface = !isOurs;
    if (earlyMaxBytes !== undefined) this.#early = { maxBytes: earlyMaxBytes, sent: [], sentBytes: 0 };
    if (isOurs) this.write(Uint8Array.of(earlyMaxBytes === undefined ? lanePreface : earlyLanePreface));
    this.#attach(stream);
  }

  /** Begins to deliver: once the lane was handed to whoever sets the handler, and the peer is authenticated. */
  start(): void {
    const held = this.#held;
    this.#held = undefined;
    for (const chunk of held ?? []) this.#give(chunk);
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** node:quic copies what it takes (measured), but early data may have to be sent again. */
  get copiesWrites(): boolean {
    return this.#early === undefined;
  }

  write(chunk: Uint8Array): boolean {
    if (this.#isClosed || this.#isEnding) return true; // ignored: there is nothing to wait for
    if (chunk.length === 0) return !this.#owesDrain;
    this.#queue.push(chunk);
    this.#queuedBytes += chunk.length;
    this.#flush();
    return !this.#owesDrain;
  }

  end(): void {
    if (this.#isClosed || this.#isEnding) return;
    this.#isEnding = true;
    this.#flush();
  }

  reset(error: SallyError): void {
    if (this.#isClosed) return;
    this.#shut(error);
  }

  consume(byteCount: number): void {
    if (this.#isClosed) return;
    this.#unreadBytes -= byteCount;
    this.#host.consumed(byteCount);
  }

  /** The session ended, or the peer broke a rule: without an error only what we had ended ourselves is clean. */
  fail(error: SallyError | undefined): void {
    if (this.#isClosed) return;
    this.#shut(error);
    queueMicrotask(() => this.handler.onClose(error));
  }

  get unsentBytes(): number {
    const room = this.#writer.desiredSize;
    return room === null ? 0 : this.#stream.highWaterMark - room;
  }

  /** The stream's id: streams are served in the order in which they were opened. */
  get order(): number {
    return Number(this.#stream.id ?? 0n);
  }

  onTurn(): void {
    this.#resume();
  }

  /** True after `end()`: then a lane may end cleanly. */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  /** The node took the early data: what waited for that may go. */
  earlyAccepted(): void {
    if (this.#early === undefined) return;
    this.#early = undefined;
    if (this.#isStreamOver) this.fail(this.#host.endReason(this));
    else this.#resume();
  }

  /** Some of what was sent may have to be sent again. */
  get isEarly(): boolean {
    return this.#early !== undefined;
  }

  /** The node saw nothing of the early data: everything is sent again on a stream that is not part of it. */
  earlyRejected(stream: QuicStream): void {
    const early = this.#early;
    if (early === undefined || this.#isClosed) return stream.destroy();
    this.#early = undefined;
    this.#isStreamOver = false;
    this.#resetReason = undefined;
    this.#unexplained?.cancel();
    this.#unexplained = undefined;
    this.#isWaiting = false;
    const again = [...early.sent, ...this.#queue];
    this.#queue = [Uint8Array.of(lanePreface), ...again.slice(1)]; // the first is the preface
    this.#queuedBytes += early.sentBytes;
    this.#stream = stream;
    this.#writer = stream.writer;
    this.#attach(stream);
    this.#resume();
  }

  /** hot: bench/quic.ts. One call into node:quic takes the whole queue, or its turn's share; it accepts that or nothing. */
  #flush(): void {
    if (this.#isClosed || this.#isWaiting) return;
    if (this.#early !== undefined) return this.#flushEarly(this.#early);
    const { turns } = this.#host;
    while (this.#queue.length > 0) {
      // What a session that closes has not handed on is lost.
      const byteCount = this.#isEnding ? this.#queuedBytes : turns.take(this, this.#queuedBytes);
      if (byteCount === 0) {
        this.#owesDrain = true;
        return;
      }
      const rest = byteCount < this.#queuedBytes ? splitQueue(this.#queue, byteCount) : [];
      const part = this.#queue;
      const isTaken = part.length === 1 ? this.#writer.writeSync(part[0]!) : this.#writer.writevSync(part); // length checked
      if (!isTaken) {
        this.#queue.push(...rest);
        return this.#waitForRoom();
      }
      turns.wrote(this, byteCount);
      this.#queue = rest;
      this.#queuedBytes -= byteCount;
    }
    if (this.#isEnding) this.#sendEnd();
    else if (this.#writer.desiredSize === 0) this.#waitForRoom();
  }

  #flushEarly(early: EarlyFlight): void {
    while (this.#queue.length > 0) {
      const chunk = this.#queue[0]!; // length checked
      if (early.sentBytes + chunk.length > early.maxBytes || !this.#writer.writeSync(chunk)) {
        this.#owesDrain = true;
        return;
      }
      this.#queue.shift();
      this.#queuedBytes -= chunk.length;
      early.sent.push(chunk);
      early.sentBytes += chunk.length;
    }
  }

  #waitForRoom(): void {
    const writer = this.#writer;
    this.#owesDrain = true;
    if (writer.desiredSize === null) return; // the stream is gone: whoever reads it reports that
    const room = writer[drainable]?.() ?? Promise.resolve();
    this.#isWaiting = true;
    const resume = (): void => {
      if (writer !== this.#writer) return;
      this.#isWaiting = false;
      this.#host.turns.progressed(this);
      this.#resume();
    };
    room.then(resume, resume);
  }

  #resume(): void {
    this.#flush();
    if (this.#writer.desiredSize === null) return;
    if (this.#owesDrain && !this.#isWaiting && !this.#isClosed && this.#queue.length === 0) {
      this.#owesDrain = false;
      if (!this.#isEnding) this.handler.onDrain();
    }
  }

  #sendEnd(): void {
    if (this.#isEnded) return;
    if (this.#writer.endSync() < 0) return this.#waitForRoom();
    this.#isEnded = true;
  }

  #attach(stream: QuicStream): void {
    const onOver = (error: unknown): void => {
      if (stream === this.#stream) this.#streamOver(error);
    };
    // oxlint-disable-next-line unicorn/prefer-add-event-listener -- not an EventTarget
    stream.onreset = (error) => {
      this.#resetReason ??= error;
      onOver(error);
    };
    // `closed` and the reader may end as if all were well, or with a number in a sentence. The peer's reason follows,
    // as `onreset` or as the end of the session, in this turn of the event loop or with the next packet.
    const onUnexplained = (error: unknown): void => {
      if (stream !== this.#stream || this.#isClosed || this.#unexplained !== undefined) return;
      this.#unexplained = this.#host.clock.after(limits.quicReasonWaitMs, () => onOver(error));
    };
    stream.closed.then(() => (this.#isEnded ? onOver(undefined) : onUnexplained(undefined)), onOver);
    this.#read(stream).then(() => {
      if (!this.#isEnding) onUnexplained(undefined);
    }, onUnexplained);
  }

  async #read(stream: QuicStream): Promise<void> {
    for await (const batch of stream) {
      for (const chunk of batch) {
        if (this.#isClosed || stream !== this.#stream) return;
        this.#deliver(chunk);
      }
    }
  }

  #deliver(data: Uint8Array): void {
    let chunk = data;
    if (this.#expectsPreface) {
      this.#expectsPreface = false;
      if (!this.#accepts(chunk[0])) return;
      chunk = chunk.subarray(1);
    }
    if (this.#early !== undefined) this.#host.answered();
    if (chunk.length === 0 || this.#isClosed) return;
    this.#unreadBytes += chunk.length;
    if (!this.#host.received(chunk.length)) return;
    if (this.#held === undefined) this.#give(chunk);
    else this.#held.push(chunk);
  }

  #give(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    try {
      this.handler.onData(chunk);
    } catch (error) {
      this.fail(toSallyError(error)); // a bug above ends this lane, and is not taken for a lost connection
    }
  }

  /** Judges the preface, and has the lane handed up. */
  #accepts(preface: number | undefined): boolean {
    if (preface === lanePreface || (preface === earlyLanePreface && this.#host.takesEarlyLanes)) {
      this.#host.arrived(this);
      return true;
    }
    const isKnown = preface === earlyLanePreface || preface === confirmPreface;
    this.#shut(isKnown ? undefined : new SallyError("PROTOCOL_VIOLATION"));
    return false;
  }

  /** The stream ended, was reset or was lost. While early data is out, the session decides what that means. */
  #streamOver(error: unknown): void {
    if (this.#isClosed) return;
    this.#isStreamOver = true;
    if (this.#early !== undefined) {
      if (isEarlyRefusal(error)) this.#host.earlyRefused();
      return;
    }
    if (this.#host.isGone) return this.fail(this.#host.endReason(this));
    const cause = this.#resetReason ?? error;
    const reason = cause === undefined ? undefined : reasonOf(cause);
    if (reason !== undefined && !(this.#isEnded && this.#host.isClosing)) return this.fail(reason);
    this.#reportEnd();
    // Ended by us too, and everything of ours was acknowledged.
    if (this.#isEnded) return this.fail(undefined);
    // Whoever owns the lane may answer an end with its own, at once. Otherwise the lane was in use.
    if (!this.#isEnding) this.fail(new SallyError("LINK_LOST", "The peer ended a lane that was in use."));
  }

  #reportEnd(): void {
    if (this.#sawEnd) return;
    this.#sawEnd = true;
    this.handler.onEnd();
  }

  #shut(reason: SallyError | undefined): void {
    this.#isClosed = true;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#early = undefined;
    this.#unexplained?.cancel();
    if (this.#unreadBytes > 0) this.#host.consumed(this.#unreadBytes);
    this.#unreadBytes = 0;
    this.#stream.closed.catch(() => {}); // the reason was reported already
    if (!this.#stream.destroyed) {
      const { QuicError } = this.#host.quic;
      this.#stream.destroy(reason && new QuicError(reason.code, { errorCode: closeCode(reason) }));
    }
    this.#host.turns.leave(this);
    this.#host.over(this);
  }
}

/** Leaves the first `byteCount` bytes in the queue, which has more. Returns the others. */
function splitQueue(queue: Uint8Array[], byteCount: number): Uint8Array[] {
  let at = 0;
  let left = byteCount;
  while (left > queue[at]!.length) left -= queue[at++]!.length; // it has more than that
  const last = queue[at]!;
  const rest = queue.splice(at + 1);
  queue[at] = last.subarray(0, left);
  if (left < last.length) rest.unshift(last.subarray(left));
  return rest;
}
