/** How long an idle stream may wait for its next request. */

import type { Limits } from "../../core/limits.ts";

/** Less than the origin says by this much: its clock started earlier and its timer may be early. */
const marginMs = 1_000;
/** The time to the first byte includes the origin's work; no more than this is taken for the way. */
const roundTripMaxMs = 1_000;

/** `timeout` of a Keep-Alive field in milliseconds; undefined if it says nothing. */
export function keepAliveTimeoutMs(value: string | undefined): number | undefined {
  const seconds = value === undefined ? undefined : /(?:^|[ \t,])timeout[ \t]*=[ \t]*"?(\d{1,9})/i.exec(value)?.[1];
  return seconds === undefined ? undefined : Number(seconds) * 1_000;
}

export interface IdleTimes {
  /** What the origin said; undefined if nothing. */
  readonly keepAliveMs: number | undefined;
  readonly roundTripMs: number;
  /** A stream that authenticated itself is worth keeping: the longest that the visitor may idle. */
  readonly isPinned: boolean;
}

/** Milliseconds that a stream may idle; 0 or less means not at all. Node closes after 5 s, and says so. */
export function idleTimeMs(times: IdleTimes, limits: Pick<Limits, "pooledIdleMs" | "keepAliveIdleMs">): number {
  const mostMs = times.isPinned ? limits.keepAliveIdleMs : limits.pooledIdleMs;
  if (times.keepAliveMs === undefined) return mostMs;
  return Math.min(mostMs, times.keepAliveMs - marginMs - Math.min(times.roundTripMs, roundTripMaxMs));
}
