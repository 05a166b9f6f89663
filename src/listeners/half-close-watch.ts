/**
 * A visitor that ended its side and waits for its reply looks like one that went away: TCP shows the same FIN for both.
 * Only bytes tell them apart, since whoever is gone answers them with a reset. So while a reply to such a visitor is
 * silent, bytes that mean nothing are sent: soon, then less and less often.
 */

import type { Clock, Timer } from "../core/clock.ts";
import type { Limits } from "../core/limits.ts";

export class HalfCloseWatch {
  readonly #clock: Clock;
  readonly #limits: Pick<Limits, "halfCloseProbeMs" | "halfCloseProbeMaxMs">;
  #timer: Timer | undefined;

  constructor(clock: Clock, limits: Pick<Limits, "halfCloseProbeMs" | "halfCloseProbeMaxMs">) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** From now on `probe` is called, until `stop`. Does nothing when it runs already. */
  start(probe: () => void): void {
    if (this.#timer === undefined) this.#schedule(probe, this.#limits.halfCloseProbeMs);
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #schedule(probe: () => void, waitMs: number): void {
    this.#timer = this.#clock.after(waitMs, () => {
      this.#schedule(probe, Math.min(2 * waitMs, this.#limits.halfCloseProbeMaxMs));
      probe();
    });
  }
}
