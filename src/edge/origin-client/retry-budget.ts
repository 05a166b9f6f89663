/**
 * Keeps retries a small share of traffic, so that an origin in trouble is not hit twice as hard: ten are free, then
 * each request earns a share of one.
 */

import type { Limits } from "../../core/limits.ts";

export class RetryBudget {
  readonly #limits: Pick<Limits, "retryShare" | "freeRetries">;
  #tokens: number;

  constructor(limits: Pick<Limits, "retryShare" | "freeRetries">) {
    this.#limits = limits;
    this.#tokens = limits.freeRetries;
  }

  /** A request began. */
  earn(): void {
    const { freeRetries, retryShare } = this.#limits;
    if (this.#tokens < freeRetries) this.#tokens += retryShare;
  }

  /** Takes one retry, if there is one. */
  spend(): boolean {
    // A little slack: ten times a tenth is not quite one in binary.
    if (this.#tokens < 1 - 1e-6) return false;
    this.#tokens -= 1;
    return true;
  }
}
