import { expect, test } from "bun:test";
import { SallyError } from "../core/errors.ts";
import { ControlChannel } from "./control-channel.ts";
import { linkPair, settle } from "./testing/link-pair.ts";

test("messages are kept until acknowledged, up to their number and their bytes", () => {
  const channel = new ControlChannel(3, 100);
  for (let i = 0; i < 3; i++) channel.add(new Uint8Array(10));
  expect(() => channel.add(new Uint8Array(1))).toThrow(SallyError);
  channel.onAcknowledged(2);
  expect(channel.pending.map(({ sequence }) => sequence)).toEqual([3]);
  channel.add(new Uint8Array(90));
  expect(() => channel.add(new Uint8Array(1))).toThrow(SallyError);
  channel.onAcknowledged(4);
  expect(channel.unacked).toBe(0);
  channel.add(new Uint8Array(100));
});

test("a repeated message is ignored, a gap is a violation", () => {
  const channel = new ControlChannel(3, 100);
  expect([channel.accepts(1), channel.accepts(1), channel.accepts(2)]).toEqual([true, false, true]);
  expect(() => channel.accepts(4)).toThrow(new SallyError("PROTOCOL_VIOLATION", "a control message is missing"));
});

test("a peer that acknowledges nothing ends the link; a message over 64 KiB is the caller's mistake", async () => {
  const pair = await linkPair({ agent: { limits: { controlUnackedMax: 5 } } });
  expect(() =>
    pair.agent.send({ type: "release", names: Array.from({ length: 1_000 }, () => "x".repeat(90)) }),
  ).toThrow('the control message "release" is too large');
  pair.agentSession.lanes[0]!.isHeld = true;
  for (let i = 0; i < 5; i++) pair.agent.send({ type: "headroom", value: 1 });
  await settle();
  expect(pair.agentSeen.closes).toEqual([]);
  pair.agent.send({ type: "headroom", value: 1 });
  expect(pair.agentSeen.closes).toEqual([]);
  await settle();
  expect(pair.agentSeen.closes.map((error) => error?.code)).toEqual(["OVERLOADED"]);
});
