/** `sally doctor`: checks what this machine can do, and whether each node is reachable over both transports. */

import { AgentState } from "../../apps/agent-state.ts";
import { parseEdgeUrl } from "../../apps/edge-address.ts";
import { nodeRequest } from "../../apps/node-access.ts";
import { version } from "../../apps/version.ts";
import { fetchCa } from "../../api/enrol-client.ts";
import { toSallyError } from "../../core/errors.ts";
import { loadQuic } from "../../transport/quic/load-quic.ts";
import type { CommandContext } from "../context.ts";
import { stopSignals } from "../stop-signals.ts";

type Check = () => Promise<string>;

export async function runDoctor(context: CommandContext, flags: { readonly edge?: string[] }): Promise<number> {
  const { environment, output } = context;
  const { signal } = stopSignals();
  const edges = flags.edge ?? (environment.edge === undefined ? [] : [environment.edge]);
  const state = new AgentState(environment.home);
  const checks: [string, Check][] = [
    ["version", async () => `${version}, Bun ${Bun.version}`],
    ["quic", async () => (loadQuic(), "this runtime has QUIC")],
    ["home", async () => `${environment.home}, installation ${await state.installation()}`],
    ...edges.map((url): [string, Check] => [
      `node ${url}`,
      async () => {
        const edge = parseEdgeUrl(url, environment);
        await fetchCa(nodeRequest(edge, undefined, signal));
        const via = edge.proxyUrl === undefined ? "" : " through the proxy";
        const isLoggedIn = (await state.credentialKeyFor(edge.authority)) !== undefined;
        return `answers over TCP${via}; ${isLoggedIn ? "logged in" : "not logged in: a token is needed"}`;
      },
    ]),
  ];
  let failures = 0;
  for (const [name, check] of checks) {
    try {
      const detail = await check();
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
