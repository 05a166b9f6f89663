import { expect, test } from "bun:test";
import { FakeClock } from "../../core/fake-clock.ts";
import { SendTurns, type TurnTaker } from "./send-turns.ts";

const bufferBytes = 64 * 1024;

/** A lane that always has more to say, and asks for a buffer's worth of it. */
class BusyLane implements TurnTaker {
  unsentBytes = 0;
  sentBytes = 0;
  readonly #turns: SendTurns;

  constructor(turns: SendTurns) {
    this.#turns = turns;
  }

  onTurn(): void {
    if (this.unsentBytes > 0) return;
    this.unsentBytes = this.#turns.take(this, bufferBytes);
    if (this.unsentBytes > 0) this.#turns.wrote(this, this.unsentBytes);
  }

  /** The connection sent so much of it; a half-empty buffer asks for more. */
  send(byteCount: number): void {
    const sent = Math.min(byteCount, this.unsentBytes);
    this.unsentBytes -= sent;
    this.sentBytes += sent;
    if (this.unsentBytes > 0) return;
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
  const turns = new SendTurns(new FakeClock());
  const lanes = Array.from({ length: 8 }, () => new BusyLane(turns));
  for (const lane of lanes) lane.onTurn();
  sendPackets(lanes, 20_000);
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

test("the end of a write that the library keeps back leaves soon, and the line does not idle for it", () => {
  const clock = new FakeClock();
  const turns = new SendTurns(clock);
  const busy = Array.from({ length: 3 }, () => new KeepingLane(turns));
  const last = new KeepingLane(turns);
  const lanes = [...busy, last];
  last.onTurn = () => {};
  for (const lane of busy) lane.onTurn();
  let idleMs = 0;
  const sendFor = (ms: number, until: () => boolean): number => {
    for (let i = 0; i < ms; i++) {
      if (until()) return i;
      for (const lane of lanes) lane.keep(1_400);
      if (!lanes.some((lane) => lane.sendPacket(1_400))) idleMs++;
      clock.advance(1);
    }
    return ms;
  };
  sendFor(500, () => false);
  idleMs = 0;
  let tookMs = 0;
  for (let i = 0; i < 50; i++) {
    last.unsentBytes = turns.take(last, 700);
    turns.wrote(last, 700);
    const took = sendFor(5_000, () => last.unsentBytes === 0 && last.keptBytes === 0);
    expect(took).toBeLessThan(300);
    tookMs += took;
  }
  expect(idleMs).toBeLessThan(0.2 * tookMs);
});

test("on a fast line the ends of writes never stop the others for long", () => {
  const clock = new FakeClock();
  const turns = new SendTurns(clock);
  const busy = Array.from({ length: 3 }, () => new KeepingLane(turns));
  const small = new KeepingLane(turns);
  small.onTurn = () => {};
  for (const lane of busy) lane.onTurn();
  const lanes = [...busy, small];
  let sentBytes = 0;
  for (let ms = 0; ms < 2_000; ms++) {
    for (let packet = 0; packet < 20; packet++) {
      for (const lane of lanes) lane.keep(1_400);
      if (lanes.some((lane) => lane.sendPacket(1_400))) sentBytes += 1_400;
    }
    const taken = turns.take(small, 300);
    small.unsentBytes += taken;
    turns.wrote(small, taken);
    if (ms === 1_000) sentBytes = 0;
    clock.advance(1);
  }
  expect(sentBytes).toBeGreaterThan(0.8 * 1_000 * 20 * 1_400);
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
  const turns = new SendTurns(new FakeClock());
  const [first, stuck, third] = [new BusyLane(turns), new BusyLane(turns), new BusyLane(turns)];
  for (const lane of [first, stuck, third]) lane.onTurn();
  sendPackets([first, third], 10_000); // the second one's bytes never leave
  const before = first.sentBytes + third.sentBytes;
  sendPackets([first, third], 100);
  expect(first.sentBytes + third.sentBytes).toBe(before);
  turns.leave(stuck);
  sendPackets([first, third], 1_000);
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
