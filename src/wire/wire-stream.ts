/**
 * One stream of a lane: its send queue and credit, its receive window, and the order of its events. The fields that
 * are not private belong to the lane; everybody else sees `IncomingStream` or `LinkStream`.
 */

import { ByteQueue } from "../core/byte-queue.ts";
import type { DuplexHandler, DialledStream } from "../core/duplex.ts";
import { idleHandler } from "../core/duplex.ts";
import { assert, type SallyError } from "../core/errors.ts";
import type { Lane } from "./lane.ts";
import type { Preamble } from "./preamble.ts";
import type { HeldBytes } from "./window-budget.ts";

/** A stream of a link, as its opener holds it. */
export interface LinkStream extends DialledStream {
  readonly preamble: Preamble;
  /** Bytes on the way in both directions of this stream's lane: a pool prefers the idle stream where it is lowest. */
  readonly laneLoadBytes: number;
}

/** A stream that the peer opened. Exactly one of `accept` and `refuse` answers it; writing accepts it too. */
export interface IncomingStream extends LinkStream {
  /** Says OPENED: the origin's connection is up. */
  accept(): void;
  /** Says REFUSED with the error's code and message; nothing reaches the handler afterwards. */
  refuse(error: SallyError): void;
  /** Bytes of the peer's that the origin's socket has taken so far, in total: our FIN or RESET tells the peer. */
  reportDelivered(totalBytes: number): void;
}

/** Below this round trip the scheduling of both processes outweighs the network. */
const growthRttFloorMs = 10;
/** A grown window that took this long to be used once is given back. */
const shrinkAfterMs = 10_000;

export class WireStream implements IncomingStream {
  handler: DuplexHandler = idleHandler;
  readonly preamble: Preamble;
  /** 0 until the OPEN frame is written. */
  id = 0;
  readonly isIncoming: boolean;
  isOpened = false;
  deliveredBytes: number | undefined;
  /** What our FIN or RESET will report. */
  reportedBytes = 0;

  // Sending.
  sendCredit: number;
  isReady = false;
  nextReady: WireStream | undefined;
  isEnding = false;
  finSent = false;
  /** What waits for credit or for the lane; streams that never wait have none. */
  #queue: ByteQueue | undefined;
  #wantsDrain = false;

  // Receiving.
  /** How much the peer may have on the way or unconsumed here. */
  windowBytes: number;
  /** How much the peer may still send. */
  receiveCredit: number;
  unconsumedBytes = 0;
  /** What the owner still held when the stream was over: counted until it is consumed. */
  held: HeldBytes | undefined;
  finReceived = false;
  /** The stream is over on the wire. */
  isDone = false;
  /** The handler hears nothing more. */
  isClosed = false;
  /** Leaves the line; set while OPEN waits. */
  cancelWait: (() => void) | undefined;
  #consumedBytes = 0;
  #epochBytes = 0;
  #epochStartMs: number;
  readonly #lane: Lane;

  constructor(lane: Lane, preamble: Preamble, isIncoming: boolean) {
    const initial = lane.host.limits.streamWindowInitialBytes;
    this.#lane = lane;
    this.preamble = preamble;
    this.isIncoming = isIncoming;
    this.sendCredit = initial;
    this.windowBytes = initial;
    this.receiveCredit = initial;
    this.#epochStartMs = lane.host.clock.nowMs();
  }

  get isWaiting(): boolean {
    return this.id === 0 && !this.isDone;
  }

  get laneLoadBytes(): number {
    return this.#lane.loadBytes;
  }

  get queuedBytes(): number {
    return this.#queue === undefined ? 0 : this.#queue.length;
  }

  write(chunk: Uint8Array): boolean {
    if (this.isDone || this.isEnding || chunk.length === 0) return true;
    if (this.isIncoming && !this.isOpened) this.accept();
    const { sender } = this.#lane;
    if (this.queuedBytes === 0 && sender.trySend(this, chunk)) return true;
    const queue = (this.#queue ??= new ByteQueue());
    queue.push(chunk);
    sender.queuedBytes += chunk.length;
    sender.markReady(this);
    if (queue.length <= this.#lane.host.limits.socketQueueHighBytes) return true;
    this.#wantsDrain = true;
    return false;
  }

  end(): void {
    if (this.isDone || this.isEnding) return;
    if (this.isIncoming && !this.isOpened) this.accept();
    this.isEnding = true;
    if (this.queuedBytes === 0 && this.id !== 0) this.sendFin();
  }

  reset(error: SallyError): void {
    this.isClosed = true;
    if (this.isDone) return;
    this.#lane.resetStream(this, error);
  }

  consume(byteCount: number): void {
    if (this.isDone) return this.held?.release(byteCount);
    this.unconsumedBytes -= byteCount;
    assert(this.unconsumedBytes >= 0, "a stream's owner consumed more than was delivered");
    this.#consumedBytes += byteCount;
    if (this.#consumedBytes * 2 >= this.windowBytes && !this.finReceived) this.#returnCredit();
  }

  accept(): void {
    if (this.isDone || this.isOpened) return;
    this.isOpened = true;
    this.#lane.sender.opened(this.id);
  }

  refuse(error: SallyError): void {
    this.isClosed = true;
    if (this.isDone) return;
    if (this.isOpened) this.#lane.resetStream(this, error);
    else this.#lane.refuseStream(this, error);
  }

  reportDelivered(totalBytes: number): void {
    this.reportedBytes = totalBytes;
  }

  /** Takes up to `max` bytes of what is queued, as one piece; the lane asks only while bytes are queued. */
  takeQueued(max: number): Uint8Array {
    return this.#queue!.shift(max); // bytes are queued
  }

  /** After the lane sent some of the queue: ends or asks for more. */
  onSent(): void {
    if (this.queuedBytes === 0 && this.isEnding && !this.finSent) this.sendFin();
    if (!this.#wantsDrain || this.queuedBytes > this.#lane.host.limits.socketQueueLowBytes) return;
    this.#wantsDrain = false;
    if (!this.isClosed) this.#lane.guard(this, () => this.handler.onDrain());
  }

  sendFin(): void {
    this.finSent = true;
    this.#lane.sender.fin(this.id, this.reportedBytes);
    if (this.finReceived) this.#lane.finishStream(this);
  }

  /** Forgets what waits to be sent; the lane calls it when the stream is over. */
  dropQueue(): void {
    const droppedBytes = this.queuedBytes;
    this.#queue = undefined;
    if (droppedBytes > 0) this.#lane.sender.dropped(droppedBytes);
  }

  #returnCredit(): void {
    const { host, sender } = this.#lane;
    const nowMs = host.clock.nowMs();
    let increment = this.#consumedBytes;
    this.#consumedBytes = 0;
    this.#epochBytes += increment;
    if (this.#epochBytes >= this.windowBytes) {
      increment += this.#resize(nowMs - this.#epochStartMs, increment);
      this.#epochBytes = 0;
      this.#epochStartMs = nowMs;
    }
    if (increment === 0) return;
    this.receiveCredit += increment;
    sender.credit(this.id, increment, this.queuedBytes);
  }

  /**
   * One full window took `elapsedMs`: within three round trips the window was the limit, so it becomes four times as large.
   * Two are not enough: credit comes back for half a window at a time, so half of it may be all that is on the way.
   */
  #resize(elapsedMs: number, consumed: number): number {
    const { budget, limits, rttMs } = this.#lane.host;
    if (elapsedMs <= 3 * Math.max(rttMs ?? 0, growthRttFloorMs)) {
      const extra = Math.min(3 * this.windowBytes, limits.streamWindowMaxBytes - this.windowBytes);
      if (extra <= 0 || !budget.tryGrow(extra)) return 0;
      this.windowBytes += extra;
      return extra;
    }
    if (elapsedMs < shrinkAfterMs) return 0;
    const surplus = Math.min(consumed, this.windowBytes - limits.streamWindowInitialBytes);
    if (surplus <= 0) return 0;
    budget.release(surplus);
    this.windowBytes -= surplus;
    return -surplus;
  }
}
