/** Receive windows from grant to return: what stays counted, when they shrink, and what happens when ids run out. */

import { describe, expect, test } from "bun:test";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import type { IncomingStream, LinkStream } from "./link.ts";
import { linkPair, record, settle, type LinkPair } from "./testing/link-pair.ts";
import { WindowBudget } from "./window-budget.ts";

const http = { tunnel: "demo", protocol: "http" } as const;
const initial = limits.streamWindowInitialBytes;

interface Held extends LinkPair {
  readonly budget: WindowBudget;
  /** A stream of the node's on which 10,000 bytes came that its owner keeps. */
  readonly stream: LinkStream;
  readonly far: IncomingStream;
}

async function heldStream(): Promise<Held> {
  const budget = new WindowBudget(1 << 30);
  const far: IncomingStream[] = [];
  const onStream = (stream: IncomingStream): void => {
    far.push(stream);
    record(stream);
  };
  const pair = await linkPair({ agent: { onStream }, node: { budget } });
  const stream = pair.node.open(http);
  record(stream, { consumes: false });
  await settle();
  far[0]!.write(new Uint8Array(10_000)); // it was opened just now
  await settle();
  expect(budget.usedBytes).toBe(initial);
  return { ...pair, budget, stream, far: far[0]! };
}

describe("a window whose stream is over stays counted for what its owner holds", () => {
  const ends: readonly (readonly [string, (held: Held) => void])[] = [
    ["after a clean end", ({ stream, far }) => (far.end(), stream.end())],
    ["after the peer's reset", ({ far }) => far.reset(new SallyError("ORIGIN_RESET"))],
    ["after our own reset", ({ stream }) => stream.reset(new SallyError("CANCELLED"))],
    ["after the link was lost", ({ agent }) => agent.close(new SallyError("REPLACED"))],
  ];
  for (const [when, end] of ends) {
    test(when, async () => {
      const held = await heldStream();
      const { budget, stream } = held;
      end(held);
      await settle();
      expect(held.node.streamCount).toBe(0);
      expect(budget.usedBytes).toBe(10_000);
      stream.consume(4_000);
      expect(budget.usedBytes).toBe(6_000);
      stream.consume(6_000);
      expect(budget.usedBytes).toBe(0);
      stream.consume(1);
      expect(budget.usedBytes).toBe(0);
    });
  }

  test("until nobody has the stream any more", async () => {
    const budget = new WindowBudget(1 << 30);
    const open = async (): Promise<void> => {
      const pair = await linkPair({
        agent: { onStream: (stream) => stream.write(new Uint8Array(100)) },
        node: { budget },
      });
      const streams = Array.from({ length: 50 }, () => pair.node.open(http));
      for (const stream of streams) stream.write(new Uint8Array(1));
      await settle();
      pair.node.close();
      expect(budget.usedBytes).toBe(50 * 100);
    };
    await open();
    for (let i = 0; i < 100 && budget.usedBytes > 0; i++) {
      Bun.gc(true);
      await settle(1);
    }
    expect(budget.usedBytes).toBeLessThan(10 * 100); // the collector may take a stack's leftovers for references
  });
});

/** A link in a time of its own; `far` are the streams as the agent has them. */
async function timedPair() {
  const clock = new FakeClock();
  const budget = new WindowBudget(1 << 30);
  const far: IncomingStream[] = [];
  const onStream = (stream: IncomingStream): void => {
    far.push(stream);
    record(stream);
  };
  return { ...(await linkPair({ agent: { onStream, clock }, node: { budget, clock } })), far, budget, clock };
}

test.each([
  [29, 4 * initial],
  [31, initial],
])("a window that was used within three round trips of 10 ms becomes four times as large: %d ms", async (ms, bytes) => {
  const { node, far, budget, clock } = await timedPair();
  record(node.open(http));
  await settle();
  clock.advance(ms);
  far[0]!.write(new Uint8Array(2 * initial));
  await settle();
  expect(budget.usedBytes).toBe(bytes);
});

test("a grown window that is used slowly shrinks again, down to the first one, and no byte is lost", async () => {
  const { node, agent, far, budget, clock } = await timedPair();
  const stream = node.open(http);
  const seen = record(stream);
  await settle();
  let sent = 0;
  const send = async (byteCount: number): Promise<void> => {
    far[0]!.write(new Uint8Array(byteCount));
    sent += byteCount;
    await settle();
    expect(seen.byteCount).toBe(sent);
  };
  for (let i = 0; i < 4; i++) await send(initial); // at once: it grows
  const grown = budget.usedBytes;
  expect(grown).toBeGreaterThan(initial);
  // Slow use: both sides stay alive by their PINGs.
  const rest = async (): Promise<void> => {
    for (let passedMs = 0; passedMs < 12_000; passedMs += 500) {
      clock.advance(500);
      await settle(1);
    }
  };
  let last = grown;
  for (let i = 0; i < 40 && last > initial; i++) {
    await rest();
    await send(initial / 2);
    expect(budget.usedBytes).toBeLessThanOrEqual(last);
    last = budget.usedBytes;
  }
  expect(last).toBe(initial);
  // What is left is exactly one window: it is used up without consent, and a byte more waits.
  const silent = node.open(http);
  record(silent, { consumes: false });
  await settle();
  far[1]!.write(new Uint8Array(initial + 1));
  await settle();
  expect(far[1]!.queuedBytes).toBe(1);
  await send(3 * initial);
  agent.close();
}, 20_000);

test("a link whose lanes have used up their stream ids drains, so that the agent links anew", async () => {
  const { node, agent, agentSeen, nodeSeen } = await linkPair({
    lanes: 2,
    agent: { onStream: (stream) => void record(stream) },
    node: { limits: { streamIdMax: 9 } },
  });
  const streams: LinkStream[] = [];
  for (let i = 0; i < 8; i++) {
    const stream = node.open(http); // ids 2, 4, 6 and 8 on each of two lanes
    record(stream);
    streams.push(stream);
    await settle(1);
  }
  expect(() => node.open(http)).toThrow(new SallyError("DRAINING"));
  expect(node.isDraining).toBe(true);
  await settle();
  expect(agent.isDraining).toBe(true);
  expect(nodeSeen.closes).toEqual([]);
  for (const stream of streams) stream.reset(new SallyError("CANCELLED"));
  await settle();
  expect([nodeSeen.closes, agentSeen.closes]).toEqual([[undefined], [undefined]]);
});
