/**
 * Chance that can be had again: a test draws its random moments from one seed, prints it, and takes it from SALLY_SEED
 * when that is set.
 */

import { randomInt } from "node:crypto";

export class Seeded {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  /** 0 up to 1, exclusive (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `low` up to `high`, both included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick<const T>(choices: readonly [T, ...T[]]): T {
    return choices[this.between(0, choices.length - 1)] ?? choices[0];
  }

  /** Another sequence, for work that runs at the same time. */
  fork(): Seeded {
    return new Seeded(this.between(0, 2 ** 32 - 1));
  }
}

/** The seed of a test file's run, printed with the way to have it again. */
export function drawSeed(file: string): Seeded {
  const given = process.env["SALLY_SEED"];
  const seed = given === undefined ? randomInt(2 ** 32) : Number(given);
  process.stderr.write(`${file}: SALLY_SEED=${seed} draws the same moments again\n`);
  return new Seeded(seed);
}
