import { expect, test } from "bun:test";
import { limits } from "../core/limits.ts";
import { ProcessOrder } from "./process-order.ts";

test("only the latest process of a slot is current", () => {
  const order = new ProcessOrder();
  order.note("s", "a");
  expect(order.isSuperseded("s", "a")).toBe(false);
  order.note("s", "b");
  expect(order.isSuperseded("s", "a")).toBe(true);
  expect(order.isSuperseded("s", "b")).toBe(false);
  expect(order.isSuperseded("s", "c")).toBe(false);
  expect(order.isSuperseded("other", "a")).toBe(false);
});

test("remembers a bounded number of slots, and forgets the oldest first", () => {
  const order = new ProcessOrder(2);
  order.note("1", "a");
  order.note("1", "b");
  order.note("2", "a");
  order.note("3", "a");
  expect(order.size).toBe(2);
  expect(order.isSuperseded("1", "a")).toBe(false);
});

test("remembers a bounded number of processes of a slot, the latest ones", () => {
  const order = new ProcessOrder();
  for (let i = 0; i <= limits.processesPerSlot; i++) order.note("s", `p${i}`);
  expect(order.isSuperseded("s", "p0")).toBe(false); // forgotten
  expect(order.isSuperseded("s", "p1")).toBe(true);
  expect(order.isSuperseded("s", `p${limits.processesPerSlot}`)).toBe(false);
});
