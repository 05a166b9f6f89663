/**
 * Ends a connection visibly, once what was written to it has arrived: a reset at once would destroy what still waits
 * here and in our system, which a visitor of the origin itself would have got.
 */

import type { Clock, Timer } from "../core/clock.ts";
import type { Duplex } from "../core/duplex.ts";

const firstStepMs = 5;
/** A connection that takes longer is looked at with all others. */
const longestStepMs = 1_000;

export class BreakOff {
  readonly #duplex: Pick<Duplex, "queuedBytes" | "undeliveredBytes">;
  readonly #clock: Clock;
  readonly #reset: () => void;
  #stepMs = firstStepMs;
  #timer: Timer | undefined;

  constructor(duplex: Pick<Duplex, "queuedBytes" | "undeliveredBytes">, clock: Clock, reset: () => void) {
    this.#duplex = duplex;
    this.#clock = clock;
    this.#reset = reset;
  }

  /** Calls `reset` when nothing is left, perhaps before this returns; whoever takes long is somebody else's business. */
  start(): void {
    const { queuedBytes, undeliveredBytes = queuedBytes } = this.#duplex;
    if (undeliveredBytes === 0) return this.#reset();
    if (this.#stepMs > longestStepMs) return;
    this.#timer = this.#clock.after(this.#stepMs, () => this.start());
    this.#stepMs *= 2;
  }

  cancel(): void {
    this.#timer?.cancel();
  }
}
