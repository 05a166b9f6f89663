import { expect, test } from "bun:test";
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
