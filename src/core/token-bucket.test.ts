import { expect, test } from "bun:test";
import { FakeClock } from "./fake-clock.ts";
import { TokenBucket } from "./token-bucket.ts";

test("a bucket starts full, fills with time and holds no more than its burst", () => {
  const clock = new FakeClock();
  const bucket = new TokenBucket({ clock, burst: 10, perSecond: 2 });
  expect(bucket.spend(10)).toBe(0);
  expect(bucket.waitMs(3)).toBe(1_500);
  clock.advance(1_500);
  expect([bucket.tokens, bucket.waitMs(3)]).toEqual([3, 0]);
  clock.advance(60_000);
  expect(bucket.tokens).toBe(10);
});

test("an overdrawn bucket fills from below, and nobody waits for more than it holds", () => {
  const clock = new FakeClock();
  const bucket = new TokenBucket({ clock, burst: 10, perSecond: 2 });
  expect(bucket.spend(14)).toBe(-4);
  expect(bucket.waitMs(1)).toBe(2_500);
  expect(bucket.waitMs(1_000)).toBe(7_000);
});
