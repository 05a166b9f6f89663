/** A wait that others can end early; a wake-up without anybody waiting is kept for the next wait. */

import type { Clock } from "../core/clock.ts";

export class Wakeup {
  readonly #clock: Clock;
  #isPending = false;
  #wake: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  wake(): void {
    if (this.#wake === undefined) this.#isPending = true;
    else this.#wake();
  }

  /** Forgets a wake-up that nobody waited for. */
  clear(): void {
    this.#isPending = false;
  }

  /** Waits at most `delayMs` (Infinity: without end). Resolves also on abort: the caller looks at the signal. */
  wait(delayMs: number, signal: AbortSignal): Promise<"woken" | "elapsed"> {
    if (this.#isPending || signal.aborted) {
      this.#isPending = false;
      return Promise.resolve("woken");
    }
    return new Promise((resolve) => {
      const finish = (how: "woken" | "elapsed"): void => {
        this.#wake = undefined;
        timer?.cancel();
        signal.removeEventListener("abort", onAbort);
        resolve(how);
      };
      const onAbort = (): void => finish("woken");
      const timer = Number.isFinite(delayMs) ? this.#clock.after(delayMs, () => finish("elapsed")) : undefined;
      this.#wake = onAbort;
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
