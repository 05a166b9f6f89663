import { expect, test } from "bun:test";
import { FakeClock } from "../../core/fake-clock.ts";
import { SendTurns, type TurnTaker } from "./send-turns.ts";

const bufferBytes = 64 * 1024;

/** A lane that always has more to say, in pieces of the buffer's size. */
class BusyLane implements TurnTaker {
  unsentBytes = 0;
  sentBytes = 0;
  readonly #turns: SendTurns;

  constructor(turns: SendTurns) {
    this.#turns = turns;
  }

  onTurn(): void {
    if (this.unsentBytes > 0 || !this.#turns.mayWrite(this, bufferBytes)) return;
    this.unsentBytes = bufferBytes;
    this.#turns.wrote(this, bufferBytes);
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
function sendPackets(lanes: readonly BusyLane[], count: number, each?: () => void): void {
  for (let i = 0; i < count; i++) {
    lanes.find((lane) => lane.unsentBytes > 0)?.send(1_400);
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
    expect(turns.mayWrite(small, 100)).toBe(true);
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
    clock.advance(1);
    expect(busy.some((lane) => lane.unsentBytes > 0)).toBe(true); // the others go on
    sendPackets(busy, 7);
  }
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
