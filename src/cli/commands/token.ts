/** `sally token create|list|revoke`: join tokens of a node on this machine. */

import type { AdminClient } from "../../api/admin-client.ts";
import { tokenCreate } from "../../api/schemas.ts";
import { openAdmin } from "../../apps/admin.ts";
import { parseConfig } from "../../apps/load-config.ts";
import { systemClock } from "../../core/clock.ts";
import type { CommandContext } from "../context.ts";
import { printable } from "../output.ts";

export interface AdminFlags {
  readonly admin: string;
  readonly data: string;
}

function openTokens({ admin, data }: AdminFlags): Promise<AdminClient> {
  return openAdmin({ admin, data, needsToken: true });
}

const hourMs = 60 * 60 * 1_000;

export async function runTokenCreate(
  { output }: CommandContext,
  flags: AdminFlags & { label: string; identity?: string; names?: string[]; expires?: number },
): Promise<number> {
  const { label, identity, names = [], expires } = flags;
  const wanted = {
    label: label === "" ? "made on the command line" : label,
    names,
    ...(identity === undefined ? {} : { identity }),
    ...(expires === undefined ? {} : { expiresMs: systemClock.wallMs() + expires * hourMs }),
  };
  const request = parseConfig(tokenCreate, wanted, "sally token create");
  const { token, info } = await (await openTokens(flags)).createToken(request);
  output.event({ event: "token", token, ...info });
  output.line(token);
  output.note(
    `Its agents claim the names of ${info.identity}; --identity gives another machine of yours the same ones.`,
  );
  return 0;
}

export async function runTokenList({ output }: CommandContext, flags: AdminFlags): Promise<number> {
  const tokens = await (await openTokens(flags)).tokens();
  for (const token of tokens) {
    output.event({ event: "token", ...token });
    const state = token.revokedMs !== undefined ? "revoked" : isPast(token.expiresMs) ? "expired" : "live";
    const names = token.names.length === 0 ? "any name" : token.names.join(",");
    output.line([token.id, state.padEnd(7), token.identity, names, printable(token.label)].join("  "));
  }
  return 0;
}

export async function runTokenRevoke({ output }: CommandContext, flags: AdminFlags, id = ""): Promise<number> {
  await (await openTokens(flags)).revokeToken(id);
  output.event({ event: "revoked", id });
  output.line(`Revoked ${printable(id)}; its links are closed.`);
  return 0;
}

function isPast(timeMs: number | undefined): boolean {
  return timeMs !== undefined && timeMs <= systemClock.wallMs();
}
