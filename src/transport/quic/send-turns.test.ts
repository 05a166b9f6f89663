import { expect, test } from "bun:test";
import { FakeClock } from "../../core/fake-clock.ts";
import { SendTurns, type TurnTaker } from "./send-turns.ts";

const bufferBytes = 64 * 1024;
let lanesMade = 0;

/** A lane that always has more to say, and asks for a buffer's worth of it. */
class BusyLane implements TurnTaker {
  unsentBytes = 0;
  sentBytes = 0;
  readonly order = ++lanesMade;
  readonly #turns: SendTurns;

  constructor(turns: SendTurns) {
    this.#turns = turns;
  }

  /** node:quic takes writes while its buffer has any room. */
  onTurn(): void {
    while (this.unsentBytes < bufferBytes) {
      const taken = this.#turns.take(this, bufferBytes);
      if (taken === 0) return;
      this.unsentBytes += taken;
      this.#turns.wrote(this, taken);
    }
  }

  /** The connection sent so much of it; a buffer that has room again asks for more. */
  send(byteCount: number): void {
    const wasFull = this.unsentBytes >= bufferBytes;
    const sent = Math.min(byteCount, this.unsentBytes);
    this.unsentBytes -= sent;
    this.sentBytes += sent;
    if (!wasFull || this.unsentBytes >= bufferBytes) return;
    this.#turns.progressed(this);
    this.onTurn();
  }
}

/** One packet after the other, always of the first lane that has bytes: what the library does. */
function sendPackets(lanes: readonly BusyLane[], count: number, each?: () => void, packetBytes = 1_400): void {
  for (let i = 0; i < count; i++) {
    lanes.find((lane) => lane.unsentBytes > 0)?.send(packetBytes);
    each?.();
  }
}

test("lanes that all have something to send get equal shares of a sender that prefers the first", () => {
  const clock = new FakeClock();
  const turns = new SendTurns(clock);
  const lanes = Array.from({ length: 8 }, () => new BusyLane(turns));
  for (const lane of lanes) lane.onTurn();
  sendPackets(lanes, 20_000, () => clock.advance(0.1));
  const shares = lanes.map((lane) => lane.sentBytes);
  expect(Math.min(...shares)).toBeGreaterThan(0.6 * Math.max(...shares));
});

test("a small write waits for nobody, and is overtaken by a bounded number of bytes", () => {
  const clock = new FakeClock();
  const turns = new SendTurns(clock);
  const busy = Array.from({ length: 4 }, () => new BusyLane(turns));
  for (const lane of busy) lane.onTurn();
  sendPackets(busy, 500);
  const small = new BusyLane(turns);
  const lanes = [...busy, small];
  for (let round = 0; round < 50; round++) {
    expect(turns.take(small, 100)).toBe(100);
    small.unsentBytes = 100;
    turns.wrote(small, 100);
    const before = busy.reduce((sum, lane) => sum + lane.sentBytes, 0);
    for (let packets = 0; small.unsentBytes > 0; packets++) {
      expect(packets).toBeLessThan(1_000);
      const next = lanes.find((lane) => lane.unsentBytes > 0)!; // the small one has
      if (next === small) small.unsentBytes = 0; // nobody is told
      else next.send(1_400);
    }
    const overtaken = busy.reduce((sum, lane) => sum + lane.sentBytes, 0) - before;
    expect(overtaken).toBeLessThanOrEqual(128 * 1024 + (busy.length + 1) * bufferBytes);
    for (let ms = 0; ms < 200 && busy.every((lane) => lane.unsentBytes === 0); ms++) clock.advance(1);
    expect(busy.some((lane) => lane.unsentBytes > 0)).toBe(true); // the others go on
    sendPackets(busy, 7);
  }
});

/** A library that keeps less than a packet back while a lane before that one has anything. */
class KeepingLane extends BusyLane {
  keptBytes = 0;

  keep(packetBytes: number): void {
    if (this.unsentBytes === 0 || this.unsentBytes >= packetBytes) return;
    this.keptBytes += this.unsentBytes;
    this.send(this.unsentBytes);
  }

  /** Uses the line for one packet, if there is something to send. */
  sendPacket(packetBytes: number): boolean {
    if (this.unsentBytes < packetBytes) {
      const hadSome = this.keptBytes > 0;
      this.keptBytes = 0;
      return hadSome;
    }
    this.send(packetBytes);
    return true;
  }
}

/** Lanes on a line, the small one opened last; a millisecond at a time. */
class Line {
  readonly clock = new FakeClock();
  readonly turns = new SendTurns(this.clock);
  readonly busy: readonly KeepingLane[];
  readonly small: KeepingLane;
  sentBytes = 0;
  idleBytes = 0;
  readonly #lanes: readonly KeepingLane[];
  bytesPerMs: number;
  #creditBytes = 0;

  constructor(bytesPerMs: number, busyLanes: number, isSmallFirst = false) {
    this.bytesPerMs = bytesPerMs;
    const lanes = Array.from({ length: busyLanes + 1 }, () => new KeepingLane(this.turns));
    this.#lanes = lanes;
    this.small = lanes.at(isSmallFirst ? 0 : -1)!; // there is one
    this.small.onTurn = () => {};
    this.busy = lanes.filter((lane) => lane !== this.small);
    for (const lane of this.busy) lane.onTurn();
  }

  say(byteCount: number): void {
    const taken = this.turns.take(this.small, byteCount);
    this.small.unsentBytes += taken;
    this.turns.wrote(this.small, taken);
  }

  /** Lets so many milliseconds pass, or fewer; returns how many. */
  pass(ms: number, until: () => boolean = () => false): number {
    for (let i = 0; i < ms; i++) {
      if (until()) return i;
      for (this.#creditBytes += this.bytesPerMs; this.#creditBytes >= 1_400; this.#creditBytes -= 1_400) {
        for (const lane of this.#lanes) lane.keep(1_400);
        if (this.#lanes.some((lane) => lane.sendPacket(1_400))) this.sentBytes += 1_400;
        else this.idleBytes += 1_400;
      }
      this.clock.advance(1);
    }
    return ms;
  }

  get hasSmallLeft(): boolean {
    return this.small.unsentBytes === 0 && this.small.keptBytes === 0;
  }
}

test.each([
  [40, 1],
  [125, 1],
  [125, 3],
  [1_400, 3],
  [12_000, 1],
  [12_000, 7],
])(
  "the end of a write that the library keeps back leaves soon, at %d bytes a ms beside %d",
  (bytesPerMs, busyLanes) => {
    const line = new Line(bytesPerMs, busyLanes);
    line.pass(2_000);
    line.sentBytes = 0;
    line.idleBytes = 0;
    for (let i = 0; i < 50; i++) {
      line.say(700);
      expect(line.pass(5_000, () => line.hasSmallLeft)).toBeLessThan(100 + (60 * 1_400) / bytesPerMs);
    }
    expect(line.idleBytes).toBeLessThan(0.3 * line.sentBytes);
  },
);

test("a lane that goes first costs the others nothing", () => {
  const line = new Line(1_400, 3, true);
  line.pass(2_000);
  line.idleBytes = 0;
  for (let i = 0; i < 200; i++) {
    line.say(700);
    line.pass(20);
  }
  expect(line.idleBytes).toBeLessThan(0.01 * line.sentBytes);
});

test("a lane that trickles gets through as well", () => {
  const line = new Line(500, 1);
  let longestMs = 0;
  let sinceMs = 0;
  for (let ms = 0; ms < 10_000; ms++) {
    if (ms % 20 === 0) line.say(20);
    line.pass(1);
    if (line.hasSmallLeft) sinceMs = ms;
    longestMs = Math.max(longestMs, ms - sinceMs);
  }
  expect(longestMs).toBeLessThan(500);
});

test("what says something now and then leaves the others most of a slow line", () => {
  const line = new Line(125, 2);
  line.pass(2_000);
  line.sentBytes = line.idleBytes = 0;
  let longestMs = 0;
  for (let i = 0; i < 200; i++) {
    line.say(100);
    line.pass(120);
    longestMs = Math.max(
      longestMs,
      line.pass(5_000, () => line.hasSmallLeft),
    );
  }
  expect(line.idleBytes).toBeLessThan(0.06 * line.sentBytes);
  expect(longestMs).toBeLessThan(1_000);
});

test("lanes look less often while nothing leaves, and at once when something does", () => {
  let looks = 0;
  const clock = new FakeClock();
  const counting = {
    ...clockOf(clock),
    after: (ms: number, look: () => void) => clock.after(ms, () => (looks++, look())),
  };
  const turns = new SendTurns(counting);
  const lanes = Array.from({ length: 3 }, () => new BusyLane(turns));
  for (const lane of lanes) lane.onTurn();
  for (let ms = 0; ms < 2_000; ms++) clock.advance(1);
  looks = 0;
  for (let ms = 0; ms < 1_000; ms++) clock.advance(1);
  expect(looks).toBeGreaterThan(50);
  expect(looks).toBeLessThan(80);
  looks = 0;
  for (let ms = 0; ms < 100; ms++) {
    sendPackets(lanes, 1);
    clock.advance(1);
  }
  expect(looks).toBeGreaterThan(70);
});

function clockOf(clock: FakeClock): Pick<FakeClock, "wallMs" | "nowMs"> {
  return { wallMs: () => clock.wallMs(), nowMs: () => clock.nowMs() };
}

test("on a fast line the ends of writes never stop the others for long", () => {
  const line = new Line(28_000, 3);
  for (let ms = 0; ms < 2_000; ms++) {
    line.say(300);
    line.pass(1);
    if (ms === 1_000) line.sentBytes = line.idleBytes = 0;
  }
  expect(line.idleBytes).toBeLessThan(0.25 * line.sentBytes);
});

test("when the line gets slow, what is ahead of it falls within a second", () => {
  for (const busyLanes of [2, 3, 8]) {
    const fast = new Line(12_500, busyLanes);
    fast.pass(1_000);
    fast.bytesPerMs = 250;
    fast.pass(1_000);
    for (let ms = 0; ms < 1_000; ms++) {
      fast.pass(1);
      expect(fast.busy.reduce((sum, lane) => sum + lane.unsentBytes, 0)).toBeLessThanOrEqual(32 * 1024);
    }
  }
});

test("all lanes together are ahead of the line by what it sends in a moment", () => {
  const aheadAt = (bytesPerMs: number): number => {
    const clock = new FakeClock();
    const turns = new SendTurns(clock);
    const lanes = Array.from({ length: 8 }, () => new BusyLane(turns));
    for (const lane of lanes) lane.onTurn();
    let mostBytes = 0;
    for (let ms = 0; ms < 400; ms++) {
      for (let left = bytesPerMs; left > 0; left -= 1_000) sendPackets(lanes, 1, () => {}, Math.min(left, 1_000));
      clock.advance(1);
      const unsentBytes = lanes.reduce((sum, lane) => sum + lane.unsentBytes, 0);
      if (ms > 100) mostBytes = Math.max(mostBytes, unsentBytes);
    }
    return mostBytes;
  };
  expect(aheadAt(50)).toBeLessThanOrEqual(32 * 1024);
  const most = aheadAt(4_000);
  expect(most).toBeGreaterThan(100_000);
  expect(most).toBeLessThanOrEqual(50 * 4_000 * 1.1);
});

test("many small writes of a lane wait as a large one does", () => {
  const turns = new SendTurns(new FakeClock());
  const lane = new BusyLane(turns);
  for (let i = 0; i < 100; i++) {
    const taken = turns.take(lane, 4 * 1024);
    lane.unsentBytes += taken;
    if (taken > 0) turns.wrote(lane, taken);
  }
  expect(lane.unsentBytes).toBeLessThanOrEqual(16 * 1024);
});

test("a lane that is over holds nobody back", () => {
  const clock = new FakeClock();
  const turns = new SendTurns(clock);
  const tick = (): void => clock.advance(0.1);
  const [first, stuck, third] = [new BusyLane(turns), new BusyLane(turns), new BusyLane(turns)];
  for (const lane of [first, stuck, third]) lane.onTurn();
  sendPackets([first, third], 10_000, tick); // the second one's bytes never leave
  const before = first.sentBytes + third.sentBytes;
  sendPackets([first, third], 100, tick);
  expect(first.sentBytes + third.sentBytes).toBe(before);
  turns.leave(stuck);
  sendPackets([first, third], 1_000, tick);
  expect(first.sentBytes + third.sentBytes).toBeGreaterThan(before + 1_000_000);
});

test("nothing ticks once nobody waits", () => {
  const clock = new FakeClock();
  const turns = new SendTurns(clock);
  const lanes = [new BusyLane(turns), new BusyLane(turns), new BusyLane(turns)];
  for (const lane of lanes) lane.onTurn();
  lanes[0]!.send(bufferBytes); // it asks for more, behind the other two
  expect(clock.pending).toBe(1);
  for (const lane of lanes) {
    lane.unsentBytes = 0;
    turns.leave(lane);
  }
  clock.advance(1);
  expect(clock.pending).toBe(0);
});
