/**
 * Answers an agent's `claim`: asks the policy whether the identity may have each name, then the table whether the link
 * may serve it, and tells whoever gave way. Claims of one link are answered in order, one at a time.
 */

import type { ErrorCode } from "../core/errors.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { PeerIdentity } from "../core/identity.ts";
import type { Limits } from "../core/limits.ts";
import type { ClaimResult, ControlMessage, TunnelRequest } from "../wire/messages.ts";
import type { LinkState, Membership, TunnelTable } from "./tunnel-table.ts";

export type ClaimDecision =
  | { readonly ok: true; readonly name: string }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

/** Who may have which name: the control room's side of a claim. */
export interface ClaimPolicy {
  /** Reserves or extends the name, or derives one from `stableKey` when the request has no name. */
  claim(peer: PeerIdentity, request: TunnelRequest): Promise<ClaimDecision>;
  release(peer: PeerIdentity, name: string): void | Promise<void>;
  /** These names are served now: their leases are extended. */
  touch(names: readonly string[]): void | Promise<void>;
}

export interface RefusedName {
  readonly name: string | undefined;
  readonly code: ErrorCode;
}

export interface ClaimsOptions {
  readonly policy: ClaimPolicy;
  readonly table: TunnelTable;
  readonly limits: Limits;
  readonly publicUrl: (name: string) => string;
  /** False once the link is gone or the node drains: its claims are no longer placed. */
  readonly isAccepting: (state: LinkState) => boolean;
  readonly onClaimed: (membership: Membership) => void;
  /** Once for each claim of which something was refused. */
  readonly onRefused: (state: LinkState, refused: readonly RefusedName[]) => void;
  readonly onReplaced: (membership: Membership) => void;
  /** The link lost its last name: it finishes what runs. */
  readonly onDraining: (state: LinkState) => void;
  /** A link that answers nothing was superseded. */
  readonly onSilent: (state: LinkState) => void;
}

type ClaimMessage = Extract<ControlMessage, { readonly type: "claim" }>;

/** Names that are looked at in one turn of the event loop: each may cost a write to the disk. */
const namesPerTurn = 4;

/** What goes wrong with a name is part of the answer. `pace` is awaited before so many names are looked at. */
export async function answerClaim(
  options: ClaimsOptions,
  state: LinkState,
  { requestId, tunnels, links }: ClaimMessage,
  pace: (names: number) => Promise<void>,
): Promise<void> {
  const { tunnelsPerLink } = options.limits;
  const results: ClaimResult[] = [];
  const gaveWay: GaveWay = { replaced: [], superseded: [] };
  const claimed = new Set<string>();
  const considered = Math.min(tunnels.length, tunnelsPerLink);
  for (let at = 0; at < considered; at += namesPerTurn) {
    await pace(Math.min(namesPerTurn, considered - at));
    if (state.link.isClosed) break;
    for (const request of tunnels.slice(at, Math.min(at + namesPerTurn, considered))) {
      const decision = await decide(options, state, request);
      const result = decision.ok && claimed.has(decision.name) ? twice(decision.name) : decision;
      const answer = result.ok
        ? place(options, state, { request, name: result.name, gaveWay })
        : refusal(request.name, result);
      if (answer.ok) claimed.add(answer.name);
      results.push(answer);
    }
  }
  letGo(options, gaveWay, links);
  if (state.link.isClosed) return;
  for (const { name } of tunnels.slice(considered)) results.push(refusal(name, tooMany(tunnelsPerLink)));
  const refused = results.flatMap((result) => (result.ok ? [] : [{ name: result.name, code: result.code }]));
  if (refused.length > 0) options.onRefused(state, refused);
  state.link.send({ type: "claimed", requestId, results });
}

async function decide(
  { policy, limits }: ClaimsOptions,
  state: LinkState,
  request: TunnelRequest,
): Promise<ClaimDecision> {
  const isNew = request.name === undefined || !state.memberships.has(request.name);
  if (isNew && state.memberships.size >= limits.tunnelsPerLink) return tooMany(limits.tunnelsPerLink);
  try {
    return await policy.claim(state.link.peer, request);
  } catch (thrown) {
    const { code, message } = toSallyError(thrown);
    return { ok: false, code, message };
  }
}

interface GaveWay {
  readonly replaced: Membership[];
  readonly superseded: Membership[];
}

function place(
  options: ClaimsOptions,
  state: LinkState,
  { request, name, gaveWay }: { request: TunnelRequest; name: string; gaveWay: GaveWay },
): ClaimResult {
  if (!options.isAccepting(state)) {
    return refusal(name, { ok: false, code: "DRAINING", message: "The node is shutting down." });
  }
  try {
    const { hostHeader, pathPrefix, originLabel, shared } = request;
    const { replaced, superseded } = options.table.place(state, {
      name,
      hostHeader,
      pathPrefix,
      originLabel,
      isShared: shared,
    });
    gaveWay.replaced.push(...replaced);
    gaveWay.superseded.push(...superseded);
    tellReplaced(options, replaced);
    const membership = state.memberships.get(name);
    if (membership !== undefined) options.onClaimed(membership);
    return { ok: true, name, url: options.publicUrl(name) };
  } catch (thrown) {
    const { code, message } = toSallyError(thrown);
    return refusal(name, { ok: false, code, message });
  }
}

function tellReplaced(options: ClaimsOptions, replaced: readonly Membership[]): void {
  for (const membership of replaced) {
    membership.state.link.send({ type: "replaced", names: [membership.name] });
    options.onReplaced(membership);
  }
}

/**
 * Links that lost their last name get no new streams, finish what runs, and close. A process that was replaced is most
 * often dead: whoever waits for it should not wait longer than necessary. One that came back itself is not, and what it
 * was asked over the older link may yet be answered, unless it says that it has given that up.
 */
function letGo(
  options: ClaimsOptions,
  { replaced, superseded }: GaveWay,
  heldLinks: readonly string[] | undefined,
): void {
  for (const { state } of replaced) state.link.suspect();
  for (const { state } of superseded) {
    if (state.memberships.size > 0 || state.isSuperseded) continue;
    state.isSuperseded = true;
    if (heldLinks?.includes(state.link.id) === false) state.link.close(new SallyError("LINK_LOST"));
    else state.link.bear();
  }
  for (const { state } of [...replaced, ...superseded]) {
    if (state.memberships.size > 0 || state.isDraining) continue;
    state.isDraining = true;
    state.link.drain();
    options.onDraining(state);
    if (state.isSuperseded && state.link.isInDoubt) options.onSilent(state);
  }
}

function refusal(
  name: string | undefined,
  { code, message }: Extract<ClaimDecision, { readonly ok: false }>,
): ClaimResult {
  return name === undefined ? { ok: false, code, message } : { name, ok: false, code, message };
}

function tooMany(max: number): Extract<ClaimDecision, { readonly ok: false }> {
  return { ok: false, code: "NAME_LIMIT", message: `One agent serves at most ${max} tunnels.` };
}

function twice(name: string): ClaimDecision {
  return { ok: false, code: "NAME_IN_USE", message: `"${name}" is claimed twice by this agent.` };
}
