/** `sally http TARGET`: one tunnel, from flags. */

import { parseConfig } from "../../apps/load-config.ts";
import { agentConfigSchema } from "../../config/agent-config.ts";
import type { CommandContext } from "../context.ts";
import { type AgentFlags, runAgent } from "./run-agent.ts";

export interface HttpFlags extends AgentFlags {
  readonly name?: string;
  readonly host?: string;
  readonly shared?: boolean;
}

export async function runHttp(context: CommandContext, flags: HttpFlags, target = ""): Promise<number> {
  const { name, host, shared, json: _json, ...rest } = flags;
  const tunnel = { target, name, host, shared };
  return await runAgent(context, parseConfig(agentConfigSchema, { ...rest, tunnels: [tunnel] }, "sally http"));
}
