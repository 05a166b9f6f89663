/**
 * How many QUIC sessions may act on early data at a time. A first flight that somebody recorded looks the same when it
 * is sent again, and costs the node a connection and a signature; so each such session takes one of a few places until
 * its agent has shown that it takes part in this handshake. One that never does keeps its place until the time limit,
 * even if it ends before: that bounds the rate of what a replay can make us do.
 */

import type { Clock } from "../../core/clock.ts";

export interface EarlyPlacesOptions {
  readonly max: number;
  readonly holdMs: number;
  readonly clock: Clock;
}

export class EarlyPlaces {
  readonly #options: EarlyPlacesOptions;
  #taken = 0;

  constructor(options: EarlyPlacesOptions) {
    this.#options = options;
  }

  get taken(): number {
    return this.#taken;
  }

  /**
   * Takes a place; undefined when none is left. Returns the way to leave it early, for a session that proved itself.
   * `onLate` is called when the time limit comes first.
   */
  take(onLate: () => void): (() => void) | undefined {
    const { max, holdMs, clock } = this.#options;
    if (this.#taken >= max) return undefined;
    this.#taken++;
    const timer = clock.after(holdMs, () => {
      leave();
      onLate();
    });
    let isTaken = true;
    const leave = (): void => {
      if (!isTaken) return;
      isTaken = false;
      timer.cancel();
      this.#taken--;
    };
    return leave;
  }
}
