/**
 * How much more load this machine can take, 0..1: the exit sends visitors to whoever has most, and sheds when nobody
 * has any. The scarcer of processor time and promptness counts; both are smoothed, so that one busy second is no alarm.
 */

import type { Clock, Timer } from "../core/clock.ts";

/** What the system says about its processors; the app reads it, since that is not portable. */
export interface LoadReading {
  /** Runnable tasks, averaged over a minute (`os.loadavg()[0]`); 0 where the system does not know it. */
  readonly loadAverage: number;
  /** Share of all processors in use since the last reading, 0..1, where it is known: better than the average. */
  readonly cpuShare?: number;
  readonly processors: number;
}

/** A timer this late has used up half of the promptness. */
const halfDelayMs = 50;
const smoothing = 0.4;
const everyMs = 1_000;
const resendMs = 5_000;
const noticeable = 0.01;

/** Pure: headroom of one moment. */
export function headroomOf(load: LoadReading, loopDelayMs: number): number {
  const used = load.cpuShare ?? load.loadAverage / Math.max(1, load.processors);
  const processor = 1 - Math.min(1, Math.max(0, used));
  const promptness = halfDelayMs / (halfDelayMs + Math.max(0, loopDelayMs));
  return Math.min(processor, promptness);
}

export function smooth(previous: number | undefined, next: number): number {
  return previous === undefined ? next : previous + (next - previous) * smoothing;
}

export interface HeadroomOptions {
  readonly clock: Clock;
  readonly readLoad: () => LoadReading;
  readonly send: (value: number) => void;
}

/** Measures once a second; sends when the value changed by a hundredth, and every five seconds. Returns the way to stop. */
export function reportHeadroom({ clock, readLoad, send }: HeadroomOptions): () => void {
  let timer: Timer;
  let dueMs = clock.nowMs() + everyMs;
  let value: number | undefined;
  let sent: { readonly value: number; readonly atMs: number } | undefined;
  const tick = (): void => {
    const nowMs = clock.nowMs();
    value = smooth(value, headroomOf(readLoad(), nowMs - dueMs));
    if (sent === undefined || Math.abs(value - sent.value) >= noticeable || nowMs - sent.atMs >= resendMs) {
      sent = { value, atMs: nowMs };
      send(Math.round(value * 1_000) / 1_000);
    }
    dueMs = nowMs + everyMs;
    timer = clock.after(everyMs, tick);
  };
  timer = clock.after(everyMs, tick);
  return () => timer.cancel();
}
