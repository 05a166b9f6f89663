import { expect, test } from "bun:test";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import { Liveness, type WatchedLane } from "./liveness.ts";

class FakeLane implements WatchedLane {
  heardMs = 0;
  pingedMs: number | undefined;
  awaitsPeer = false;
  pings = 0;

  ping(): void {
    this.pings++;
  }

  nudge(): void {}

  hear(nowMs: number): void {
    this.heardMs = nowMs;
    this.pingedMs = undefined;
  }
}

function setUp(laneCount: number, lanesShareLine = false) {
  const clock = new FakeClock();
  const lanes = Array.from({ length: laneCount }, () => new FakeLane());
  const dead: (WatchedLane | "link")[] = [];
  const doubtedMs: number[] = [];
  const liveness = new Liveness({
    clock,
    limits,
    lanesShareLine,
    lanes: () => lanes,
    onLaneDead: (lane) => void dead.push(lane),
    onLinkDead: () => void dead.push("link"),
    onDoubt: () => void doubtedMs.push(clock.nowMs()),
  });
  liveness.start(); // asks at once, to measure the round trip
  for (const lane of lanes) {
    lane.hear(0);
    lane.pings = 0;
  }
  return { clock, lanes, dead, doubtedMs, liveness };
}

test("a link is asked for a sign of life after two seconds of silence, not before, and again each second", () => {
  const { clock, lanes, dead } = setUp(2);
  clock.advance(limits.pingAfterMs - 1);
  expect(lanes.map(({ pings }) => pings)).toEqual([0, 0]);
  clock.advance(1);
  expect(lanes.map(({ pings }) => pings)).toEqual([1, 0]);
  clock.advance(limits.doubtAfterMs);
  expect(lanes.map(({ pings }) => pings)).toEqual([2, 0]);
  clock.advance(limits.linkDeadAfterMs - limits.pingAfterMs - limits.doubtAfterMs - 1);
  expect(lanes.map(({ pings }) => pings)).toEqual([4, 0]);
  expect(dead).toEqual([]);
  clock.advance(1);
  expect(dead).toEqual(["link"]);
});

test("any other lane is asked when the peer owes it something, and given up alone", () => {
  const { clock, lanes, dead } = setUp(2);
  const [first, second] = lanes as [FakeLane, FakeLane];
  second.awaitsPeer = true;
  const pass = (ms: number): void => {
    for (let passedMs = 0; passedMs < ms; passedMs += 100) {
      clock.advance(100);
      first.hear(clock.nowMs());
    }
  };
  pass(limits.pingAfterMs - 100);
  expect(second.pings).toBe(0);
  pass(100);
  expect(second.pings).toBe(1);
  pass(limits.linkDeadAfterMs - limits.pingAfterMs - 100);
  expect(dead).toEqual([]);
  pass(100);
  expect(dead).toEqual([second]);
});

test("a lane that is silent alone is given longer on a line with long round trips, and where lanes share a connection", () => {
  const lives = ({ clock, lanes, dead }: ReturnType<typeof setUp>): number => {
    lanes[1]!.awaitsPeer = true;
    while (dead.length === 0) {
      clock.advance(100);
      lanes[0]!.hear(clock.nowMs());
    }
    expect(dead).toEqual([lanes[1]!]);
    return clock.nowMs();
  };
  expect(lives(setUp(2))).toBe(limits.linkDeadAfterMs);
  const slow = setUp(2);
  slow.liveness.onRoundTrip(2_000);
  expect(lives(slow)).toBe(limits.pingAfterMs + 4 * 2_000);
  expect(lives(setUp(2, true))).toBe(limits.sharedLaneDeadAfterMs);
});

test("the first lane, too, is asked once when it is silent alone: more would look like a silent link", () => {
  const { clock, lanes } = setUp(2, true);
  lanes[0]!.awaitsPeer = true;
  for (let atMs = 0; atMs < limits.sharedLaneDeadAfterMs - 500; atMs += 500) {
    clock.advance(500);
    lanes[1]!.hear(clock.nowMs());
  }
  expect(lanes[0]!.pings).toBe(1);
});

test("a PING without an answer puts the link in doubt after a second, or after several round trips", () => {
  const quick = setUp(1);
  quick.clock.advance(limits.pingAfterMs + limits.doubtAfterMs - 1);
  expect(quick.doubtedMs).toEqual([]);
  quick.clock.advance(1);
  expect(quick.doubtedMs).toEqual([limits.pingAfterMs + limits.doubtAfterMs]);
  const slow = setUp(1);
  slow.liveness.onRoundTrip(500);
  slow.clock.advance(5_000);
  expect(slow.doubtedMs).toEqual([limits.pingAfterMs + 2_000]);
});

test("a link whose peer lives elsewhere is asked at once, and dies later than others", () => {
  const { clock, lanes, dead, doubtedMs, liveness } = setUp(2);
  lanes[1]!.awaitsPeer = true;
  clock.advance(100);
  liveness.bear();
  liveness.bear();
  expect(lanes[0]!.pings).toBe(1);
  clock.advance(limits.doubtAfterMs);
  expect(doubtedMs).toEqual([100 + limits.doubtAfterMs]);
  expect(liveness.isInDoubt).toBe(true);
  clock.advance(limits.retiredDeadAfterMs - limits.doubtAfterMs - 101);
  expect(dead).toEqual([]);
  clock.advance(1);
  expect(dead).toEqual(["link"]);
});

test("a peer that says PING again is not hearing us: without a PONG the link is in doubt, although it is heard", () => {
  const { clock, lanes, doubtedMs, liveness } = setUp(1);
  const [lane] = lanes as [FakeLane];
  const pass = (ms: number): void => {
    for (let passedMs = 0; passedMs < ms; passedMs += 100) {
      clock.advance(100);
      lane.hear(clock.nowMs());
    }
  };
  /** How often it is asked back, at once. */
  const asksBack = (times: number): number => {
    const before = lane.pings;
    for (let i = 0; i < times; i++) liveness.onPeerPing(lane);
    return lane.pings - before;
  };
  expect(asksBack(1)).toBe(0);
  pass(limits.pingAfterMs);
  expect(asksBack(1)).toBe(0); // as it does on a quiet link
  pass(limits.pingAfterMs);
  for (const isAnswered of [true, false]) {
    expect(asksBack(1)).toBe(0);
    pass(limits.doubtAfterMs);
    expect(asksBack(2)).toBe(1);
    if (isAnswered) liveness.onRoundTrip(20);
    pass(limits.doubtAfterMs + 500);
    expect(liveness.isInDoubt).toBe(!isAnswered);
  }
  expect(doubtedMs).toHaveLength(1);
  liveness.onRoundTrip(-1); // whatever it says, it answers
  pass(500);
  expect(liveness.isInDoubt).toBe(false);
  expect(liveness.rttMs).toBe(20);
});

test("a PING that was lost with its lane leaves no doubt behind", () => {
  const { clock, lanes, doubtedMs, liveness } = setUp(2);
  const [first, second] = lanes as [FakeLane, FakeLane];
  liveness.onPeerPing(first);
  liveness.onPeerPing(first);
  lanes.shift();
  for (let passedMs = 0; passedMs < 5_000; passedMs += 100) {
    clock.advance(100);
    second.hear(clock.nowMs());
  }
  expect(doubtedMs).toEqual([]);
});

test("doubt ends when the link is heard", () => {
  const { clock, lanes, liveness } = setUp(1);
  clock.advance(limits.pingAfterMs + limits.doubtAfterMs);
  expect(liveness.isInDoubt).toBe(true);
  lanes[0]!.hear(clock.nowMs());
  clock.advance(500);
  expect(liveness.isInDoubt).toBe(false);
});

test("the round trip is measured often at first; what is shorter than expected counts more", () => {
  const { clock, lanes, liveness } = setUp(1);
  const [lane] = lanes as [FakeLane];
  const askedMs: number[] = [];
  lane.ping = () => void askedMs.push(clock.nowMs());
  for (let atMs = 0; atMs < 30_000; atMs += 500) {
    clock.advance(500);
    lane.hear(clock.nowMs());
  }
  expect(askedMs).toEqual([2_000, 6_000, 10_000, 14_000, 18_000, 22_000, 26_000, 30_000]);
  for (const sampleMs of [400, 20, 20, 20]) liveness.onRoundTrip(sampleMs);
  expect(liveness.rttMs).toBe(67.5);
  liveness.onRoundTrip(67.5 + 800);
  expect(liveness.rttMs).toBe(267.5);
});

test("a link that is suspected is dead two seconds later, unless it is heard", () => {
  const { clock, lanes, dead, liveness } = setUp(1);
  clock.advance(100);
  liveness.suspect();
  expect(lanes[0]!.pings).toBe(1);
  clock.advance(limits.suspectDeadAfterMs - 1);
  expect(dead).toEqual([]);
  lanes[0]!.hear(clock.nowMs());
  clock.advance(1);
  expect(dead).toEqual([]);
  liveness.suspect();
  clock.advance(limits.suspectDeadAfterMs);
  expect(dead).toEqual(["link"]);
});
