import { expect, test } from "bun:test";
import { SallyError } from "./errors.ts";
import { memoryDuplexPair } from "./memory-duplex.ts";
import { relay } from "./relay.ts";

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** A visitor and an origin, joined by a relay between the near ends of two pipes. */
function joined() {
  const pipe = { highBytes: 1_000, lowBytes: 100, unconsumedBytes: 1_000 };
  const [visitor, left] = memoryDuplexPair(pipe);
  const [right, origin] = memoryDuplexPair(pipe);
  const outcomes: (SallyError | undefined)[] = [];
  relay(left, right, (error) => outcomes.push(error));
  return { visitor, left, right, origin, outcomes };
}

/** Both sides wrote, and nobody reads: bytes wait in both directions. */
async function stalled() {
  const sides = joined();
  sides.left.isHeld = true;
  sides.right.isHeld = true;
  for (let i = 0; i < 10; i++) {
    sides.visitor.write(new Uint8Array(300));
    sides.origin.write(new Uint8Array(300));
  }
  await turn();
  expect(sides.left.unconsumedBytes).toBeGreaterThan(0);
  expect(sides.right.unconsumedBytes).toBeGreaterThan(0);
  return sides;
}

for (const side of ["visitor", "origin"] as const) {
  test(`when the ${side} breaks off the other side is reset, and nothing stays unconsumed`, async () => {
    const sides = await stalled();
    sides[side].reset(new SallyError("CANCELLED"));
    await turn();
    expect(sides.outcomes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
    expect([sides.left.isClosed, sides.right.isClosed]).toEqual([true, true]);
    expect([sides.left.unconsumedBytes, sides.right.unconsumedBytes]).toEqual([0, 0]);
  });
}

test("after both ended everything has arrived, and nothing stays unconsumed", async () => {
  const sides = await stalled();
  const counts = { visitor: 0, origin: 0 };
  for (const name of ["visitor", "origin"] as const) {
    const side = sides[name];
    side.handler = {
      onData(chunk) {
        counts[name] += chunk.length;
        side.consume(chunk.length);
      },
      onEnd() {},
      onDrain() {},
      onClose() {},
    };
    side.end();
  }
  sides.left.isHeld = false;
  sides.right.isHeld = false;
  await turn();
  expect(counts).toEqual({ visitor: 3_000, origin: 3_000 });
  expect(sides.outcomes).toEqual([undefined]);
  expect([sides.left.unconsumedBytes, sides.right.unconsumedBytes]).toEqual([0, 0]);
});
