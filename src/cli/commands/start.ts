/** `sally start -c sally.yaml`: every tunnel of a file. Flags win over the file. */

import { parseConfig, readConfigFile } from "../../apps/load-config.ts";
import { agentConfigSchema } from "../../config/agent-config.ts";
import { SallyError } from "../../core/errors.ts";
import type { CommandContext } from "../context.ts";
import { type AgentFlags, runAgent } from "./run-agent.ts";

export async function runStart(
  context: CommandContext,
  flags: AgentFlags & { readonly config: string },
): Promise<number> {
  const { config: path, json: _json, ...rest } = flags;
  const file = await readConfigFile(path);
  if (typeof file !== "object" || file === null || Array.isArray(file)) {
    throw new SallyError("USAGE", `${path} must hold settings, such as "tunnels:"; see docs/config.md`);
  }
  return await runAgent(context, parseConfig(agentConfigSchema, { ...file, ...rest }, path));
}
