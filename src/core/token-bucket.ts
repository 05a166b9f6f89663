/** An allowance that fills up over time: so much at once, and so much a second. It may be overdrawn. */

import type { Clock } from "./clock.ts";

export class TokenBucket {
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #perSecond: number;
  #tokens: number;
  #filledMs: number;

  constructor({
    clock,
    burst,
    perSecond,
  }: {
    readonly clock: Clock;
    readonly burst: number;
    readonly perSecond: number;
  }) {
    this.#clock = clock;
    this.#burst = burst;
    this.#perSecond = perSecond;
    this.#tokens = burst;
    this.#filledMs = clock.nowMs();
  }

  /** What is left; below zero when it is overdrawn. */
  get tokens(): number {
    const nowMs = this.#clock.nowMs();
    this.#tokens = Math.min(this.#burst, this.#tokens + ((nowMs - this.#filledMs) * this.#perSecond) / 1_000);
    this.#filledMs = nowMs;
    return this.#tokens;
  }

  /** Takes that much, there or not; returns what is left. */
  spend(cost: number): number {
    this.#tokens = this.tokens - cost;
    return this.#tokens;
  }

  /** Until that much is there, or the bucket is full. */
  waitMs(cost: number): number {
    return Math.max(0, ((Math.min(cost, this.#burst) - this.tokens) * 1_000) / this.#perSecond);
  }
}
