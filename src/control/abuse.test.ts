import { describe, expect, test } from "bun:test";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { RateLimiter, NonceMemory } from "./abuse.ts";

function codeOf(work: () => void): string {
  try {
    work();
    return "none";
  } catch (error) {
    return error instanceof SallyError ? error.code : String(error);
  }
}

describe("nonces", () => {
  test("count once while they are remembered", () => {
    const clock = new FakeClock();
    const nonces = new NonceMemory({ clock, keepMs: 100, max: 10 });
    expect([nonces.use("a"), nonces.use("a"), nonces.use("b")]).toEqual([true, false, true]);
    clock.advance(99);
    expect(nonces.use("a")).toBe(false);
    clock.advance(1);
    expect(nonces.use("a")).toBe(true);
  });

  test("are refused when the memory is full, and none is forgotten before its time", () => {
    const clock = new FakeClock();
    const nonces = new NonceMemory({ clock, keepMs: 100, max: 2 });
    nonces.use("a");
    nonces.use("b");
    expect(codeOf(() => void nonces.use("c"))).toBe("OVERLOADED");
    expect(nonces.use("a")).toBe(false);
    clock.advance(100);
    expect(nonces.use("c")).toBe(true);
    expect(nonces.size).toBe(1);
  });
});

describe("requests of one address", () => {
  test("are admitted up to the limit of a minute", () => {
    const clock = new FakeClock();
    const limiter = new RateLimiter({ clock, perMinute: 2, keysMax: 10 });
    const admit = (address: string): string => codeOf(() => limiter.admit(address));
    expect([admit("192.0.2.1"), admit("192.0.2.1"), admit("192.0.2.1")]).toEqual(["none", "none", "RATE_LIMITED"]);
    expect(admit("192.0.2.2")).toBe("none");
    clock.advance(59_999);
    expect(admit("192.0.2.1")).toBe("RATE_LIMITED");
    clock.advance(1);
    expect(admit("192.0.2.1")).toBe("none");
  });

  test("are counted for a bounded number of addresses", () => {
    const limiter = new RateLimiter({ clock: new FakeClock(), perMinute: 1, keysMax: 3 });
    for (let i = 0; i < 10; i++) limiter.admit(`192.0.2.${i}`);
    expect(limiter.size).toBe(3);
    expect(codeOf(() => limiter.admit("192.0.2.9"))).toBe("RATE_LIMITED");
  });
});
