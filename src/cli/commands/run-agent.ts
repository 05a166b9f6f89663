/**
 * What `sally http` and `sally start` share: links an agent to a node, or to an embedded one when none is configured,
 * and shows how it goes until it is told to stop.
 */

import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Agent } from "../../agent/agent.ts";
import type { AgentEvent } from "../../agent/events.ts";
import type { AgentTunnel } from "../../agent/tunnel-set.ts";
import { startAgent } from "../../apps/agent.ts";
import { AgentState } from "../../apps/agent-state.ts";
import { parseEdgeUrl } from "../../apps/edge-address.ts";
import { rememberedCredential } from "../../apps/enrol.ts";
import { parseConfig, readGivenFile, type Environment } from "../../apps/load-config.ts";
import type { NodeDeps, RunningNode } from "../../apps/node.ts";
import type { AgentConfig, TunnelSettings } from "../../config/agent-config.ts";
import { nodeConfigSchema } from "../../config/node-config.ts";
import { parseOriginTarget } from "../../config/origin-target.ts";
import { systemClock } from "../../core/clock.ts";
import { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { LogLevel } from "../../core/log.ts";
import type { HostHeaderPolicy } from "../../ports/tunnel-directory.ts";
import { AgentView } from "../agent-view.ts";
import type { CommandContext } from "../context.ts";
import { stopSignals } from "../stop-signals.ts";

export interface AgentFlags {
  readonly edge?: string[];
  readonly transport?: AgentConfig["transport"];
  readonly tokenFile?: string;
  readonly inspect?: string;
  readonly logLevel?: LogLevel;
  readonly json?: boolean;
}

const anyPort = "127.0.0.1:0";

/** @throws SallyError as the parts it starts; the number is the exit code */
export async function runAgent({ environment, output }: CommandContext, config: AgentConfig): Promise<number> {
  const log = output.logger(config.logLevel);
  const stop = stopSignals();
  const state = new AgentState(environment.home);
  const tunnels = config.tunnels.map((tunnel) => toAgentTunnel(tunnel));
  if (config.inspect !== "off") log.warn("the inspector is not part of this version: --inspect is ignored");

  const { edge = await state.lastEdge() } = config;
  const embedded = edge === undefined ? await startEmbeddedNode(environment, log) : undefined;
  const urls = embedded?.urls.tunnel ?? edge ?? [];
  const view = new AgentView(output, systemClock);
  let agent: Agent | undefined;
  const ended = Promise.withResolvers<number>();
  const onEvent = (event: AgentEvent): void => {
    view.onEvent(event);
    if (event.event === "fatal") ended.resolve(event.exitCode);
  };
  try {
    if (embedded !== undefined) view.explainEmbedded(embedded.urls);
    const edges = [urls].flat().map((url) => parseEdgeUrl(url, environment));
    agent = await startAgent({
      edges,
      state,
      token: embedded?.agentToken ?? (await readToken(config.tokenFile, { edges, state }, log)),
      remembersToken: embedded === undefined,
      mode: config.transport,
      lanes: config.lanes,
      tunnels,
      clock: systemClock,
      log,
      onEvent,
      signal: stop.signal,
    });
    view.follow(agent);
    stop.signal.addEventListener("abort", () => ended.resolve(0), { once: true });
    if (stop.signal.aborted) ended.resolve(0);
    return await ended.promise;
  } catch (error) {
    if (stop.signal.aborted) return 0;
    throw error;
  } finally {
    view.close();
    await agent?.close(stop.signal.aborted ? limits.agentStopGraceMs : 0);
    await embedded?.close();
  }
}

/** A node on loopback with ports of the system's choice, so that the first command a person types works. */
async function startEmbeddedNode(environment: Environment, log: NodeDeps["log"]): Promise<RunningNode> {
  // Loaded only here: an agent of somebody else's node starts sooner without it.
  const { startNode } = await import("../../apps/node.ts");
  const start = (http: string, folder: string): Promise<RunningNode> => {
    const data = join(environment.home, folder);
    const settings = { http, tunnel: "127.0.0.1:0", admin: "127.0.0.1:0", data, logLevel: "warn" };
    return startNode(parseConfig(nodeConfigSchema, settings, "embedded node"), {
      clock: systemClock,
      log,
      ownsData: true,
    });
  };
  let http = "127.0.0.1:8080";
  for (let tries = 1; ;) {
    try {
      return await start(http, tries === 1 ? "node" : `node-${tries}`);
    } catch (error) {
      if (!(error instanceof SallyError)) throw error;
      if (error.code === "ADDRESS_IN_USE" && http !== anyPort) http = anyPort;
      else if (error.code === "DATA_IN_USE" && tries < limits.embeddedNodes) tries++;
      else throw error;
    }
  }
}

/** Without the file an enrolled machine goes on with what it has. @throws SallyError USAGE */
async function readToken(
  path: string | undefined,
  enrolled: Parameters<typeof rememberedCredential>[0],
  log: NodeDeps["log"],
): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readGivenFile(path);
  } catch (error) {
    const isMissing = error instanceof SallyError && (error.cause as NodeJS.ErrnoException).code === "ENOENT"; // the system's
    const held = isMissing ? await rememberedCredential(enrolled) : undefined;
    if (held === undefined) throw error;
    log.warn(`there is no ${path}: going on as ${held.credential.identity}, which this machine was enrolled as`);
    return undefined;
  }
}

function toAgentTunnel(settings: TunnelSettings): AgentTunnel {
  const target = parseOriginTarget(settings.target);
  return {
    ...(settings.name === undefined ? { stableKey: stableKey(target.label) } : { name: settings.name }),
    target,
    hostHeader: hostPolicy(settings.host, target.hostHeader),
    isShared: settings.shared,
  };
}

function hostPolicy(host: string, originHost: string): HostHeaderPolicy {
  if (host === "preserve") return { kind: "preserve" };
  return host === "rewrite" ? { kind: "rewrite", originHost } : { kind: "value", value: host };
}

/** The node adds the identity: the same folder and target give the same name again, and do not tell where they are. */
function stableKey(target: string): string {
  return createHash("sha256").update(`${process.cwd()}\n${target}`).digest("hex").slice(0, 32);
}
