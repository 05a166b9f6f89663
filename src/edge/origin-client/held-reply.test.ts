/** What a reply's reader still holds counts against its stream, also once the stream is gone. */

import { expect, test } from "bun:test";
import { SallyError, toSallyError } from "../../core/errors.ts";
import type { Body } from "../../http/body.ts";
import { FakeExchange } from "../fake-exchange.ts";
import { settle, TestRig } from "../test-rig.ts";

const piece = new Uint8Array(5_000);

/** A reply of which 10,000 bytes are here and unread, and whose stream is gone. */
async function heldReply(end: (rig: TestRig) => void): Promise<{ rig: TestRig; body: Body }> {
  const rig = new TestRig({
    onRequest(_request, side) {
      side.say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
      side.write(piece);
      side.write(piece);
    },
  });
  const reply = await rig.send(new FakeExchange());
  if (reply.kind !== "message") throw new Error("not a message");
  await settle();
  end(rig);
  await settle();
  expect(rig.origin.last.edge.unconsumedBytes).toBe(2 * piece.length);
  return { rig, body: reply.body };
}

async function readToEnd(body: Body): Promise<string> {
  try {
    for (;;) if ((await body.read()) === null) return "end";
  } catch (thrown) {
    return toSallyError(thrown).code;
  }
}

const ends: readonly (readonly [string, (rig: TestRig) => void, string])[] = [
  ["the origin ended it", (rig) => rig.origin.last.end(), "end"],
  ["the origin broke off", (rig) => rig.origin.last.break(), "ORIGIN_RESET"],
  ["the link was lost", (rig) => rig.origin.last.lose(), "LINK_LOST"],
];

for (const [what, end, outcome] of ends) {
  test(`a reply is read to its end after ${what}, and every byte is given back`, async () => {
    const { rig, body } = await heldReply(end);
    expect(await readToEnd(body)).toBe(outcome);
    expect(rig.origin.last.edge.unconsumedBytes).toBe(0);
  });

  test(`a reply is given up after ${what}, and every byte is given back`, async () => {
    const { rig, body } = await heldReply(end);
    body.cancel(new SallyError("VISITOR_GONE"));
    expect(rig.origin.last.edge.unconsumedBytes).toBe(0);
  });
}
