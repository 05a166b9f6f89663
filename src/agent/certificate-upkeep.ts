/**
 * Renews the agent's certificate at half of its life, before a link when it has expired (a laptop that slept), and when
 * a node says that it is not valid. Only the node's own refusal is final; a node that cannot be asked is asked again.
 */

import type { Clock } from "../core/clock.ts";
import { sleep } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { classifyFailure } from "./failures.ts";
import { GiveUp } from "./link-keeper.ts";

/** Wall-clock milliseconds. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface CertificateUpkeepOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly validity: () => Validity;
  /** Gets a new certificate by proof of the key; from then on `validity` tells the new one's. */
  readonly renew: (signal: AbortSignal) => Promise<void>;
  readonly onRenewed: () => void;
}

/** Long against the cost of looking; sleeps are noticed by it too. */
const lookEveryMs = 30_000;
const lookEveryMinMs = 250;
/** Short against the life of a certificate. */
const looksPerLife = 8;

export class CertificateUpkeep {
  readonly #options: CertificateUpkeepOptions;
  #renewing: Promise<void> | undefined;
  #renewedAtMs = -Infinity;

  constructor(options: CertificateUpkeepOptions) {
    this.#options = options;
  }

  /** Renews when the certificate has expired. @throws GiveUp when the node refuses, SallyError when it cannot be asked */
  async prepare(signal: AbortSignal): Promise<void> {
    if (this.#options.clock.wallMs() >= this.#options.validity().notAfterMs) await this.#renew(signal);
  }

  /** The node said that the certificate is not valid. True when there is a new one now, false when there was one just before. */
  async replace(signal: AbortSignal): Promise<boolean> {
    if (this.#options.clock.nowMs() - this.#renewedAtMs < limits.renewAgainAfterMs) return false;
    await this.#renew(signal);
    return true;
  }

  /** Looks after the half life until the signal aborts. @throws GiveUp when the node refuses to renew */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log, onRenewed } = this.#options;
    while (!signal.aborted) {
      await sleep(clock, this.#lookMs(), signal);
      if (!this.#isDue()) continue;
      try {
        await this.#renew(signal);
        onRenewed();
      } catch (thrown) {
        if (thrown instanceof GiveUp) throw thrown;
        log.warn("the certificate could not be renewed yet", { reason: toSallyError(thrown).message });
      }
    }
  }

  #lookMs(): number {
    const { notBeforeMs, notAfterMs } = this.#options.validity();
    return Math.max(lookEveryMinMs, Math.min(lookEveryMs, (notAfterMs - notBeforeMs) / looksPerLife));
  }

  #isDue(): boolean {
    const { notBeforeMs, notAfterMs } = this.#options.validity();
    return this.#options.clock.wallMs() >= (notBeforeMs + notAfterMs) / 2;
  }

  #renew(signal: AbortSignal): Promise<void> {
    this.#renewing ??= this.#renewOnce(signal).finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  async #renewOnce(signal: AbortSignal): Promise<void> {
    try {
      await this.#options.renew(signal);
      this.#renewedAtMs = this.#options.clock.nowMs();
    } catch (thrown) {
      const error = toSallyError(thrown, "CONNECT_FAILED");
      // The refusal of a renewal is not cured by another one.
      if (classifyFailure(error, true) === "retry") throw error;
      throw new GiveUp(error instanceof SallyError ? error : toSallyError(error));
    }
  }
}
