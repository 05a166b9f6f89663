/**
 * The nonces of running probes. A request that carries a known one in `Sally-Probe` is answered by the agent itself,
 * so "the tunnel is up" means that a request really went through the public listener, the link and back. Visitors
 * cannot guess a nonce, each works once and for one tunnel only, and there are never more than a bound.
 */

import { hexEncode } from "../core/bytes.ts";
import type { Clock } from "../core/clock.ts";
import type { Limits } from "../core/limits.ts";

/** The field that carries a nonce, in lower case. */
export const probeFieldName = "sally-probe";

const nonceBytes = 16;

interface Probe {
  readonly tunnel: string;
  readonly expiresMs: number;
}

export interface ProbeBoardOptions {
  readonly clock: Clock;
  readonly limits: Pick<Limits, "probeMs" | "probes">;
}

export class ProbeBoard {
  readonly #clock: Clock;
  readonly #limits: ProbeBoardOptions["limits"];
  /** In the order of issue, which is the order of expiry. */
  readonly #probes = new Map<string, Probe>();

  constructor({ clock, limits }: ProbeBoardOptions) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Probes that were issued and neither used nor dropped: the hot path skips the look-up when it is 0. */
  get size(): number {
    return this.#probes.size;
  }

  /** A nonce for one probe of the tunnel `name`; valid for `limits.probeMs`. The oldest falls out above `limits.probes`. */
  issue(name: string): string {
    this.#dropExpired();
    if (this.#probes.size >= this.#limits.probes) {
      for (const oldest of this.#probes.keys()) {
        this.#probes.delete(oldest);
        break;
      }
    }
    const nonce = hexEncode(crypto.getRandomValues(new Uint8Array(nonceBytes)));
    this.#probes.set(nonce, { tunnel: name, expiresMs: this.#clock.nowMs() + this.#limits.probeMs });
    return nonce;
  }

  /** Whether the nonce is valid for a tunnel now; it stays valid. */
  has(nonce: string, name: string): boolean {
    const probe = this.#probes.get(nonce);
    return probe !== undefined && probe.tunnel === name && probe.expiresMs > this.#clock.nowMs();
  }

  /** Uses the nonce up: true at most once for each. */
  take(nonce: string, name: string): boolean {
    if (!this.has(nonce, name)) return false;
    this.#probes.delete(nonce);
    return true;
  }

  #dropExpired(): void {
    const nowMs = this.#clock.nowMs();
    for (const [nonce, probe] of this.#probes) {
      if (probe.expiresMs > nowMs) break;
      this.#probes.delete(nonce);
    }
  }
}
