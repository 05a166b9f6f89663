/**
 * Notices that the machine slept: the wall clock ran on while the monotonic clock, or this process, stood still. A link
 * that slept is most likely dead, and asking it would take the whole time-out.
 */

import type { Clock, Timer } from "../core/clock.ts";

const everyMs = 1_000;
const jumpMs = 10_000;

/** Calls `onJump` after each sleep, with its length. Returns the way to stop. */
export function watchClock(clock: Clock, onJump: (sleptMs: number) => void): () => void {
  let timer: Timer;
  let lastWallMs = clock.wallMs();
  let lastNowMs = clock.nowMs();
  const tick = (): void => {
    const wallMs = clock.wallMs();
    const nowMs = clock.nowMs();
    // Whether the monotonic clock counts a sleep depends on the system; either way one of the two shows it.
    const sleptMs = Math.max(wallMs - lastWallMs, nowMs - lastNowMs) - everyMs;
    lastWallMs = wallMs;
    lastNowMs = nowMs;
    timer = clock.after(everyMs, tick);
    if (sleptMs > jumpMs) onJump(sleptMs);
  };
  timer = clock.after(everyMs, tick);
  return () => timer.cancel();
}
