/** Two multiplexers exchange random writes, ends and resets under any chunking: order, completeness, windows. */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { IncomingStream, LinkStream } from "./link.ts";
import { WindowBudget } from "./window-budget.ts";
import { linkPair, settle } from "./testing/link-pair.ts";
import type { WireStream } from "./wire-stream.ts";

type Pipe = LinkStream | IncomingStream;

/** One direction of one stream: what was written, and what arrived. */
class Direction {
  written = 0;
  arrived = 0;
  held = 0;
  maxHeld = 0;
  hasEnded = false;
  ends = 0;
  readonly closes: (SallyError | undefined)[] = [];
  readonly salt: number;
  readonly consumesAtOnce: boolean;

  constructor(salt: number, consumesAtOnce: boolean) {
    this.salt = salt;
    this.consumesAtOnce = consumesAtOnce;
  }

  write(pipe: Pipe, size: number): void {
    const chunk = new Uint8Array(size);
    for (let i = 0; i < size; i++) chunk[i] = this.byteAt(this.written + i);
    this.written += size;
    pipe.write(chunk);
  }

  receive(pipe: Pipe): void {
    pipe.handler = {
      onData: (chunk) => {
        for (let i = 0; i < chunk.length; i++) {
          if (chunk[i] !== this.byteAt(this.arrived + i)) throw new Error("a byte is out of order");
        }
        this.arrived += chunk.length;
        this.held += chunk.length;
        this.maxHeld = Math.max(this.maxHeld, this.held);
        expect(this.held).toBeLessThanOrEqual((pipe as WireStream).windowBytes);
        if (this.consumesAtOnce) this.consume(pipe);
      },
      onEnd: () => void this.ends++,
      onDrain() {},
      onClose: (error) => void this.closes.push(error),
    };
  }

  consume(pipe: Pipe): void {
    const held = this.held;
    this.held = 0;
    pipe.consume(held);
  }

  byteAt(index: number): number {
    return (index * 31 + this.salt * 7 + (index >>> 8)) & 0xff;
  }
}

const command = fc.record({
  stream: fc.nat({ max: 5 }),
  isUp: fc.boolean(),
  what: fc.oneof(
    {
      weight: 10,
      arbitrary: fc.record({ kind: fc.constant("write" as const), size: fc.integer({ min: 1, max: 40_000 }) }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("end" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("reset" as const) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("settle" as const) }) },
  ),
});

test("every stream's bytes arrive in order exactly once, within the window, whatever is written, ended or reset", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(command, { maxLength: 40 }),
      fc.integer({ min: 1, max: 9_000 }),
      fc.boolean(),
      async (commands, chunkBytes, consumesAtOnce) => {
        const budgets = [new WindowBudget(1 << 26), new WindowBudget(1 << 26)] as const;
        const downs: Direction[] = [];
        const incoming: IncomingStream[] = [];
        const pair = await linkPair({
          lanes: 2,
          duplex: { nextChunkBytes: () => chunkBytes },
          agent: {
            budget: budgets[0],
            onStream(stream) {
              const at = Number(stream.preamble.tunnel);
              incoming[at] = stream;
              downs[at]!.receive(stream);
            },
          },
          node: { budget: budgets[1] },
        });
        const ups: Direction[] = [];
        const opened: LinkStream[] = [];
        const wasReset = new Set<number>();
        for (let i = 0; i < 6; i++) {
          downs.push(new Direction(i, consumesAtOnce));
          ups.push(new Direction(i + 100, consumesAtOnce));
          opened.push(pair.node.open({ tunnel: String(i), protocol: "raw" }));
          ups[i]!.receive(opened[i]!);
        }
        await settle(1);
        for (const { stream: at, isUp, what } of commands) {
          // "up" is from the agent to the node.
          const pipe = isUp ? incoming[at]! : opened[at]!;
          const direction = isUp ? ups[at]! : downs[at]!;
          if (what.kind === "settle") await settle(1);
          else if (wasReset.has(at)) continue;
          else if (what.kind === "reset") {
            wasReset.add(at);
            pipe.reset(new SallyError("CANCELLED"));
          } else if (!direction.hasEnded) {
            if (what.kind === "write") direction.write(pipe, what.size);
            else {
              direction.hasEnded = true;
              pipe.end();
            }
          }
        }
        for (let round = 0; round < 200; round++) {
          await settle(1);
          let open = 0;
          for (let i = 0; i < 6; i++) {
            if (downs[i]!.held > 0) downs[i]!.consume(incoming[i]!);
            if (ups[i]!.held > 0) ups[i]!.consume(opened[i]!);
            if (!wasReset.has(i) && (downs[i]!.arrived < downs[i]!.written || ups[i]!.arrived < ups[i]!.written))
              open++;
          }
          if (open === 0 && round > 2) break;
        }
        for (let i = 0; i < 6; i++) {
          if (wasReset.has(i)) continue;
          for (const direction of [downs[i]!, ups[i]!]) {
            expect(direction.arrived).toBe(direction.written);
            expect(direction.ends).toBe(direction.hasEnded ? 1 : 0);
            const isOver = downs[i]!.hasEnded && ups[i]!.hasEnded;
            expect(direction.closes).toEqual(isOver ? [undefined] : []);
          }
        }
        expect(pair.agentSeen.closes).toEqual([]);
        pair.node.close();
        await settle(2);
        expect(budgets.map((budget) => budget.usedBytes)).toEqual([0, 0]);
        expect([pair.node.streamCount, pair.agent.streamCount]).toEqual([0, 0]);
      },
    ),
    { numRuns: 40 },
  );
}, 60_000);

test("a window that limits its stream grows to its ceiling, and never beyond", async () => {
  let incoming: IncomingStream | undefined;
  const seen = { bytes: 0 };
  const pair = await linkPair({
    agent: {
      onStream(stream) {
        incoming = stream;
        stream.handler = {
          onData(chunk) {
            seen.bytes += chunk.length;
            stream.consume(chunk.length);
          },
          onEnd() {},
          onDrain() {},
          onClose() {},
        };
      },
    },
  });
  const stream = pair.node.open({ tunnel: "demo", protocol: "raw" });
  const total = 40 * 1024 * 1024;
  for (let sent = 0; sent < total; sent += 65_536) stream.write(new Uint8Array(65_536));
  while (seen.bytes < total) await settle(1);
  const { windowBytes } = incoming as WireStream;
  expect(windowBytes).toBe(limits.streamWindowMaxBytes);
});
