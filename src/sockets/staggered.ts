/**
 * Several ways to reach one goal, the preferred first: the next starts after a pause, or at once when one fails
 * (RFC 8305 §5). The first success wins, the others are cancelled, and one that succeeds too late is discarded.
 */

import type { Clock, Timer } from "../core/clock.ts";

export interface StaggeredOptions<T> {
  readonly attempts: readonly ((signal: AbortSignal) => Promise<T>)[];
  readonly staggerMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Closes what succeeded after the race was over. */
  readonly discard: (late: T) => void;
}

/** Rejects with an `AggregateError` of every attempt's error, in order of the attempts, or with the signal's reason. */
export function staggered<T>(options: StaggeredOptions<T>): Promise<T> {
  const { attempts, staggerMs, clock, signal, discard } = options;
  return new Promise<T>((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const losers = new AbortController();
    const errors: unknown[] = [];
    let started = 0;
    let failed = 0;
    let isSettled = false;
    let timer: Timer | undefined;
    const settle = (): boolean => {
      if (isSettled) return false;
      isSettled = true;
      timer?.cancel();
      signal.removeEventListener("abort", onAbort);
      return true;
    };
    const onAbort = (): void => {
      if (!settle()) return;
      losers.abort(signal.reason);
      reject(signal.reason);
    };
    const startNext = (): void => {
      timer?.cancel();
      if (isSettled || started === attempts.length) return;
      const index = started++;
      attempts[index]!(losers.signal).then(
        (value) => {
          if (!settle()) return discard(value);
          losers.abort(new Error("another attempt was faster"));
          resolve(value);
        },
        (error: unknown) => {
          errors[index] = error;
          failed++;
          if (failed === attempts.length && settle()) reject(new AggregateError(errors, errors.map(String).join("; ")));
          else startNext();
        },
      );
      if (started < attempts.length) timer = clock.after(staggerMs, startNext);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    startNext();
  });
}
