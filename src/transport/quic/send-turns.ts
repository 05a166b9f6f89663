/**
 * Shares one QUIC connection between its lanes. The library under node:quic serves the stream that was opened first for
 * as long as that has anything to send: one busy lane would starve all later ones for ever, their PINGs included. So a
 * lane hands its bytes on only while no other lane's have waited for too long; then those are the only ones left to send.
 */

import type { Clock } from "../../core/clock.ts";

/** A lane as this file sees it. */
export interface TurnTaker {
  /** Bytes that node:quic took from the lane and has not sent yet. */
  readonly unsentBytes: number;
  /** The lane may write now. */
  onTurn(): void;
}

/** So many bytes of others may overtake what a lane has handed on. */
const overtakeBytes = 128 * 1024;
/** Writes up to this wait for nobody: control frames and small requests. */
const smallBytes = 4 * 1024;
/** node:quic does not tell when a small write has been sent, so waiting lanes look. */
const lookEveryMs = 1;

export class SendTurns {
  readonly #clock: Clock;
  #handedBytes = 0;
  /** Lanes with unsent bytes, those that have waited longest first, with what had been handed on before them. */
  readonly #unsent = new Map<TurnTaker, number>();
  /** Lanes that may not write now, in the order in which they asked. */
  readonly #waiting = new Set<TurnTaker>();
  /** The lane whose turn it is. */
  #next: TurnTaker | undefined;
  #isLooking = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether the lane may hand on `byteCount` bytes now; `onTurn` is called later when it may not. */
  mayWrite(lane: TurnTaker, byteCount: number): boolean {
    if (byteCount <= smallBytes && !this.#waiting.has(lane)) return true;
    if ((this.#waiting.size === 0 || this.#next === lane) && this.#isFree()) return true;
    this.#waiting.add(lane);
    this.#lookLater();
    return false;
  }

  /** node:quic took so many bytes of the lane. */
  wrote(lane: TurnTaker, byteCount: number): void {
    if (!this.#unsent.has(lane)) this.#unsent.set(lane, this.#handedBytes);
    this.#handedBytes += byteCount;
  }

  /** The lane has less unsent than before: what is left of it was handed on lately. */
  progressed(lane: TurnTaker): void {
    this.#unsent.delete(lane);
    if (lane.unsentBytes > 0) this.#unsent.set(lane, this.#handedBytes);
    this.#serve();
  }

  /** The lane is over. */
  leave(lane: TurnTaker): void {
    this.#unsent.delete(lane);
    this.#waiting.delete(lane);
    this.#serve();
  }

  #isFree(): boolean {
    for (const [lane, handedBefore] of this.#unsent) {
      if (lane.unsentBytes > 0) return this.#handedBytes - handedBefore < overtakeBytes;
      this.#unsent.delete(lane);
    }
    return true;
  }

  #serve(): void {
    while (this.#waiting.size > 0 && this.#isFree()) {
      const next = this.#waiting.values().next().value!; // not empty
      this.#waiting.delete(next);
      this.#next = next;
      next.onTurn();
      this.#next = undefined;
    }
  }

  #lookLater(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.#clock.after(lookEveryMs, () => {
      this.#isLooking = false;
      this.#serve();
      if (this.#waiting.size > 0) this.#lookLater();
    });
  }
}
