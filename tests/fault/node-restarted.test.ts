import { describe, expect, test } from "bun:test";
import { CheckedOrigin } from "../support/checked-origin.ts";
import { judge, note, overBoth } from "../support/fault-rig.ts";
import { RawSocket } from "../support/raw-socket.ts";
import { Scratch, startAgent, startNode, type TestNode } from "../support/sally.ts";
import { drawSeed } from "../support/seeded.ts";
import { until } from "../support/until.ts";
import { Visitor, VisitorLoad } from "../support/visitor-load.ts";

const seeded = drawSeed("tests/fault/node-restarted");

type Ports = { http: number; tunnel: number; admin: number };

function portsOf(node: TestNode): Ports {
  const port = (url: string): number => Number(new URL(url).port);
  return { http: node.port, tunnel: port(node.tunnel), admin: port(node.admin) };
}

function loadOn(node: { readonly port: number }, options: Partial<ConstructorParameters<typeof VisitorLoad>[0]> = {}) {
  return new VisitorLoad({
    port: node.port,
    host: `demo.localhost:${node.port}`,
    seeded: seeded.fork(),
    ...options,
  });
}

async function running(load: VisitorLoad, count = 40): Promise<void> {
  const sinceMs = performance.now();
  await until("the load runs", () => load.rightSince(sinceMs) > count);
}

async function upgraded(port: number): Promise<RawSocket> {
  const socket = await RawSocket.connect(port);
  socket.write(`GET /echo HTTP/1.1\r\nHost: demo.localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n`);
  expect(await socket.readHead()).toStartWith("HTTP/1.1 101 ");
  socket.write("ping");
  expect(await socket.read(4)).toBe("ping");
  return socket;
}

describe("a node that is told to stop under load", () => {
  test(
    "fails no request on a kept-alive connection, lets slow ones finish and ends what never does with its grace",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      using scratch = new Scratch();
      const config = scratch.join("node.json");
      await Bun.write(config, JSON.stringify({ limits: { drainGraceMs: 4_000 } }));
      await using node = await startNode({ args: ["--config", config] });
      await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
      const host = `demo.localhost:${node.port}`;
      await using load = loadOn(node, { fresh: 0 });
      await running(load);
      using upgrade = await upgraded(node.port);
      const slow = [1_000, 1_500, 2_000].map((slowMs) => new Visitor({ port: node.port, host }).getSlow(slowMs));
      await until("the slow requests run", () => origin.slowRunning === slow.length);
      await Bun.sleep(seeded.between(0, 200)); // the random moment
      const stoppedMs = performance.now();
      node.process.kill("SIGTERM");
      for (const answer of slow) expect(await answer).toMatchObject({ kind: "right" });
      const slowDoneMs = performance.now();
      expect(upgrade.isClosed || upgrade.hasEnded).toBe(false);
      await until("the upgraded connection ends", () => upgrade.isClosed || upgrade.hasEnded || upgrade.wasReset);
      expect(await node.process.exited).toBe(0);
      note(
        `${transport}: slow requests were answered after ${(slowDoneMs - stoppedMs).toFixed(0)} ms, ` +
          `the node had ended after ${(performance.now() - stoppedMs).toFixed(0)} ms`,
      );
      await judge(load, transport);
      expect(load.outcomes.filter(({ kind, isReused }) => kind !== "right" && isReused)).toEqual([]);
      // The agent was told, so it looks for the successor in a hurry.
      const down = await agent.process.waitFor(({ event, state }) => event === "link" && state === "down");
      expect([undefined, "DRAINING"]).toContain(down["code"] as string | undefined);
    }),
  );
});

describe("a node that is killed under load", () => {
  test(
    "and started again has its agents back by themselves, with their names",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      using data = new Scratch();
      let node = await startNode({ data: data.path });
      await using stack = new AsyncDisposableStack();
      stack.defer(() => node[Symbol.asyncDispose]());
      await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
      await using unnamed = await startAgent({ node, target: `127.0.0.1:${origin.port}`, transport });
      await using load = loadOn(node);
      const ports = portsOf(node);
      for (let round = 0; round < 2; round++) {
        await running(load);
        await Bun.sleep(seeded.between(0, 300)); // the random moment
        const back = [agent, unnamed].map(({ process }) =>
          process.waitForNext(({ event }) => event === "tunnel", 40_000),
        );
        node.process.kill("SIGKILL");
        await node.process.exited;
        const startedMs = performance.now();
        node = await startNode({ data: data.path, ports });
        const names = (await Promise.all(back)).map(({ name }) => name);
        note(`${transport}: agents were back ${(performance.now() - startedMs).toFixed(0)} ms after the node's start`);
        expect(names).toEqual(["demo", unnamed.name]);
      }
      await running(load);
      await judge(load, transport);
    }),
  );

  test(
    "or stands still for a moment loses nothing; for long, its agents come back by themselves",
    overBoth(async (transport) => {
      await using origin = await CheckedOrigin.listen();
      await using node = await startNode();
      await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
      await using load = loadOn(node);
      for (let round = 0; round < 3; round++) {
        await running(load, 30);
        node.process.kill("SIGSTOP");
        await Bun.sleep(seeded.between(50, 1_500)); // how long it stands still
        node.process.kill("SIGCONT");
      }
      await running(load, 30);
      expect(load.outcomes.filter(({ kind }) => kind !== "right")).toEqual([]);

      const lost = agent.process.waitForNext(({ event, state }) => event === "link" && state === "down");
      const stoppedMs = performance.now();
      node.process.kill("SIGSTOP");
      await lost;
      note(`${transport}: the agent gave the link up after ${(performance.now() - stoppedMs).toFixed(0)} ms`);
      const back = agent.process.waitForNext(({ event }) => event === "tunnel", 40_000);
      node.process.kill("SIGCONT");
      await back;
      await running(load);
      await judge(load, transport);
    }),
  );
});

test(
  "agents of a node that is told to stop go to its successor, under the same names",
  overBoth(async (transport) => {
    await using origin = await CheckedOrigin.listen();
    using data = new Scratch();
    await using old = await startNode({ data: data.path });
    await using agent = await startAgent({ node: old, target: origin.port, name: "demo", transport });
    await using unnamed = await startAgent({ node: old, target: `127.0.0.1:${origin.port}`, transport });
    await using load = loadOn(old, { isSafe: true });
    await running(load);
    const back = [agent, unnamed].map(({ process }) => process.waitForNext(({ event }) => event === "tunnel", 40_000));
    const ports = portsOf(old);
    old.process.kill("SIGTERM");
    expect(await old.process.exited).toBe(0);
    const startedMs = performance.now();
    await using _successor = await startNode({ data: data.path, ports });
    const names = (await Promise.all(back)).map(({ name }) => name);
    note(`${transport}: agents were back ${(performance.now() - startedMs).toFixed(0)} ms after the successor's start`);
    expect(names).toEqual(["demo", unnamed.name]);
    await running(load);
    await judge(load, transport);
    const lost = load.outcomes.filter(
      ({ kind, isReused, startedMs: at }) => kind !== "right" && isReused && at < startedMs,
    );
    expect(lost).toEqual([]);
  }),
);
