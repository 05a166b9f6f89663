import { expect, test } from "bun:test";
import { FairSlots } from "./fair-slots.ts";

/** Takes places by name, such as "a1" for the first of group a, and notes who had to give up. */
function setUp(max: number, goes: "oldest" | "newest" = "oldest") {
  const slots = new FairSlots(max, goes);
  const lost: string[] = [];
  const take = (name: string): (() => void) => slots.take(name[0]!, () => void lost.push(name));
  return { slots, lost, take };
}

test("one group may have every place while nobody else wants one", () => {
  const { slots, lost, take } = setUp(3);
  for (const name of ["a1", "a2", "a3"]) take(name);
  expect([slots.taken, lost]).toEqual([3, []]);
});

test("one past the limit costs the largest group its oldest place, and the newcomer gets in", () => {
  const { slots, lost, take } = setUp(3);
  for (const name of ["b1", "a1", "a2", "c1", "d1"]) take(name);
  expect(lost).toEqual(["a1", "b1"]);
  expect(slots.taken).toBe(3);
});

test("a group that asks for more than the others loses to itself", () => {
  const { lost, take } = setUp(4);
  for (const name of ["b1", "a1", "a2", "a3", "a4", "a5"]) take(name);
  expect(lost).toEqual(["a1", "a2"]);
});

test("groups with a place each take turns, the oldest first", () => {
  const { lost, take } = setUp(2);
  for (const name of ["a1", "b1", "c1", "d1"]) take(name);
  expect(lost).toEqual(["a1", "b1"]);
});

test("a place that was left is free, once", () => {
  const { slots, lost, take } = setUp(2);
  const leave = take("a1");
  take("a2");
  leave();
  leave();
  expect(slots.taken).toBe(1);
  take("b1");
  expect(lost).toEqual([]);
  take("b2");
  expect(lost).toEqual(["b1"]);
});

test("a place that was given up needs no leaving", () => {
  const { slots, take } = setUp(1);
  const leave = take("a1");
  take("b1");
  leave();
  expect(slots.taken).toBe(1);
});

test("where the newest goes, what was begun is kept from those that come later", () => {
  const { slots, lost, take } = setUp(3, "newest");
  for (const name of ["a1", "b1", "c1", "d1", "a2"]) take(name);
  expect([slots.taken, lost]).toEqual([3, ["d1", "a2"]]);
});

test("where the newest goes, a group with less than others still gets its place", () => {
  const { lost, take } = setUp(4, "newest");
  for (const name of ["a1", "a2", "a3", "a4", "a5", "b1", "b2", "b3"]) take(name);
  expect(lost).toEqual(["a5", "a4", "a3", "b3"]);
});
