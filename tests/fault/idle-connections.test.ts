/**
 * What thousands of connections cost that do nothing (the promise: 10,000 idle WebSockets take at most 20 KB each at the
 * edge). Real processes; resident memory as the kernel counts it, which includes whatever the runtime keeps in reserve.
 */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { Crowd } from "../support/crowd.ts";
import { note } from "../support/fault-rig.ts";
import { openFilesMax, residentBytes } from "../support/process-memory.ts";
import { startAgent, startNode } from "../support/sally.ts";
import { until } from "../support/until.ts";

/** Fewer where a process may not have so many files; a node needs some for itself. */
const count = Math.min(10_000, openFilesMax() - 200);
const promisedKb = 20;
const request = "GET / HTTP/1.1\r\nHost: demo.localhost\r\n";
const upgrade =
  `${request}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/** An origin in a process of its own, since it has as many connections as the node. */
async function startOrigin(): Promise<AsyncDisposable & { readonly port: number }> {
  const path = join(import.meta.dir, "upgrade-origin.fixture.ts");
  const child = Bun.spawn([process.execPath, path], { stdio: ["ignore", "pipe", "inherit"] });
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  return {
    port: Number(new TextDecoder().decode(value)),
    async [Symbol.asyncDispose]() {
      child.kill();
      await child.exited;
    },
  };
}

const cases = [
  { kind: "upgraded", transport: "websocket" },
  { kind: "upgraded", transport: "quic" },
  { kind: "kept-alive", transport: "websocket" },
] as const;

for (const { kind, transport } of cases) {
  test(`${count} idle ${kind} connections over ${transport} cost at most 20 KB each`, async () => {
    await using origin = await startOrigin();
    await using node = await startNode();
    await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
    using crowd = new Crowd(node.port);
    const pids = [node.process.pid, agent.process.pid];
    const before = pids.map(residentBytes);
    const cost = (): number[] => pids.map((pid, at) => (residentBytes(pid) - before[at]!) / count / 1_000); // as many as pids
    await crowd.joinAndWait(count, kind === "upgraded" ? upgrade : `${request}\r\n`);
    expect(crowd.firstText).toStartWith(`HTTP/1.1 ${kind === "upgraded" ? 101 : 200}`);
    // The collector gives back what the openings left behind when it finds the time.
    const kilobytes = await until("a settled size", () => cost().every((each) => each <= promisedKb) && cost());
    note(
      `${kind} over ${transport}: ${kilobytes.map((each) => each.toFixed(1)).join(" KB at the node, ")} at the agent`,
    );
    expect(crowd.ended).toBe(0);
    // They still work, all of them.
    const receivedBytes = crowd.receivedBytes;
    const message = kind === "upgraded" ? "hello" : `${request}\r\n`;
    const expected = kind === "upgraded" ? message.length * count : receivedBytes;
    crowd.say(message);
    await until("an answer on each", () => crowd.receivedBytes - receivedBytes >= expected, 60_000);
    expect(crowd.receivedBytes - receivedBytes).toBe(expected);
    expect(crowd.ended).toBe(0);
    expect(Math.max(...cost())).toBeLessThan(2 * promisedKb);
  }, 120_000);
}
