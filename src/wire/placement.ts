/**
 * On which lane a new stream opens. The lane with the fewest bytes on the way stalls it least; but where the round trip
 * is short, streams that share a lane share writes, so lanes fill one after the other there. Of equals the last one is
 * taken: where lanes share a line the first go first, so lanes in front of those that come to carry bulk stay free.
 */

export interface LaneLoad {
  /** Bytes on the way or waiting, in both directions, with those that go first. */
  readonly loadBytes: number;
  readonly streamCount: number;
}

/** Round trips below this are a local network: lost packets are repaired before anybody notices. */
const shortRttMs = 5;
/** Loads within this of the lowest count as equal on a short round trip. */
const tieBytes = 16 * 1024;
/** Streams that share a lane before the next lane is used, on a short round trip. */
const streamsTogether = 64;

/** Less than this in front is gone before it matters. */
const bulkBytes = 32 * 1024;

/**
 * Bulk on the lanes that go first where all share one line: QUIC's library serves the streams of a connection in the
 * order in which they were opened, as lanes are counted. The lanes are in that order. Pure.
 */
export function bytesInFront(lanes: readonly { index: number; ownLoadBytes: number }[], index: number): number {
  let bytes = 0;
  for (const lane of lanes) {
    if (lane.index >= index) break;
    bytes += lane.ownLoadBytes;
  }
  return bytes > bulkBytes ? bytes : 0;
}

/** Index of the best lane, or -1 without lanes. Pure. */
export function placeStream(lanes: readonly LaneLoad[], rttMs: number | undefined): number {
  const isShort = rttMs !== undefined && rttMs < shortRttMs;
  let lowest = Number.POSITIVE_INFINITY;
  for (const lane of lanes) lowest = Math.min(lowest, lane.loadBytes);
  const limit = isShort ? lowest + tieBytes : lowest;
  let best = -1;
  let bestStreams = Number.POSITIVE_INFINITY;
  for (let i = lanes.length - 1; i >= 0; i--) {
    const lane = lanes[i]!; // i is in range
    if (lane.loadBytes > limit) continue;
    const streams = isShort ? Math.floor(lane.streamCount / streamsTogether) : lane.streamCount;
    if (streams >= bestStreams) continue;
    best = i;
    bestStreams = streams;
  }
  return best;
}
