import { expect, test } from "bun:test";
import fc from "fast-check";
import { ByteQueue } from "./byte-queue.ts";
import { concatBytes } from "./bytes.ts";

type Step =
  | { readonly kind: "push" | "unshift"; readonly size: number; readonly offset: number }
  | { readonly kind: "shift"; readonly max: number }
  | { readonly kind: "drop"; readonly join: number; readonly part: number }
  | { readonly kind: "clear" };

const size = fc.oneof(
  { weight: 5, arbitrary: fc.integer({ min: 0, max: 20 }) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 6_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 4_000, max: 40_000 }) },
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 40,
    arbitrary: fc.record({ kind: fc.constant("push" as const), size, offset: fc.integer({ min: 0, max: 99 }) }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("unshift" as const), size, offset: fc.constant(0) }) },
  {
    weight: 15,
    arbitrary: fc.record({ kind: fc.constant("shift" as const), max: fc.integer({ min: 1, max: 9_000 }) }),
  },
  {
    weight: 15,
    arbitrary: fc.record({
      kind: fc.constant("drop" as const),
      join: fc.integer({ min: 0, max: 70_000 }),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: "clear" as const }) },
);

test("bytes come out in the order in which they went in, however they are cut", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const queue = new ByteQueue();
      let model: number[] = [];
      const expectFirst = (bytes: Uint8Array): void => expect([...bytes]).toEqual(model.slice(0, bytes.length));
      let next = 0;
      for (const action of steps) {
        if (action.kind === "push" || action.kind === "unshift") {
          const bytes = new Uint8Array(action.offset + action.size).map(() => next++ & 255).subarray(action.offset);
          queue[action.kind](bytes);
          model = action.kind === "push" ? [...model, ...bytes] : [...bytes, ...model];
        } else if (action.kind === "clear") {
          queue.clear();
          model = [];
        } else if (model.length > 0 && action.kind === "shift") {
          const most = queue.firstBytes;
          const taken = queue.shift(action.max);
          expect(taken.length).toBe(Math.min(most, action.max));
          expectFirst(taken);
          model.splice(0, taken.length);
        } else if (model.length > 0 && action.kind === "drop") {
          const seen = queue.peek(action.join);
          expect(seen.length).toBeGreaterThan(0);
          expectFirst(seen);
          const dropped = Math.floor(seen.length * action.part);
          queue.drop(dropped);
          model.splice(0, dropped);
        }
        expect(queue.length).toBe(model.length);
        expect(queue.firstBytes > 0).toBe(model.length > 0);
      }
    }),
    { numRuns: 300 },
  );
});

/** Bytes of the distinct buffers behind what waits. */
function heldBytes(queue: ByteQueue): number {
  const buffers = new Set<ArrayBufferLike>();
  while (queue.length > 0) buffers.add(queue.shift().buffer);
  let total = 0;
  for (const buffer of buffers) total += buffer.byteLength;
  return total;
}

test("what it holds costs at most five times its bytes, and a few hundred", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ size, buffer: fc.integer({ min: 1, max: 512 * 1024 }) }), { maxLength: 100 }),
      (pieces) => {
        const queue = new ByteQueue();
        for (const piece of pieces) {
          const backing = new Uint8Array(Math.max(piece.size, piece.buffer));
          queue.push(backing.subarray(0, piece.size));
        }
        const { length } = queue;
        expect(heldBytes(queue)).toBeLessThanOrEqual(5 * length + 512);
      },
    ),
    { numRuns: 100 },
  );
});

test("a window full of single bytes costs few objects", () => {
  const queue = new ByteQueue();
  for (let i = 0; i < 64 * 1024; i++) queue.push(Uint8Array.of(i & 255));
  let count = 0;
  const parts: Uint8Array[] = [];
  while (queue.length > 0) {
    parts.push(queue.shift());
    count++;
  }
  expect(count).toBeLessThan(16);
  const bytes = concatBytes(parts);
  expect(bytes.every((byte, at) => byte === (at & 255))).toBe(true);
});

test("a piece that was taken does not change when others are added", () => {
  const queue = new ByteQueue();
  queue.push(Uint8Array.of(1, 2, 3, 4));
  const taken = queue.shift(2);
  queue.push(Uint8Array.of(5, 6));
  expect([...taken]).toEqual([1, 2]);
  expect([...queue.shift()]).toEqual([3, 4, 5, 6]);
});
