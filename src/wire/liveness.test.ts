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

function setUp(laneCount: number) {
  const clock = new FakeClock();
  const lanes = Array.from({ length: laneCount }, () => new FakeLane());
  const dead: (WatchedLane | "link")[] = [];
  const doubtedMs: number[] = [];
  const liveness = new Liveness({
    clock,
    limits,
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

test("a link is asked for a sign of life after two seconds of silence, not before, and once", () => {
  const { clock, lanes, dead } = setUp(2);
  clock.advance(limits.pingAfterMs - 1);
  expect(lanes.map(({ pings }) => pings)).toEqual([0, 0]);
  clock.advance(1);
  expect(lanes.map(({ pings }) => pings)).toEqual([1, 0]);
  clock.advance(limits.linkDeadAfterMs - limits.pingAfterMs - 1);
  expect(lanes.map(({ pings }) => pings)).toEqual([1, 0]);
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
