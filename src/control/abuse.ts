/** Two small bounded memories: which one-time numbers were used, and how often somebody has asked. */

import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";

/** Accepts each nonce once while its proof could still be valid. Full, it refuses rather than forgets. */
export class NonceMemory {
  readonly #usedUntilMs = new Map<string, number>();
  readonly #clock: Clock;
  readonly #keepMs: number;
  readonly #max: number;

  constructor({ clock, keepMs, max }: { readonly clock: Clock; readonly keepMs: number; readonly max: number }) {
    this.#clock = clock;
    this.#keepMs = keepMs;
    this.#max = max;
  }

  get size(): number {
    return this.#usedUntilMs.size;
  }

  /** False when it was used before. One synchronous step, so two requests at once cannot both pass. @throws SallyError OVERLOADED */
  use(nonce: string): boolean {
    const nowMs = this.#clock.nowMs();
    for (const [old, untilMs] of this.#usedUntilMs) {
      if (untilMs > nowMs) break; // oldest first
      this.#usedUntilMs.delete(old);
    }
    if (this.#usedUntilMs.has(nonce)) return false;
    if (this.#usedUntilMs.size >= this.#max) throw new SallyError("OVERLOADED");
    this.#usedUntilMs.set(nonce, nowMs + this.#keepMs);
    return true;
  }
}

interface Window {
  readonly endMs: number;
  count: number;
}

/** Counts requests of each key, such as an address, in windows of a minute; forgets the oldest when there are too many. */
export class RateLimiter {
  readonly #windows = new Map<string, Window>();
  readonly #clock: Clock;
  readonly #perMinute: number;
  readonly #keysMax: number;

  constructor(options: { readonly clock: Clock; readonly perMinute: number; readonly keysMax: number }) {
    this.#clock = options.clock;
    this.#perMinute = options.perMinute;
    this.#keysMax = options.keysMax;
  }

  get size(): number {
    return this.#windows.size;
  }

  /** @throws SallyError RATE_LIMITED when there were too many of this key within the minute */
  admit(key: string): void {
    const nowMs = this.#clock.nowMs();
    const known = this.#windows.get(key);
    if (known !== undefined && known.endMs > nowMs) {
      if (known.count >= this.#perMinute) throw new SallyError("RATE_LIMITED");
      known.count += 1;
      return;
    }
    this.#windows.delete(key);
    if (this.#windows.size >= this.#keysMax) {
      for (const oldest of this.#windows.keys()) {
        this.#windows.delete(oldest);
        break;
      }
    }
    this.#windows.set(key, { endMs: nowMs + 60_000, count: 1 });
  }
}
