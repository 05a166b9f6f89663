/** `sally login URL`: enrols this machine, so that later commands need neither token nor URL of it. */

import { readFile } from "node:fs/promises";
import { AgentState } from "../../apps/agent-state.ts";
import { parseEdgeUrl } from "../../apps/edge-address.ts";
import { enrol } from "../../apps/enrol.ts";
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
  const token = flags.token ?? (await readTokenFile(flags.tokenFile ?? environment.tokenFile));
  const { key, credential } = await enrol({ edge, state, signal: stopSignals().signal }, token);
  await state.rememberEdge(edge.authority, key);
  output.event({ event: "login", edge: edge.url, identity: credential.identity });
  output.line(`Logged in to ${edge.url} as ${credential.identity}. Try: sally http 3000 --edge ${edge.url}`);
  return 0;
}

async function readTokenFile(path: string | undefined): Promise<string> {
  if (path === undefined) throw new SallyError("USAGE", "pass the join token with --token-file FILE");
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new SallyError("USAGE", `cannot read the token file ${path}: check the path and its permissions`, { cause });
  }
}
