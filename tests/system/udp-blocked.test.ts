import { expect, test } from "bun:test";
import { note } from "../support/fault-rig.ts";
import { drawSeed } from "../support/seeded.ts";
import { Road } from "./rig/road.ts";

const seeded = drawSeed("tests/system/udp-blocked");
test("where UDP is blocked from the start, the first try ends with a link over WebSocket", async () => {
  await using road = await Road.open({
    wire: { delayMs: 10 },
    beforeAgent: ({ laptop }) => laptop.setUdpBlocked(true),
  });
  const startedMs = performance.now();
  await road.up("websocket");
  const tookMs = performance.now() - startedMs;
  note(`UDP blocked at the start: the tunnel was up after ${tookMs.toFixed(0)} ms`);
  expect(road.agent.events.filter(({ event }) => event === "retry")).toEqual([]);
});

test("blocked in mid-session, visitors are served over WebSocket before the link is dead, and over QUIC again later", async () => {
  await using road = await Road.open({ wire: { delayMs: 10 } });
  await road.up("quic");
  await using load = road.load({ seed: seeded.between(0, 2 ** 31), isSafe: true });
  await load.run(100);
  const { laptop } = road.hosts;
  const blockedMs = performance.now();
  const fellBack = road.up("websocket", { isNew: true });
  await laptop.setUdpBlocked(true);
  await fellBack;
  const fallbackMs = performance.now() - blockedMs;
  note(`UDP blocked in mid-session: WebSocket after ${fallbackMs.toFixed(0)} ms`);
  await load.run(100);

  const openedMs = performance.now();
  const returned = road.up("quic", { isNew: true, timeoutMs: 90_000 });
  await laptop.setUdpBlocked(false);
  await returned;
  const returnMs = performance.now() - openedMs;
  note(`UDP free again: QUIC after ${returnMs.toFixed(0)} ms`);
  await load.run(100);
  const { summary, others } = await load.stop();
  note(summary);
  expect(others.filter(({ hasBegun }) => hasBegun === false)).toEqual([]); // who has half an answer cannot have another
  expect(road.agent.events.filter(({ event, state }) => event === "link" && state === "down")).toEqual([]);
});
