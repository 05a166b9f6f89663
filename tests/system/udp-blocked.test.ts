import { expect, test } from "bun:test";
import { note } from "../support/fault-rig.ts";
import { drawSeed } from "../support/seeded.ts";
import { Road } from "./rig/road.ts";

const seeded = drawSeed("tests/system/udp-blocked");
/** For a busy machine. Waiting until a silent link is dead, after six seconds, would still be too slow. */
const slackMs = 1_000;

test("where UDP is blocked from the start, the link stands over WebSocket within five seconds", async () => {
  await using road = await Road.open({
    wire: { delayMs: 10 },
    beforeAgent: ({ laptop }) => laptop.setUdpBlocked(true),
  });
  const startedMs = performance.now();
  await road.up("websocket");
  const tookMs = performance.now() - startedMs;
  note(`UDP blocked at the start: the tunnel was up after ${tookMs.toFixed(0)} ms`);
  expect(tookMs).toBeLessThan(slackMs + 5_000);
});

test("blocked in mid-session, visitors are served over WebSocket within five seconds, and over QUIC again within sixty", async () => {
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
  expect(fallbackMs).toBeLessThan(slackMs + 5_000);
  expect(returnMs).toBeLessThan(slackMs + 60_000);
});
