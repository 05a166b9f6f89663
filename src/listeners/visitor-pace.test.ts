import { expect, test } from "bun:test";
import { LingerWatch } from "./visitor-pace.ts";

const left = (undeliveredBytes: number) => ({ queuedBytes: 0, undeliveredBytes });

test("an ended connection is over when everything is delivered, or when nothing leaves for too long", () => {
  const watch = new LingerWatch();
  expect(watch.isOver(left(4_000), 0, 1_000)).toBe(false);
  expect(watch.isOver(left(3_000), 900, 1_000)).toBe(false); // slow, but it reads
  expect(watch.isOver(left(2_000), 1_800, 1_000)).toBe(false);
  expect(watch.isOver(left(2_000), 2_700, 1_000)).toBe(false);
  expect(watch.isOver(left(2_000), 2_800, 1_000)).toBe(true);
  expect(new LingerWatch().isOver(left(0), 0, 1_000)).toBe(true);
});
