/** `sally login URL`: enrols this machine, so that later commands need neither token nor URL of it. */

import { AgentState } from "../../apps/agent-state.ts";
import { parseEdgeUrl } from "../../apps/edge-address.ts";
import { enrol } from "../../apps/enrol.ts";
import { readGivenFile } from "../../apps/load-config.ts";
import { SallyError } from "../../core/errors.ts";
import type { CommandContext } from "../context.ts";
import { stopSignals } from "../stop-signals.ts";

export interface LoginFlags {
  readonly token?: string;
  readonly tokenFile?: string;
}

export async function runLogin({ environment, output }: CommandContext, flags: LoginFlags, url = ""): Promise<number> {
  const edge = parseEdgeUrl(url, environment);
  const state = new AgentState(environment.home);
  if (flags.token !== undefined && flags.tokenFile !== undefined) {
    throw new SallyError("USAGE", "pass --token or --token-file, not both");
  }
  const path = flags.tokenFile ?? environment.tokenFile;
  const token = flags.token ?? (path === undefined ? undefined : await readGivenFile(path));
  if (token === undefined) throw new SallyError("USAGE", "pass the join token with --token-file FILE");
  const { key, credential } = await enrol({ edges: [edge], state, signal: stopSignals().signal }, token);
  await state.rememberEdge(edge, key);
  output.event({ event: "login", edge: edge.url, identity: credential.identity });
  output.line(`Logged in to ${edge.url} as ${credential.identity}. Try: sally http 3000`);
  return 0;
}
