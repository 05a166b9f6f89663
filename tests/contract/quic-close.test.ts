/** How a QUIC session closes: whoever takes what was queued gets the time for it, and nobody else does. */

import { expect, setDefaultTimeout, test } from "bun:test";
import { systemClock, type Clock } from "../../src/core/clock.ts";
import { limits } from "../../src/core/limits.ts";
import { UdpPath } from "../support/udp-path.ts";
import { never, quicWorld } from "./quic.fixture.ts";

setDefaultTimeout(30_000);

/** The real clock, but a session lingers for a tenth of the time. */
const hasty: Clock = {
  ...systemClock,
  after: (delayMs, callback) => systemClock.after(delayMs === limits.socketLingerMs ? delayMs / 10 : delayMs, callback),
};

test("what was queued arrives although it takes longer than a session lingers", async () => {
  await using world = await quicWorld();
  await using path = await UdpPath.to(world.listener.address);
  const { agent, node } = await world.pair(world.connectorWith({ address: path.address, clock: hasty }));
  path.bytesPerMs = 100; // 200 KB take two seconds
  const lane = await agent.openLane(never);
  lane.write(new Uint8Array(200_000));
  agent.close();
  const record = await node.lane(0);
  await record.until("everything", () => record.receivedBytes === 200_000, 20_000);
  expect(await agent.closed).toBeUndefined();
});

test("a peer that takes nothing any more is not waited for", async () => {
  await using world = await quicWorld();
  await using path = await UdpPath.to(world.listener.address);
  const { agent } = await world.pair(world.connectorWith({ address: path.address, clock: hasty }));
  const lane = await agent.openLane(never);
  path.isCut = true;
  lane.write(new Uint8Array(200_000));
  agent.close();
  expect(await agent.closed).toBeUndefined(); // else it times out
});
