import { expect, test } from "bun:test";
import { EarlyPlaces } from "./early-places.ts";
import { FakeClock } from "../../core/fake-clock.ts";

function setUp(max = 2) {
  const clock = new FakeClock();
  const late: string[] = [];
  const places = new EarlyPlaces({ max, holdMs: 1_000, clock });
  return { clock, places, late, take: (name: string) => places.take(() => late.push(name)) };
}

test("there are so many places and no more", () => {
  const { places, take } = setUp();
  expect(take("a")).toBeDefined();
  expect(take("b")).toBeDefined();
  expect(take("c")).toBeUndefined();
  expect(places.taken).toBe(2);
});

test("a session that proves itself leaves its place, once", () => {
  const { clock, places, late, take } = setUp();
  const leave = take("a")!;
  take("b");
  leave();
  leave();
  expect(places.taken).toBe(1);
  expect(take("c")).toBeDefined();
  clock.advance(1_000);
  expect(late).toEqual(["b", "c"]);
  expect([places.taken, clock.pending]).toEqual([0, 0]);
});

test("one that does not keeps it until the time limit, and may leave after it without harm", () => {
  const { clock, places, late, take } = setUp(1);
  const leave = take("a")!;
  clock.advance(999);
  expect(take("b")).toBeUndefined();
  clock.advance(1);
  expect(late).toEqual(["a"]);
  expect(take("c")).toBeDefined();
  leave();
  expect(places.taken).toBe(1);
});
