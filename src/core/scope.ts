/**
 * The owner of background work. Every promise that is not awaited belongs to a scope; closing the scope aborts its
 * signal, runs the clean-ups in reverse order and waits for what still runs. Whoever opens closes.
 */

import type { Logger } from "./log.ts";

export class Scope {
  readonly #controller = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #cleanups: (() => void | Promise<void>)[] = [];
  readonly #log: Logger;
  #closing: Promise<void> | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  /** Runs work in the background. A failure is logged once, unless the scope was closed meanwhile. */
  run(what: string, work: (signal: AbortSignal) => Promise<void>): void {
    const running = work(this.signal)
      .catch((error: unknown) => {
        if (!this.signal.aborted) this.#log.error(`${what} failed`, { error: String(error) });
      })
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  /** Registers what must happen on close; the last registered runs first. */
  onClose(cleanup: () => void | Promise<void>): void {
    this.#cleanups.push(cleanup);
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeOnce();
    return this.#closing;
  }

  async #closeOnce(): Promise<void> {
    this.#controller.abort();
    for (const cleanup of this.#cleanups.toReversed()) await cleanup();
    await Promise.allSettled(this.#running);
  }
}
