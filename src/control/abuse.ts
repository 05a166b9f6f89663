/** Two small bounded memories: which one-time numbers were used, and how often an address has asked. */

import { addressGroup } from "../core/address-group.ts";
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

/** Counts requests of each address in windows of a minute; forgets the oldest address when there are too many. */
export class AddressLimiter {
  readonly #windows = new Map<string, Window>();
  readonly #clock: Clock;
  readonly #perMinute: number;
  readonly #addressesMax: number;

  constructor(options: { readonly clock: Clock; readonly perMinute: number; readonly addressesMax: number }) {
    this.#clock = options.clock;
    this.#perMinute = options.perMinute;
    this.#addressesMax = options.addressesMax;
  }

  get size(): number {
    return this.#windows.size;
  }

  /** @throws SallyError RATE_LIMITED when this address has asked too often within the minute */
  admit(address: string): void {
    const key = addressGroup(address);
    const nowMs = this.#clock.nowMs();
    const known = this.#windows.get(key);
    if (known !== undefined && known.endMs > nowMs) {
      if (known.count >= this.#perMinute) throw new SallyError("RATE_LIMITED");
      known.count += 1;
      return;
    }
    this.#windows.delete(key);
    if (this.#windows.size >= this.#addressesMax) {
      for (const oldest of this.#windows.keys()) {
        this.#windows.delete(oldest);
        break;
      }
    }
    this.#windows.set(key, { endMs: nowMs + 60_000, count: 1 });
  }
}
