import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { describe, expect, test } from "bun:test";
import { note, overBoth } from "../support/fault-rig.ts";
import { drawSeed } from "../support/seeded.ts";
import { until } from "../support/until.ts";
import { Nginx } from "./rig/nginx.ts";
import { Road } from "./rig/road.ts";
import type { Host } from "./rig/two-hosts.ts";

const seeded = drawSeed("tests/system/rough-network");
const fileBytes = 48 * 1024 * 1024;

function seed(): number {
  return seeded.between(0, 2 ** 31);
}

/** A QUIC link over a line on which the file takes about five seconds, and what the file should be. */
async function openDownload(stack: AsyncDisposableStack): Promise<{ road: Road; sha256: string }> {
  const nginx = stack.use(await Nginx.start());
  const bytes = randomBytes(fileBytes);
  await Bun.write(join(nginx.root, "file"), bytes);
  const road = stack.use(
    await Road.open({ wire: { delayMs: 10, rateMbit: 80 }, transport: "quic", target: `unix:${nginx.socket}` }),
  );
  await road.up("quic");
  return { road, sha256: new Bun.CryptoHasher("sha256").update(bytes).digest("hex") };
}

/**
 * As a router does that has forgotten its table: the same flow comes from another port, and what still comes to the old
 * one is lost. Each port has a zone of its own, so that the flow is new to the kernel.
 */
async function leaveFromPort(host: Host, port: number): Promise<void> {
  const zone = (hook: string): string =>
    `chain ${hook} {\ntype filter hook ${hook} priority raw\nmeta l4proto udp ct zone set ${port}\n}`;
  const source = `meta l4proto udp counter snat to ${host.address}:${port}`;
  await host.filter(`table ip router {
    ${zone("output")}
    ${zone("prerouting")}
    chain input {\ntype filter hook input priority filter\nmeta l4proto udp ct state new drop\n}
    chain source {\ntype nat hook postrouting priority srcnat\n${source}\n}
  }`);
}

describe("a download over QUIC", () => {
  test("arrives whole although the agent's port changes four times", async () => {
    await using stack = new AsyncDisposableStack();
    const { road, sha256 } = await openDownload(stack);
    const { laptop } = road.hosts;
    let isDone = false;
    const download = road.download("/file").finally(() => (isDone = true));
    for (let i = 0; i < 4; i++) {
      await Bun.sleep(seeded.between(300, 700)); // the random moment
      expect(isDone).toBe(false);
      await leaveFromPort(laptop, seeded.between(20_000, 60_000));
      const isUsed = async (): Promise<boolean> => !/packets 0/.test(await laptop.run(["nft", "list", "ruleset"]));
      await until("the new port is used", isUsed);
    }
    expect(await download).toBe(sha256);
    expect(road.agent.events.filter(({ event }) => event === "link")).toHaveLength(1);
  });

  test("arrives whole although the agent's address changes", async () => {
    await using stack = new AsyncDisposableStack();
    const { road, sha256 } = await openDownload(stack);
    const download = road.download("/file");
    await Bun.sleep(seeded.between(500, 2_000)); // the random moment
    await road.hosts.laptop.handOver("10.88.0.3");
    expect(await download).toBe(sha256);
    expect(road.agent.events.filter(({ event }) => event === "link")).toHaveLength(1);
  });
});

test(
  "an agent that moves to another network is back before its old link is dead, and no safe request fails",
  overBoth(async (transport) => {
    await using road = await Road.open({ wire: { delayMs: 10 }, transport });
    await road.up(transport);
    await using load = road.load({ seed: seed(), isSafe: true });
    await load.run(100);
    const linked = road.up(transport, { isNew: true });
    linked.catch(() => {}); // QUIC may move the old link
    const movedMs = performance.now();
    await road.hosts.laptop.move("10.88.0.3");
    const served = load.run(20); // more than can have been on the way
    await Promise.race([linked, served]);
    const tookMs = performance.now() - movedMs;
    note(`${transport}: back ${tookMs.toFixed(0)} ms after the move`);
    await served;
    await load.run(100);
    const { summary, others } = await load.stop();
    note(`${transport}: ${summary}`);
    expect(others.filter(({ hasBegun }) => hasBegun === false)).toEqual([]); // who has half an answer cannot have another
    expect(road.agent.events.filter(({ event, state }) => event === "link" && state === "down")).toEqual([]);
  }),
);

test(
  "a wire that is cut for three seconds loses nothing",
  overBoth(async (transport) => {
    await using road = await Road.open({ wire: { delayMs: 10 }, transport });
    await road.up(transport);
    await using load = road.load({ seed: seed() });
    for (let round = 0; round < 2; round++) {
      await load.run(200);
      road.hosts.setCut(true);
      await Bun.sleep(3_000); // how long it is cut
      road.hosts.setCut(false);
    }
    await load.run(200);
    const { summary, others } = await load.stop();
    note(`${transport}: ${summary}`);
    expect(others).toEqual([]);
    expect(road.agent.events.filter(({ event, state }) => event === "link" && state === "down")).toEqual([]);
  }),
);

test(
  "a wire that is cut for nearly as long as a link may be silent serves again at once, and no safe request fails",
  overBoth(async (transport) => {
    await using road = await Road.open({ wire: { delayMs: 10 }, transport });
    await road.up(transport);
    await using load = road.load({ seed: seed(), isSafe: true });
    await load.run(200);
    const linked = road.up(transport, { isNew: true });
    road.hosts.setCut(true);
    await Bun.sleep(5_000); // how long it is cut
    road.hosts.setCut(false);
    await linked;
    await load.run(200);
    const { summary, others } = await load.stop();
    note(`${transport}: ${summary}`);
    expect(others.filter(({ hasBegun }) => hasBegun === false)).toEqual([]); // who has half an answer cannot have another
  }),
);

test(
  "at 2 % loss and 50 ms round trip, 64 visitors at once are all answered right",
  overBoth(async (transport) => {
    await using road = await Road.open({ wire: { delayMs: 25, lossPercent: 2 }, transport });
    await road.up(transport);
    await using load = road.load({ seed: seed(), kept: 56, fresh: 8 });
    await load.run(2_000);
    const { summary, others } = await load.stop();
    note(`${transport}: ${summary}`);
    expect(others).toEqual([]);
  }),
);

test(
  "on a slow line small requests get through beside large replies, and nothing is given up",
  overBoth(async (transport) => {
    await using nginx = await Nginx.start();
    const bytes = randomBytes(500_000);
    await Bun.write(join(nginx.root, "file"), bytes);
    await Bun.write(join(nginx.root, "small"), "small");
    const target = `unix:${nginx.socket}`;
    await using road = await Road.open({ wire: { delayMs: 25, rateMbit: 1 }, transport, target });
    await road.up(transport);
    const done = new AbortController();
    const downloads = Promise.all([1, 2, 3].map(() => road.download("/file"))).finally(() => done.abort());
    const tookMs: number[] = [];
    while (!done.signal.aborted) {
      const startedMs = performance.now();
      expect(await road.download("/small")).toBe(new Bun.CryptoHasher("sha256").update("small").digest("hex"));
      tookMs.push(performance.now() - startedMs);
    }
    note(`${transport}: ${tookMs.length} small ones, the slowest in ${Math.max(...tookMs).toFixed(0)} ms`);
    expect(await downloads).toEqual(Array(3).fill(new Bun.CryptoHasher("sha256").update(bytes).digest("hex")));
    expect(road.agent.events.filter(({ event, state }) => event === "link" && state === "down")).toEqual([]);
  }),
);

test(
  "agents far away are told that the node stops",
  overBoth(async (transport) => {
    await using road = await Road.open({ wire: { delayMs: 100 }, transport });
    await road.up(transport);
    await using load = road.load({ seed: seed(), fresh: 0 });
    await load.run(20);
    const lost = road.agent.waitFor(({ event, state }) => event === "link" && state === "down");
    road.node.process.kill("SIGTERM");
    const { code } = await lost;
    expect([undefined, "DRAINING"]).toContain(code as string | undefined);
    expect(await road.node.process.exited).toBe(0);
    const { others } = await load.stop();
    expect(others.filter(({ isReused }) => isReused === true)).toEqual([]);
  }),
);
