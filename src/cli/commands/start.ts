/** `sally start -c sally.yaml`: every tunnel of a file. Flags win over the environment, that over the file. */

import { agentSettings, parseConfig, readConfigFile } from "../../apps/load-config.ts";
import { agentConfigSchema } from "../../config/agent-config.ts";
import type { CommandContext } from "../context.ts";
import { type AgentFlags, runAgent } from "./run-agent.ts";

export async function runStart(
  context: CommandContext,
  flags: AgentFlags & { readonly config: string },
): Promise<number> {
  const { config: path, json: _json, ...given } = flags;
  const settings = { ...(await readConfigFile(path)), ...agentSettings(context.environment), ...given };
  return await runAgent(context, parseConfig(agentConfigSchema, settings, path));
}
