/** `sally status`: what a node on this machine holds now. */

import { openAdmin } from "../../apps/admin.ts";
import { systemClock } from "../../core/clock.ts";
import type { CommandContext } from "../context.ts";
import { printable } from "../output.ts";
import type { AdminFlags } from "./token.ts";

export async function runStatus({ output }: CommandContext, flags: AdminFlags): Promise<number> {
  const admin = await openAdmin({ ...flags, needsToken: false });
  const [status, tunnels, links] = await Promise.all([admin.status(), admin.tunnels(), admin.links()]);
  output.event({ event: "status", ...status, tunnels, links });
  const upMinutes = Math.round((systemClock.wallMs() - status.startedMs) / 60_000);
  output.line(
    `sally ${status.version}  domain ${status.domain}  up ${upMinutes} min  ${status.isReady ? "ready" : "not ready"}`,
  );
  for (const { name, state, url, origin, identity } of tunnels) {
    const where = state === "live" ? `${url ?? ""} -> ${printable(origin ?? "")}` : "no agent";
    output.line(`tunnel  ${name.padEnd(24)} ${state.padEnd(8)} ${where}  (${identity})`);
  }
  for (const { remote, transport, rttMs, streams, names } of links) {
    const rtt = rttMs === undefined ? "" : `${rttMs.toFixed(1)} ms  `;
    output.line(`link    ${remote.padEnd(24)} ${transport.padEnd(9)} ${rtt}${streams} streams  ${names.join(", ")}`);
  }
  return 0;
}
