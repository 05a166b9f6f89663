import { describe, expect, test } from "bun:test";
import { CheckedOrigin } from "../support/checked-origin.ts";
import { judge, note, noticedMs, overBoth } from "../support/fault-rig.ts";
import { Scratch, spawnAgent, startAgent, startNode, type SallyProcess, type TestNode } from "../support/sally.ts";
import { drawSeed } from "../support/seeded.ts";
import { until } from "../support/until.ts";
import { Visitor, VisitorLoad } from "../support/visitor-load.ts";

const seeded = drawSeed("tests/fault/agent-killed");

function loadOn(node: TestNode): VisitorLoad {
  return new VisitorLoad({ port: node.port, host: `demo.localhost:${node.port}`, seeded: seeded.fork() });
}

async function running(load: VisitorLoad, count = 40): Promise<void> {
  const sinceMs = performance.now();
  await until("the load runs", () => load.rightSince(sinceMs) > count);
}

describe("an agent that is killed under load", () => {
  test(
    "gives right answers, clear refusals and visible breaks, and a restarted one has its name back",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      await using node = await startNode();
      using home = new Scratch();
      const start = (): SallyProcess =>
        spawnAgent({ node, target: origin.port, name: "demo", transport, home: home.path });
      let agent = start();
      await using stack = new AsyncDisposableStack();
      stack.defer(() => agent[Symbol.asyncDispose]());
      await agent.waitFor("tunnel");
      await using load = loadOn(node);
      for (let round = 0; round < 2; round++) {
        await running(load);
        await Bun.sleep(seeded.between(0, 300)); // the random moment
        const killedMs = performance.now();
        agent.kill("SIGKILL");
        await agent.exited;
        const isOffline = (): boolean =>
          load.outcomes.some(({ detail, startedMs }) => startedMs >= killedMs && detail === "TUNNEL_OFFLINE");
        if (round === 0) await until("visitors are told that no agent is there", isOffline, noticedMs);
        const startedMs = performance.now();
        agent = start();
        await agent.waitFor("tunnel");
        const tookMs = performance.now() - startedMs;
        note(`${transport}: the name was back ${tookMs.toFixed(0)} ms after the start of the process`);
        using visitor = new Visitor({ port: node.port, host: `demo.localhost:${node.port}` });
        expect(await visitor.get(1_000)).toMatchObject({ kind: "right" });
      }
      await judge(load, transport);
    }),
  );

  test(
    "leaves its visitors to the other agent when the name is shared",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      await using node = await startNode();
      const options = { node, target: origin.port, name: "demo", transport, args: ["--shared"] };
      await using first = await startAgent(options);
      await using _second = await startAgent(options);
      await using load = loadOn(node);
      await running(load);
      await Bun.sleep(seeded.between(0, 300)); // the random moment
      const killedMs = performance.now();
      first.process.kill("SIGKILL");
      await until("the dead link is gone", () => node.process.stderr.includes("link down"), noticedMs);
      const goneMs = performance.now();
      note(`${transport}: the dead agent was noticed after ${(goneMs - killedMs).toFixed(0)} ms`);
      await running(load, 100);
      await judge(load, transport);
      expect(load.outcomes.filter(({ kind, startedMs }) => kind !== "right" && startedMs > goneMs)).toEqual([]);
    }),
  );
});

describe("an agent that stands still", () => {
  test(
    "for a moment loses nothing",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      await using node = await startNode();
      await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
      await using load = loadOn(node);
      for (let round = 0; round < 4; round++) {
        await running(load, 30);
        agent.process.kill("SIGSTOP");
        await Bun.sleep(seeded.between(50, 1_500)); // how long it stands still
        agent.process.kill("SIGCONT");
      }
      await running(load, 30);
      await judge(load, transport);
      expect(load.outcomes.filter(({ kind }) => kind !== "right")).toEqual([]);
    }),
  );

  test(
    "for long is declared dead, and comes back by itself",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      await using node = await startNode();
      await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
      await using load = loadOn(node);
      await running(load);
      const stoppedMs = performance.now();
      agent.process.kill("SIGSTOP");
      const isOffline = (): boolean => load.outcomes.some(({ detail }) => detail === "TUNNEL_OFFLINE");
      await until("visitors are told that no agent is there", isOffline, noticedMs);
      note(`${transport}: declared dead after ${(performance.now() - stoppedMs).toFixed(0)} ms`);
      agent.process.kill("SIGCONT");
      await running(load);
      await judge(load, transport);
    }),
  );

  test(
    "gives its name to the owner's newer process at once, and ends with status 4 when it wakes",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      await using node = await startNode();
      using home = new Scratch();
      const options = { node, target: origin.port, name: "demo", transport, home: home.path };
      await using old = await startAgent(options);
      await using load = loadOn(node);
      await running(load);
      old.process.kill("SIGSTOP");
      const startedMs = performance.now();
      await using newer = spawnAgent(options);
      await newer.waitFor("tunnel");
      const tookMs = performance.now() - startedMs;
      note(`${transport}: taken over ${tookMs.toFixed(0)} ms after the start of the process`);
      using visitor = new Visitor({ port: node.port, host: `demo.localhost:${node.port}` });
      expect(await visitor.get(100)).toMatchObject({ kind: "right" });
      await judge(load, transport);
      old.process.kill("SIGCONT");
      expect(await old.process.exited).toBe(4);
      expect(await visitor.get(100)).toMatchObject({ kind: "right" });
    }),
  );
});
