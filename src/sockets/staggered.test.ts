import { describe, expect, test } from "bun:test";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import { alternate } from "./resolve-host.ts";
import { staggered } from "./staggered.ts";

async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await Promise.resolve();
}

function setUp(count: number) {
  const clock = new FakeClock();
  const abort = new AbortController();
  const deferreds = Array.from({ length: count }, () => Promise.withResolvers<string>());
  const started: { readonly index: number; readonly signal: AbortSignal }[] = [];
  const discarded: string[] = [];
  const race = staggered({
    attempts: deferreds.map((deferred, index) => (signal) => {
      started.push({ index, signal });
      return deferred.promise;
    }),
    staggerMs: limits.nextAddressAfterMs,
    clock,
    signal: abort.signal,
    discard: (late) => void discarded.push(late),
  });
  const outcome = race.then(
    (value) => value,
    (error: unknown) => error,
  );
  return { clock, abort, deferreds, started, discarded, outcome };
}

describe("staggered", () => {
  test("the second way starts after the pause, the first success wins and the late one is discarded", async () => {
    const { clock, deferreds, started, discarded, outcome } = setUp(2);
    expect(started).toHaveLength(1);
    clock.advance(249);
    expect(started).toHaveLength(1);
    clock.advance(1);
    expect(started).toHaveLength(2);
    deferreds[1]!.resolve("second");
    expect(await outcome).toBe("second");
    expect(started[0]!.signal.aborted).toBe(true);
    deferreds[0]!.resolve("first");
    await settle();
    expect(discarded).toEqual(["first"]);
    expect(clock.pending).toBe(0);
  });

  test("a failure starts the next at once, and all failures are reported together in order", async () => {
    const { clock, deferreds, started, outcome } = setUp(3);
    deferreds[0]!.reject(new Error("a"));
    await settle();
    expect(started).toHaveLength(2);
    clock.advance(250);
    expect(started).toHaveLength(3);
    deferreds[2]!.reject(new Error("c"));
    deferreds[1]!.reject(new Error("b"));
    const error = await outcome;
    expect(error).toBeInstanceOf(AggregateError);
    expect((error as AggregateError).errors.map(String)).toEqual(["Error: a", "Error: b", "Error: c"]);
    expect(clock.pending).toBe(0);
  });

  test("cancelling rejects with the reason and cancels what runs", async () => {
    const { clock, abort, started, outcome } = setUp(2);
    abort.abort(new Error("stop"));
    expect(String(await outcome)).toBe("Error: stop");
    expect(started[0]!.signal.aborted).toBe(true);
    clock.advance(1_000);
    expect(started).toHaveLength(1);
  });
});

test("addresses alternate between the families, the resolver's favourite first", () => {
  const found = ["2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::1"].map((address) => ({
    address,
    family: address.includes(":") ? 6 : 4,
  }));
  expect(alternate(found)).toEqual(["2001:db8::1", "192.0.2.1", "2001:db8::2"]);
});
