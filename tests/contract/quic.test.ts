/** The QUIC transport over real sockets: trust, ends, bounds, early data, and what node:quic does behind our back. */

import { afterAll, expect, test } from "bun:test";
import { never, quicWorld, Recorder } from "./quic.fixture.ts";
import { SallyError } from "../../src/core/errors.ts";

const unhandled: unknown[] = [];
const onUnhandled = (error: unknown): void => void unhandled.push(error);
process.on("unhandledRejection", onUnhandled);
afterAll(async () => {
  await Bun.sleep(50);
  process.off("unhandledRejection", onUnhandled);
  expect(unhandled).toEqual([]);
});

test("a lane carries bytes both ways, and both sides know the other's certificate", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  const { agent, node } = await world.pair();
  expect(node.session.peerCertificate).toEqual(await der(world.agentTls.certPem));
  expect(agent.peerCertificate).toEqual(await der(world.nodeTls.certPem));
  expect(agent.host).toBe(node.session.host);
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  lane.write(Buffer.from("hello "));
  lane.write(Buffer.from("lane"));
  await heard.until("the echo", () => heard.text === "hello lane");
  expect((await node.lane(0)).text).toBe("hello lane");
});

async function der(certPem: string): Promise<Uint8Array> {
  const base64 = certPem.replaceAll(/-----[^-]+-----|\s/g, "");
  return Uint8Array.fromBase64(base64);
}

test("a lane is seen by the node before anything is written to it", async () => {
  await using world = await quicWorld();
  const { agent, node } = await world.pair();
  await agent.openLane(never);
  expect((await node.lane(0)).receivedBytes).toBe(0);
});

test("a clean close delivers what was queued", async () => {
  await using world = await quicWorld({ recorder: { keeps: false } });
  const { agent, node } = await world.pair();
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  const chunk = new Uint8Array(64 * 1024).fill(7);
  for (let i = 0; i < 64; i++) lane.write(chunk);
  agent.close();
  const record = await node.lane(0);
  await record.until("4 MiB", () => record.receivedBytes === 4 * 1024 * 1024);
  expect(await agent.closed).toBeUndefined();
  expect(await node.session.closed).toBeUndefined();
  expect(heard.closes).toEqual([undefined]);
  expect(record.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
});

test("a close with an error reaches the other side with its code", async () => {
  await using world = await quicWorld();
  const { agent, node } = await world.pair();
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  const record = await node.lane(0);
  node.session.close(new SallyError("REPLACED"));
  await heard.until("the end of the lane", () => heard.closes.length > 0);
  expect((await agent.closed)?.code).toBe("REPLACED");
  expect((await node.session.closed)?.code).toBe("REPLACED");
  expect(heard.closes.map((error) => error?.code)).toEqual(["REPLACED"]);
  await record.until("its own end", () => record.closes.length > 0);
  expect(record.closes.map((error) => error?.code)).toEqual(["REPLACED"]);
});

test("a reset lane reaches the other side with its code; the other lanes stay", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  const { agent, node } = await world.pair();
  const [lost, kept] = [await agent.openLane(never), await agent.openLane(never)];
  const [lostHeard, keptHeard] = [new Recorder(lost), new Recorder(kept)];
  const record = await node.lane(0);
  lost.reset(new SallyError("PROTOCOL_VIOLATION"));
  await record.until("the reset", () => record.closes.length > 0);
  expect(record.closes.map((error) => error?.code)).toEqual(["PROTOCOL_VIOLATION"]);
  kept.write(Buffer.from("still here"));
  await keptHeard.until("the echo", () => keptHeard.text === "still here");
  expect(lostHeard.closes).toEqual([]);
});
