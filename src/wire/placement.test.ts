import { expect, test } from "bun:test";
import { placeStream, type LaneLoad } from "./placement.ts";

const lanes = (...loads: [loadBytes: number, streamCount: number][]): LaneLoad[] =>
  loads.map(([loadBytes, streamCount]) => ({ loadBytes, streamCount }));

test("over a network the lane with the fewest bytes on the way wins, then the one with fewer streams", () => {
  expect(placeStream(lanes([500, 0], [200, 9], [300, 0]), 50)).toBe(1);
  expect(placeStream(lanes([0, 3], [0, 1], [0, 2]), 50)).toBe(1);
  expect(placeStream(lanes([0, 3], [0, 1], [0, 2]), undefined)).toBe(1);
});

test("on a short round trip streams share a lane until it carries bulk or 64 streams", () => {
  expect(placeStream(lanes([16 * 1024, 63], [0, 0]), 0.3)).toBe(0);
  expect(placeStream(lanes([16 * 1024 + 1, 3], [0, 0]), 0.3)).toBe(1);
  expect(placeStream(lanes([0, 64], [0, 0]), 0.3)).toBe(1);
  expect(placeStream(lanes([0, 64], [0, 64]), 0.3)).toBe(0);
});

test("there is no place without lanes", () => expect(placeStream([], 1)).toBe(-1));
