/**
 * How long to wait before the next try: doubling, capped, and half of it random, so that the agents of a node that
 * restarts do not come back in step.
 */

export interface BackoffOptions {
  readonly minMs: number;
  readonly maxMs: number;
  /** 0 up to 1, exclusive. */
  readonly random: () => number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  #failures = 0;

  constructor(options: BackoffOptions) {
    this.#options = options;
  }

  /** The delay after one more failure, in whole milliseconds; the first is between half of the minimum and the minimum. */
  nextMs(capMs: number = this.#options.maxMs): number {
    const { minMs, maxMs, random } = this.#options;
    const ceilingMs = Math.min(minMs * 2 ** Math.min(this.#failures, 30), maxMs, capMs);
    this.#failures++;
    return Math.round(ceilingMs / 2 + (ceilingMs / 2) * random());
  }

  reset(): void {
    this.#failures = 0;
  }
}
