/**
 * On which lane a new stream opens. The lane with the fewest bytes on the way stalls it least; but where the round trip
 * is short, streams that share a lane share writes, so lanes fill one after the other there.
 */

export interface LaneLoad {
  /** Bytes on the way or waiting, in both directions. */
  readonly loadBytes: number;
  readonly streamCount: number;
}

/** Round trips below this are a local network: lost packets are repaired before anybody notices. */
const shortRttMs = 5;
/** Loads within this of the lowest count as equal on a short round trip. */
const tieBytes = 16 * 1024;
/** Streams that share a lane before the next lane is used, on a short round trip. */
const streamsTogether = 64;

/** Index of the best lane, or -1 without lanes. Pure. */
export function placeStream(lanes: readonly LaneLoad[], rttMs: number | undefined): number {
  const isShort = rttMs !== undefined && rttMs < shortRttMs;
  let lowest = Number.POSITIVE_INFINITY;
  for (const lane of lanes) lowest = Math.min(lowest, lane.loadBytes);
  const limit = isShort ? lowest + tieBytes : lowest;
  let best = -1;
  let bestStreams = Number.POSITIVE_INFINITY;
  for (let i = 0; i < lanes.length; i++) {
    const lane = lanes[i]!; // i is in range
    if (lane.loadBytes > limit) continue;
    const streams = isShort ? Math.floor(lane.streamCount / streamsTogether) : lane.streamCount;
    if (streams >= bestStreams) continue;
    best = i;
    bestStreams = streams;
  }
  return best;
}
