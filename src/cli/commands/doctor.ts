/** `sally doctor`: checks what this machine can do, and whether each node is reachable, over both transports. */

import { AgentState } from "../../apps/agent-state.ts";
import { type EdgeAddress, parseEdgeUrl } from "../../apps/edge-address.ts";
import { checkLink } from "../../apps/link-check.ts";
import { nodeRequest } from "../../apps/node-access.ts";
import { version } from "../../apps/version.ts";
import { fetchCa } from "../../api/enrol-client.ts";
import { systemClock } from "../../core/clock.ts";
import { toSallyError } from "../../core/errors.ts";
import { loadQuic } from "../../transport/quic/load-quic.ts";
import type { CommandContext } from "../context.ts";
import { stopSignals } from "../stop-signals.ts";

interface Check {
  readonly name: string;
  /** What is well; rejects with what is not. */
  readonly run: () => Promise<string>;
}

export async function runDoctor(context: CommandContext, flags: { readonly edge?: string[] }): Promise<number> {
  const { environment, output } = context;
  const { signal } = stopSignals();
  const state = new AgentState(environment.home);
  const usual = environment.edge ?? (await lastEdge(state));
  const edges = (flags.edge ?? (usual === undefined ? [] : [usual])).map((url) => parseEdgeUrl(url, environment));
  const home = async (): Promise<string> => `${environment.home}, installation ${await state.installation()}`;
  const checks: Check[] = [
    { name: "version", run: async () => `${version}, Bun ${Bun.version}` },
    { name: "quic", run: async () => (loadQuic(), "this runtime has QUIC") },
    { name: "home", run: home },
    ...(await Promise.all(edges.map((edge) => nodeChecks(edge, state, signal)))).flat(),
  ];
  let failures = 0;
  for (const { name, run } of checks) {
    try {
      const detail = await run();
      output.event({ event: "check", name, ok: true, detail });
      output.line(`ok    ${name}: ${detail}`);
    } catch (error) {
      failures++;
      const { code, message } = toSallyError(error);
      output.event({ event: "check", name, ok: false, code, message });
      output.line(`FAIL  ${name}: ${message}`);
    }
  }
  return failures === 0 ? 0 : 1;
}

/** A link needs a certificate: without login only the node's answer is looked at. */
async function nodeChecks(edge: EdgeAddress, state: AgentState, signal: AbortSignal): Promise<Check[]> {
  const isLoggedIn = (await state.credentialKeyFor(edge.authority).catch(() => undefined)) !== undefined;
  const answers = async (): Promise<string> => {
    await fetchCa(nodeRequest(edge, undefined, signal));
    const via = edge.proxyUrl === undefined ? "" : " through the proxy";
    return `answers over TCP${via}; ${isLoggedIn ? "logged in" : "not logged in: a token is needed"}`;
  };
  const links = (["quic", "websocket"] as const).map((transport) => ({
    name: `link ${edge.url} over ${transport}`,
    run: async () => {
      const tookMs = await checkLink({ edge, transport, state, clock: systemClock, signal });
      return `stands after ${tookMs.toFixed(0)} ms`;
    },
  }));
  return [{ name: `node ${edge.url}`, run: answers }, ...(isLoggedIn ? links : [])];
}

/** A home that cannot be read has a check of its own. */
async function lastEdge(state: AgentState): Promise<string | undefined> {
  try {
    return await state.lastEdge();
  } catch {
    return undefined;
  }
}
