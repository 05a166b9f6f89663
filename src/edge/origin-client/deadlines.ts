/**
 * Time-outs for many streams without a timer for each: every stream carries the moment it falls due, and one coarse
 * timer looks at all of them. The timer runs only while there is something to watch.
 */

import type { Clock, Timer } from "../../core/clock.ts";

/** How late a deadline may be noticed. */
export const deadlineTickMs = 250;

export interface Watched {
  /** Monotonic milliseconds; Infinity for "not now". The owner changes it freely. */
  dueMs: number;
  /** Called at each tick at or after `dueMs` while it stays so. */
  onDue(): void;
}

export class Deadlines<W extends Watched = Watched> {
  readonly #clock: Clock;
  readonly #watched = new Set<W>();
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#watched.size;
  }

  get watched(): Iterable<W> {
    return this.#watched;
  }

  watch(watched: W): void {
    this.#watched.add(watched);
    this.#timer ??= this.#clock.after(deadlineTickMs, () => this.#tick());
  }

  unwatch(watched: W): void {
    this.#watched.delete(watched);
  }

  #tick(): void {
    this.#timer = undefined;
    const nowMs = this.#clock.nowMs();
    for (const watched of this.#watched) {
      if (watched.dueMs <= nowMs) watched.onDue();
    }
    if (this.#watched.size > 0) this.#timer ??= this.#clock.after(deadlineTickMs, () => this.#tick());
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#watched.clear();
  }
}
