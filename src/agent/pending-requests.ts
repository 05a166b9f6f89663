/** Questions to a node that wait for their answer, by request id; a lost link or the time-out ends the wait. */

import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import type { Link } from "../wire/link.ts";

interface Pending<Answer> {
  readonly link: Link;
  readonly settle: (outcome: Answer | SallyError) => void;
}

export class PendingRequests<Answer extends object> {
  readonly #clock: Clock;
  readonly #pending = new Map<number, Pending<Answer>>();
  #lastId = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#pending.size;
  }

  /** Calls `send` with a new id and waits. @throws SallyError CONNECT_TIMEOUT, or the reason that the link closed */
  ask(link: Link, timeoutMs: number, send: (requestId: number) => void): Promise<Answer> {
    this.#lastId = (this.#lastId + 1) % 0x1_0000_0000;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      const settle = (outcome: Answer | SallyError): void => {
        this.#pending.delete(id);
        timer.cancel();
        if (outcome instanceof SallyError) reject(outcome);
        else resolve(outcome);
      };
      const timer = this.#clock.after(timeoutMs, () =>
        settle(new SallyError("CONNECT_TIMEOUT", "The node did not answer a message in time.")),
      );
      this.#pending.set(id, { link, settle });
      if (link.isClosed) settle(link.closeError ?? new SallyError("LINK_LOST"));
      else send(id);
    });
  }

  /** An answer came; one that nobody waits for, or on another link, is ignored. */
  answer(link: Link, requestId: number, answer: Answer): void {
    const pending = this.#pending.get(requestId);
    if (pending?.link === link) pending.settle(answer);
  }

  linkClosed(link: Link, error: SallyError): void {
    for (const pending of this.#pending.values()) if (pending.link === link) pending.settle(error);
  }
}
