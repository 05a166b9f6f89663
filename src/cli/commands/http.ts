/** `sally http TARGET`: one tunnel, from flags. */

import { agentSettings, parseConfig } from "../../apps/load-config.ts";
import { agentConfigSchema } from "../../config/agent-config.ts";
import type { CommandContext } from "../context.ts";
import { type AgentFlags, runAgent } from "./run-agent.ts";

export interface HttpFlags extends AgentFlags {
  readonly name?: string;
  readonly host?: string;
  readonly shared?: boolean;
}

export async function runHttp(context: CommandContext, flags: HttpFlags, target = ""): Promise<number> {
  const { name, host, shared, json: _json, ...given } = flags;
  const tunnel = { target, name, host, shared };
  const settings = { ...agentSettings(context.environment), ...given, tunnels: [tunnel] };
  return await runAgent(context, parseConfig(agentConfigSchema, settings, "sally http"));
}
