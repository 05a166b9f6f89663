import { expect, test } from "bun:test";
import { LineRate } from "./line-rate.ts";

/** Looks each millisecond for so long, while the line sends so much a millisecond. */
function busy(rate: LineRate, from: { nowMs: number; sentBytes: number }, ms: number, bytesPerMs: number): void {
  for (let i = 0; i < ms; i++) {
    from.nowMs++;
    from.sentBytes += bytesPerMs;
    rate.observe(from.nowMs, from.sentBytes, 10_000);
  }
}

test("the rate is that of the line, and follows it up and down", () => {
  const at = { nowMs: 0, sentBytes: 0 };
  const rate = new LineRate(0);
  expect(rate.bytesPerMs).toBeUndefined();
  busy(rate, at, 20, 125);
  expect(rate.bytesPerMs).toBe(125);
  for (const bytesPerMs of [4_000, 125]) {
    busy(rate, at, 1_000, bytesPerMs);
    expect(rate.bytesPerMs).toBeGreaterThan(0.9 * bytesPerMs);
    expect(rate.bytesPerMs).toBeLessThan(1.1 * bytesPerMs);
  }
});

test("a time without anything to send does not lower it, and after a second it is not known any more", () => {
  const at = { nowMs: 0, sentBytes: 0 };
  const rate = new LineRate(0);
  busy(rate, at, 200, 4_000);
  rate.observe(at.nowMs + 10, at.sentBytes, 0); // all has left
  rate.observe(at.nowMs + 30, at.sentBytes + 100, 0);
  rate.observe(at.nowMs + 300, at.sentBytes + 200, 5_000); // nobody looked for a while
  expect(rate.bytesPerMs).toBe(4_000);
  rate.observe(at.nowMs + 1_300, at.sentBytes + 300, 5_000);
  expect(rate.bytesPerMs).toBeUndefined();
});

test("a pause that was made on purpose does not count", () => {
  const at = { nowMs: 0, sentBytes: 0 };
  const rate = new LineRate(0);
  busy(rate, at, 200, 1_000);
  at.nowMs += 50;
  rate.skip(50);
  busy(rate, at, 20, 1_000);
  expect(rate.bytesPerMs).toBe(1_000);
});
