import { expect, test } from "bun:test";
import { bytesInFront, placeStream, type LaneLoad } from "./placement.ts";

const lanes = (...loads: [loadBytes: number, streamCount: number][]): LaneLoad[] =>
  loads.map(([loadBytes, streamCount]) => ({ loadBytes, streamCount }));

test("over a network the lane with the fewest bytes on the way wins, then the one with fewer streams", () => {
  expect(placeStream(lanes([500, 0], [200, 9], [300, 0]), 50)).toBe(1);
  expect(placeStream(lanes([0, 3], [0, 1], [0, 2]), 50)).toBe(1);
  expect(placeStream(lanes([0, 3], [0, 1], [0, 2]), undefined)).toBe(1);
});

test("on a short round trip streams share a lane until it carries bulk or 64 streams", () => {
  expect(placeStream(lanes([0, 0], [16 * 1024, 63]), 0.3)).toBe(1);
  expect(placeStream(lanes([0, 0], [16 * 1024 + 1, 3]), 0.3)).toBe(0);
  expect(placeStream(lanes([0, 0], [0, 64]), 0.3)).toBe(0);
  expect(placeStream(lanes([0, 64], [0, 64]), 0.3)).toBe(1);
});

test("of equals the last one is taken, so that those in front stay free", () => {
  for (const rttMs of [0.3, 50]) expect(placeStream(lanes([0, 2], [0, 2], [0, 2]), rttMs)).toBe(2);
  expect(placeStream(lanes([0, 2], [0, 2], [90_000, 2], [90_000, 0]), 50)).toBe(1);
});

test("bulk stands in front of the lanes behind it, and of no others; a little does not", () => {
  const shared = [0, 1_000, 90_000, 0].map((ownLoadBytes, at) => ({ index: at * 2, ownLoadBytes }));
  expect(shared.map(({ index }) => bytesInFront(shared, index))).toEqual([0, 0, 0, 91_000]);
});

test("there is no place without lanes", () => expect(placeStream([], 1)).toBe(-1));
