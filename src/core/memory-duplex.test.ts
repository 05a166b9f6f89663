import { expect, test } from "bun:test";
import { concatBytes, utf8Decode, utf8Encode } from "./bytes.ts";
import { SallyError } from "./errors.ts";
import { memoryDuplexPair, type MemoryDuplex } from "./memory-duplex.ts";

function record(side: MemoryDuplex, consume = true) {
  const seen = { chunks: [] as Uint8Array[], ends: 0, drains: 0, closes: [] as (SallyError | undefined)[] };
  side.handler = {
    onData(chunk) {
      seen.chunks.push(chunk);
      if (consume) side.consume(chunk.length);
    },
    onEnd: () => void seen.ends++,
    onDrain: () => void seen.drains++,
    onClose: (error) => void seen.closes.push(error),
  };
  return seen;
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 0));

test("bytes arrive in order, cut as asked, and both ends close cleanly once", async () => {
  const [left, right] = memoryDuplexPair({ nextChunkBytes: () => 3 });
  const seenLeft = record(left);
  const seenRight = record(right);
  left.write(utf8Encode("hello "));
  left.write(utf8Encode("world"));
  left.end();
  await settle();
  expect(utf8Decode(concatBytes(seenRight.chunks))).toBe("hello world");
  expect(seenRight.chunks.map((chunk) => chunk.length)).toEqual([3, 3, 3, 2]);
  expect(seenRight.ends).toBe(1);
  expect(seenRight.closes).toEqual([]);
  right.end();
  await settle();
  expect(seenLeft.closes).toEqual([undefined]);
  expect(seenRight.closes).toEqual([undefined]);
});

test("a receiver that consumes nothing stops delivery, and the writer is told to wait", async () => {
  const [left, right] = memoryDuplexPair({ highBytes: 10, lowBytes: 4, unconsumedBytes: 6 });
  const seenLeft = record(left);
  const seenRight = record(right, false);
  for (let i = 0; i < 5; i++) left.write(new Uint8Array(3));
  expect(left.write(new Uint8Array(3))).toBe(false);
  await settle();
  expect(seenRight.chunks.length).toBe(2);
  expect(seenLeft.drains).toBe(0);
  right.consume(6);
  await settle();
  right.consume(6);
  await settle();
  expect(seenLeft.drains).toBe(1);
  expect(seenRight.chunks.length).toBe(6);
});

test("a reset reaches the peer as an error and our own handler not at all", async () => {
  const [left, right] = memoryDuplexPair();
  const seenLeft = record(left);
  const seenRight = record(right);
  left.write(new Uint8Array(3));
  left.reset(new SallyError("CANCELLED"));
  await settle();
  expect(seenLeft.closes).toEqual([]);
  expect(seenRight.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
});
