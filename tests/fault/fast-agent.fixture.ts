/**
 * An agent whose time runs twenty times as fast, and whose machine "sleeps" for a minute at each line on stdin: it finds
 * out within moments and links anew. Takes the node's URL, the token file, its folder, the transport and a target.
 */

import "./heap-report.fixture.ts";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { startAgent } from "../../src/apps/agent.ts";
import { AgentState } from "../../src/apps/agent-state.ts";
import { parseEdgeUrl } from "../../src/apps/edge-address.ts";
import { readEnvironment } from "../../src/apps/load-config.ts";
import { parseOriginTarget } from "../../src/config/origin-target.ts";
import { systemClock, type Clock } from "../../src/core/clock.ts";
import { limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import type { TransportMode } from "../../src/transport/dialler.ts";

const speed = 20;
const sleepMs = 60_000;

const startMs = systemClock.nowMs();
const startWallMs = systemClock.wallMs();
let sleptMs = 0;

const clock: Clock = {
  nowMs: () => startMs + (systemClock.nowMs() - startMs) * speed,
  wallMs: () => startWallMs + (systemClock.nowMs() - startMs) * speed + sleptMs,
  after: (delayMs, callback) => systemClock.after(delayMs / speed, callback),
};

const [edge = "", tokenFile = "", home = "", mode = "", target = ""] = process.argv.slice(2);
const say = (event: object): void => void process.stdout.write(`${JSON.stringify(event)}\n`);

await startAgent({
  edges: [parseEdgeUrl(edge, readEnvironment())],
  state: new AgentState(home),
  token: await readFile(tokenFile, "utf8"),
  remembersToken: false,
  mode: mode as TransportMode,
  lanes: limits.lanesPerLink,
  tunnels: [{ name: "demo", target: parseOriginTarget(target), hostHeader: { kind: "preserve" }, isShared: false }],
  clock,
  log: silentLogger,
  onEvent: (event) => say("error" in event ? { ...event, error: event.error?.code } : event),
  signal: new AbortController().signal,
});

for await (const _line of createInterface(process.stdin)) sleptMs += sleepMs;
process.exit(0);
