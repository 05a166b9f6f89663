/** Whatever an authenticated peer sends, its link ends with a code and memory stays bounded. */

import { describe, expect, test } from "bun:test";
import { concatBytes } from "../core/bytes.ts";
import { errorTable, SallyError, type ErrorCode } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import { frameType } from "./frames.ts";
import { encodeJoin } from "./lane-join.ts";
import { record, settle } from "./testing/link-pair.ts";
import { hostilePair, RawPeer, type HostilePair } from "./testing/raw-peer.ts";
import { WindowBudget } from "./window-budget.ts";

const http = { tunnel: "demo", protocol: "http" } as const;
const holds = { onStream: (stream: Parameters<typeof record>[0]) => void record(stream, { consumes: false }) };

function expectEnded({ link, seen, peer }: HostilePair, code: ErrorCode): void {
  expect(seen.closes.map((error) => error?.code)).toEqual([code]);
  expect(link.isClosed).toBe(true);
  expect(link.streamCount).toBe(0);
  expect(peer.goaway?.wire).toBe(errorTable[code].wire);
}

const uint32 = (value: number): number[] => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
const credit = (increment: number, queued = 0): Uint8Array =>
  Uint8Array.from([...uint32(increment), ...uint32(queued)]);

describe("a violation ends the link with its code", () => {
  const cases: readonly { name: string; code: ErrorCode; say: (peer: RawPeer) => void }[] = [
    {
      name: "a frame over 64 KiB",
      code: "FRAME_TOO_LARGE",
      say: (peer) => peer.open(1).pack(frameType.data, 1, new Uint8Array(64 * 1024 + 1)),
    },
    {
      name: "DATA for a stream that was never opened",
      code: "PROTOCOL_VIOLATION",
      say: (peer) => peer.pack(frameType.data, 7, new Uint8Array(1)),
    },
    { name: "CREDIT for an unknown stream", code: "PROTOCOL_VIOLATION", say: (peer) => peer.pack(5, 7, credit(1)) },
    { name: "a stream id of our parity", code: "PROTOCOL_VIOLATION", say: (peer) => peer.open(2) },
    { name: "a stream id twice", code: "PROTOCOL_VIOLATION", say: (peer) => peer.open(1).open(1) },
    { name: "a stream id that goes back", code: "PROTOCOL_VIOLATION", say: (peer) => peer.open(5).open(3) },
    {
      name: "one byte over the window",
      code: "CREDIT_EXCEEDED",
      say: (peer) =>
        peer
          .open(1)
          .pack(frameType.data, 1, new Uint8Array(64 * 1024))
          .pack(4, 1, new Uint8Array(1)),
    },
    {
      name: "DATA after FIN",
      code: "PROTOCOL_VIOLATION",
      say: (peer) => peer.open(1).pack(frameType.fin, 1, new Uint8Array(8)).pack(4, 1, new Uint8Array(1)),
    },
    {
      name: "FIN twice",
      code: "PROTOCOL_VIOLATION",
      say: (peer) => peer.open(1).pack(6, 1, new Uint8Array(8)).pack(6, 1, new Uint8Array(8)),
    },
    { name: "an empty DATA frame", code: "PROTOCOL_VIOLATION", say: (peer) => peer.open(1).pack(frameType.data, 1) },
    { name: "a FIN that is too short", code: "PROTOCOL_VIOLATION", say: (peer) => peer.open(1).pack(6, 1) },
    {
      name: "CREDIT beyond 2^31",
      code: "PROTOCOL_VIOLATION",
      say: (peer) => peer.open(1).pack(5, 1, credit(0x7fff_ffff)),
    },
    { name: "an acknowledgement of nothing", code: "PROTOCOL_VIOLATION", say: (peer) => peer.pack(5, 0, credit(1)) },
    { name: "OPENED for its own stream", code: "PROTOCOL_VIOLATION", say: (peer) => peer.open(1).pack(2, 1) },
    { name: "an unknown frame type", code: "PROTOCOL_VIOLATION", say: (peer) => peer.pack(0x44, 0) },
    { name: "HANDSHAKE again", code: "PROTOCOL_VIOLATION", say: (peer) => peer.pack(13, 0, new Uint8Array(2)) },
    { name: "a control message with a gap", code: "PROTOCOL_VIOLATION", say: (peer) => peer.pack(11, 2, json({})) },
    { name: "a control message without type", code: "PROTOCOL_VIOLATION", say: (peer) => peer.pack(11, 1, json({})) },
    {
      name: "a control message that is no JSON",
      code: "PROTOCOL_VIOLATION",
      say: (peer) => peer.pack(11, 1, new Uint8Array(9)),
    },
    { name: "an acknowledgement from the future", code: "PROTOCOL_VIOLATION", say: (peer) => peer.pack(12, 1) },
    {
      name: "a malformed control message",
      code: "PROTOCOL_VIOLATION",
      say: (peer) => peer.pack(11, 1, json({ type: "headroom", value: 2 })),
    },
  ];
  for (const { name, code, say } of cases) {
    test(name, async () => {
      const pair = await hostilePair(holds);
      say(pair.peer);
      pair.peer.flush();
      await settle();
      expectEnded(pair, code);
    });
  }
});

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

test("the window takes exactly 64 KiB, and control messages and frames of unknown kind are ignored", async () => {
  const { peer, seen, link } = await hostilePair(holds);
  peer.open(1).pack(frameType.data, 1, new Uint8Array(64 * 1024));
  peer
    .pack(frameType.control, 1, json({ type: "weather", value: 3 }))
    .pack(0xee, 3, new Uint8Array(100))
    .flush();
  await settle();
  expect(seen.closes).toEqual([]);
  expect(link.streamCount).toBe(1);
});

test("of a reason that is too long no more is kept than its limit", async () => {
  const pair = await hostilePair();
  const [stream, other] = [record(pair.link.open(http)), record(pair.link.open(http))];
  await settle();
  const [first, second] = pair.peer.frames
    .filter(({ type }) => type === frameType.open)
    .map(({ streamId }) => streamId);
  const long = new Uint8Array(60_000).fill(97);
  const aborting = (code: ErrorCode): Uint8Array =>
    concatBytes([Uint8Array.of(0, errorTable[code].wire), new Uint8Array(8), long]);
  pair.peer.pack(frameType.reset, first!, aborting("ORIGIN_RESET"));
  pair.peer.pack(frameType.refused, second!, aborting("ORIGIN_REFUSED"));
  pair.peer.pack(frameType.goaway, 0, concatBytes([Uint8Array.of(0, errorTable.INTERNAL.wire), long])).flush();
  await settle();
  const kept = "a".repeat(limits.reasonBytes);
  expect([stream, other].map(({ closes }) => closes[0]?.message)).toEqual([kept, kept]);
  expect(pair.seen.closes.map((error) => [error?.code, error?.message])).toEqual([["INTERNAL", kept]]);
});

test("an unknown protocol in OPEN refuses the stream only", async () => {
  const { peer, seen } = await hostilePair(holds);
  peer.frame(frameType.open, 1, Uint8Array.of(9, 0, 1, 97));
  await settle();
  expect(seen.closes).toEqual([]);
  expect(peer.frames.map(({ type }) => type)).toContain(frameType.refused);
});

test("100,000 opens: 10,000 are taken, then the peer is refused, then it loses its link; the budget is whole again", async () => {
  const clock = new FakeClock();
  const budget = new WindowBudget(1 << 30);
  let most = 0;
  const pair = await hostilePair({
    ...holds,
    clock,
    budget,
    onStream: (stream) => ((most = Math.max(most, budget.usedBytes)), holds.onStream(stream)),
  });
  for (let id = 1; id < 200_000; id += 2) pair.peer.open(id);
  pair.peer.flush();
  await settle(30);
  expect(pair.seen.streams.length).toBe(limits.streamsPerLink);
  expect(most).toBe(limits.streamsPerLink * limits.streamWindowInitialBytes);
  expectEnded(pair, "STREAM_LIMIT");
  expect(budget.usedBytes).toBe(0);
});

test("at the limit of streams one more is refused, and the link lives", async () => {
  const pair = await hostilePair({ ...holds, limits: { streamsPerLink: 3 } });
  for (const id of [1, 3, 5]) pair.peer.open(id);
  pair.peer.flush();
  await settle();
  expect(pair.link.streamCount).toBe(3);
  expect(pair.peer.frames.some(({ type }) => type === frameType.refused)).toBe(false);
  pair.peer.open(7).flush();
  await settle();
  const refusal = pair.peer.frames.find(({ type }) => type === frameType.refused)!;
  expect(refusal.streamId).toBe(7);
  expect(refusal.payload[1]).toBe(errorTable.STREAM_LIMIT.wire);
  expect(pair.seen.closes).toEqual([]);
});

test("rapid reset: beyond the rate streams are refused unseen, and going on costs the link", async () => {
  const clock = new FakeClock();
  const pair = await hostilePair({ ...holds, clock, limits: { streamChurnBurst: 100, streamChurnPerSecond: 10 } });
  let id = 1;
  const churn = (count: number): void => {
    for (let i = 0; i < count; i++, id += 2) pair.peer.open(id).pack(frameType.reset, id, new Uint8Array(10));
    pair.peer.flush();
  };
  churn(105);
  await settle();
  expect(pair.seen.streams.length).toBe(100);
  expect(pair.link.streamCount).toBe(0);
  expect(pair.seen.closes).toEqual([]);
  clock.advance(6_000 - 1); // silent, but not dead
  churn(20);
  await settle();
  expect(pair.seen.streams.length).toBeLessThan(120);
  churn(100);
  await settle();
  expectEnded(pair, "STREAM_LIMIT");
});

test("a peer that does not read what it makes us say loses its link", async () => {
  const clock = new FakeClock();
  const pair = await hostilePair({ clock, limits: { streamsPerLink: 1, streamChurnBurst: 1_000_000 } });
  pair.peer.reads = false;
  let queued = 0;
  const carrier = pair.session.lanes[0]!;
  for (let id = 1; id < 400_001 && !pair.link.isClosed; id += 2) {
    pair.peer.open(id);
    if (id % 1_001 !== 0) continue;
    pair.peer.flush();
    await settle(1);
    queued = Math.max(queued, carrier.queuedBytes);
  }
  expect(pair.seen.closes.map((error) => error?.code)).toEqual(["OVERLOADED"]);
  expect(queued).toBeLessThan(2 * limits.laneControlQueueBytes);
});

test("any number of PINGs to a stalled lane owes one PONG", async () => {
  const pair = await hostilePair();
  pair.peer.frames.length = 0;
  for (let i = 0; i < 10_000; i++) pair.peer.pack(frameType.ping, 0, new Uint8Array(8).fill(i));
  pair.peer.flush();
  await settle(10);
  const pongs = pair.peer.frames.filter(({ type }) => type === frameType.pong);
  expect(pongs.length).toBeGreaterThan(0);
  expect(pongs.length).toBeLessThan(100);
  expect(pongs.at(-1)!.payload[0]).toBe(9_999 & 255);
  expect(pair.seen.closes).toEqual([]);
});

test("dribbled bytes are no sign of life: the link is dead after six seconds", async () => {
  const clock = new FakeClock();
  const pair = await hostilePair({ ...holds, clock });
  await settle();
  const frame = concatBytes([Uint8Array.of(frameType.data, 0, 0xff, 0xff, 0, 0, 0, 1), new Uint8Array(60_000)]);
  pair.peer.open(1).flush();
  await settle(1);
  for (let at = 0; at < 59; at++) {
    pair.peer.carrier.write(frame.subarray(at, at + 1));
    await settle(1);
    clock.advance(100);
  }
  expect(pair.seen.closes).toEqual([]);
  clock.advance(100);
  expect(pair.seen.closes.map((error) => error?.code)).toEqual(["LINK_IDLE"]);
});

test("DATA for a stream that we reset is dropped up to what was granted, and ends the link beyond", async () => {
  const pair = await hostilePair(holds);
  pair.peer.open(1).flush();
  await settle();
  pair.seen.streams[0]!.reset(new SallyError("CANCELLED"));
  pair.peer.frame(frameType.data, 1, new Uint8Array(64 * 1024));
  await settle();
  expect(pair.seen.closes).toEqual([]);
  pair.peer.frame(frameType.data, 1, new Uint8Array(1));
  await settle();
  expectEnded(pair, "CREDIT_EXCEEDED");
});

test("a slow reader keeps slivers alive, not the chunks that they came in", async () => {
  const parts: Uint8Array[] = [];
  const pair = await hostilePair({
    onStream: (stream) => {
      stream.handler = { onData: (chunk) => void parts.push(chunk), onEnd() {}, onDrain() {}, onClose() {} };
    },
  });
  pair.peer.open(1).open(3);
  for (let i = 0; i < 50; i++) pair.peer.pack(4, 1, new Uint8Array(2)).pack(4, 3, new Uint8Array(1_000));
  pair.peer.flush();
  await settle();
  const kept = new Set(parts.map((part) => part.buffer));
  let bytes = 0;
  for (const buffer of kept) bytes += buffer.byteLength;
  expect(bytes).toBeLessThan(250_000);
});

test("a lane that cannot show that it belongs to the link is dropped, and the link lives", async () => {
  const pair = await hostilePair();
  const signal = new AbortController().signal;
  const { welcome, peerSession } = pair;
  const joinWith = async (payload: Uint8Array): Promise<RawPeer> => {
    await peerSession.openLane(signal);
    const lane = new RawPeer(peerSession.lanes.at(-1)!);
    lane.send(payload);
    while (lane.closeError === undefined && lane.frames.length === 0) await settle(1); // refused or JOINED
    return lane;
  };
  const good = await encodeJoin(welcome.linkId, 1, welcome.laneSecret);
  expect((await joinWith(good)).closeError).toBeUndefined();
  expect(pair.link.laneCount).toBe(2);
  expect((await joinWith(good)).closeError?.code).toBe("LINK_LOST"); // a replay
  const forged = await encodeJoin(welcome.linkId, 2, new Uint8Array(32));
  expect((await joinWith(forged)).closeError?.code).toBe("LINK_LOST");
  const other = await encodeJoin("another", 3, welcome.laneSecret);
  expect((await joinWith(other)).closeError?.code).toBe("LINK_LOST");
  expect(pair.link.laneCount).toBe(2);
  expect(pair.seen.closes).toEqual([]);
});

test("lanes over the limit are dropped, and lanes that say nothing time out", async () => {
  const clock = new FakeClock();
  const pair = await hostilePair({ clock, limits: { lanesPerLinkMax: 4 } });
  const signal = new AbortController().signal;
  for (let i = 0; i < 6; i++) await pair.peerSession.openLane(signal);
  await settle();
  expect(pair.session.lanes.filter((lane) => lane.resetError?.code === "STREAM_LIMIT").length).toBe(3);
  for (let waitedMs = 0; waitedMs < limits.handshakeMs; waitedMs += 1_000) {
    clock.advance(1_000);
    pair.peer.frame(frameType.ping, 0, new Uint8Array(8));
    await settle(1);
  }
  expect(pair.session.lanes.filter((lane) => lane.resetError?.code === "CONNECT_TIMEOUT").length).toBe(3);
  expect(pair.link.laneCount).toBe(1);
  expect(pair.seen.closes).toEqual([]);
});
