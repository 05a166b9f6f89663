/** Streams that are opened on a full link: they wait for a place, then for window, and never open one too many. */

import { expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import type { IncomingStream } from "./link.ts";
import { linkPair, record, settle, type LinkPair, type Recording } from "./testing/link-pair.ts";
import { WindowBudget } from "./window-budget.ts";

const http = { tunnel: "demo", protocol: "http" } as const;
const initial = limits.streamWindowInitialBytes;

interface Full extends LinkPair {
  readonly clock: FakeClock;
  readonly budget: WindowBudget;
  /** The agent's ends, and what came there. */
  readonly far: IncomingStream[];
  readonly arrived: Recording[];
}

/** A link of two streams at most, the agent's end as strict as the node's. */
async function smallLink(windows = 16): Promise<Full> {
  const clock = new FakeClock();
  const far: IncomingStream[] = [];
  const arrived: Recording[] = [];
  const onStream = (stream: IncomingStream): void => {
    far.push(stream);
    arrived.push(record(stream));
  };
  const budget = new WindowBudget(windows * initial, 4);
  const node = { clock, budget, limits: { streamsPerLink: 2, openWaitersMax: 2 } };
  const pair = await linkPair({ agent: { onStream, limits: { streamsPerLink: 2 } }, node, lanes: 2 });
  return { ...pair, clock, budget, far, arrived };
}

test("a stream may wait for its place, and opens with its data once both sides have closed another", async () => {
  const { node, far, arrived } = await smallLink();
  const first = node.open(http);
  record(first);
  record(node.open(http));
  expect(() => node.open(http)).toThrow(new SallyError("STREAM_LIMIT"));
  const waiting = node.open(http, true);
  const seen = record(waiting);
  waiting.write(utf8Encode("later"));
  first.end();
  await settle();
  expect([waiting.isWaiting, far.length, node.streamCount]).toEqual([true, 2, 3]);
  far[0]!.end();
  await settle();
  expect([waiting.isWaiting, far.length, node.streamCount]).toEqual([false, 3, 2]);
  expect([utf8Decode(arrived[2]!.bytes()), seen.closes]).toEqual(["later", []]);
  expect(() => node.open(http)).toThrow(new SallyError("STREAM_LIMIT"));
});

test("places go to those that wait in their order; who leaves the line, or waits too long, takes none", async () => {
  const { node, far, clock, budget } = await smallLink();
  const [first] = [node.open(http), node.open(http)];
  const [hasty, slow] = [node.open(http, true), node.open(http, true)];
  expect(() => node.open(http, true)).toThrow(new SallyError("STREAM_LIMIT"));
  hasty.reset(new SallyError("CANCELLED"));
  clock.advance(1);
  const last = node.open(http, true);
  const [slowSeen, lastSeen] = [record(slow), record(last)];
  clock.advance(limits.openWaitMs - 1);
  expect(slowSeen.closes.map((error) => error?.code)).toEqual(["OVERLOADED"]);
  expect([lastSeen.closes, node.streamCount]).toEqual([[], 3]);
  first.reset(new SallyError("CANCELLED"));
  expect([last.isWaiting, node.streamCount, budget.usedBytes]).toEqual([false, 2, 2 * initial]);
  clock.advance(1);
  await settle();
  expect([lastSeen.closes, far.length]).toEqual([[], 3]);
});

test("who has a place may still have to wait for window, as long in all", async () => {
  const { node, clock, budget } = await smallLink();
  const others = budget.join("another owner");
  const [first] = [node.open(http), node.open(http)];
  const waiting = node.open(http, true);
  const seen = record(waiting);
  expect(others.tryReserve(14 * initial)).toBe(true); // all that is left
  clock.advance(limits.openWaitMs - 1);
  first.reset(new SallyError("CANCELLED"));
  expect([waiting.isWaiting, budget.waiters, node.streamCount]).toEqual([true, 1, 2]);
  clock.advance(1);
  expect(seen.closes.map((error) => error?.code)).toEqual(["OVERLOADED"]);
  expect([budget.waiters, node.streamCount, budget.usedBytes]).toEqual([0, 1, 15 * initial]);
});

test("those that wait end with their link", async () => {
  const { node } = await smallLink();
  const streams = [node.open(http), node.open(http), node.open(http, true)];
  const seen = streams.map((stream) => record(stream));
  node.close(new SallyError("DRAINING"));
  for (const { closes } of seen) expect(closes.map((error) => error?.code)).toEqual(["DRAINING"]);
  expect(node.streamCount).toBe(0);
});
