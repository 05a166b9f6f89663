/**
 * Keeps retries a small share of traffic, so that an origin in trouble is not hit twice as hard: ten are free, then
 * each request earns a share of one.
 */

const freeRetries = 10;

export class RetryBudget {
  readonly #share: number;
  #tokens = freeRetries;

  constructor(share: number) {
    this.#share = share;
  }

  /** A request began. */
  earn(): void {
    if (this.#tokens < freeRetries) this.#tokens += this.#share;
  }

  /** Takes one retry, if there is one. */
  spend(): boolean {
    // A little slack: ten times a tenth is not quite one in binary.
    if (this.#tokens < 1 - 1e-6) return false;
    this.#tokens -= 1;
    return true;
  }
}
