/**
 * Keeps retries a small share of each tunnel's traffic, so that an origin in trouble is not hit twice as hard: ten are
 * free, then each request earns a share of one. A tunnel has a budget of its own, so no tenant spends another's.
 */

import type { Limits } from "../../core/limits.ts";

export type RetryLimits = Pick<Limits, "retryShare" | "freeRetries" | "retryBudgetsMax">;

export class RetryBudgets {
  readonly #limits: RetryLimits;
  /** What is left of the budgets that are not full, the one spent from last at the end. */
  readonly #left = new Map<string, number>();

  constructor(limits: RetryLimits) {
    this.#limits = limits;
  }

  /** Budgets that are kept. */
  get size(): number {
    return this.#left.size;
  }

  /** A request of the tunnel began. */
  earn(tunnel: string): void {
    if (this.#left.size === 0) return;
    const left = this.#left.get(tunnel);
    if (left === undefined) return;
    const next = left + this.#limits.retryShare;
    if (next < this.#limits.freeRetries) this.#left.set(tunnel, next);
    else this.#left.delete(tunnel);
  }

  /** Takes one retry, if there is one. */
  spend(tunnel: string): boolean {
    const left = this.#left.get(tunnel) ?? this.#limits.freeRetries;
    // A little slack: ten times a tenth is not quite one in binary.
    if (left < 1 - 1e-6) return false;
    this.#left.delete(tunnel);
    this.#left.set(tunnel, left - 1);
    if (this.#left.size > this.#limits.retryBudgetsMax) this.#forgetOldest();
    return true;
  }

  /** The tunnel is gone, or somebody else's. */
  forget(tunnel: string): void {
    this.#left.delete(tunnel);
  }

  #forgetOldest(): void {
    for (const oldest of this.#left.keys()) {
      this.#left.delete(oldest);
      return;
    }
  }
}
