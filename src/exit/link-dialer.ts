/**
 * The exit's side of `Dialer`: picks one of a tunnel's links for each new stream and opens it. The access rule is
 * checked here, on every stream, not only when the link was set up. It prefers links whose origin is up,
 * then takes the better of two random ones by streams over headroom.
 */

import type { Clock } from "../core/clock.ts";
import type { PeerIdentity } from "../core/identity.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Dialer, DialRequest, DialResult } from "../ports/dialer.ts";
import type { Membership, TunnelTable } from "./tunnel-table.ts";

export interface LinkDialerOptions {
  readonly table: TunnelTable;
  readonly clock: Clock;
  /** How long a link may carry new streams after its certificate expired, while it has not renewed. */
  readonly certificateGraceMs: number;
  readonly isNodeDraining: () => boolean;
  /** Asked for every stream; a peer that cannot be judged at once is left to the regular check of live links. */
  readonly isRevoked: (peer: PeerIdentity) => boolean | Promise<boolean>;
  /** 0 up to 1, exclusive. */
  readonly random: () => number;
}

/** Below this reported headroom a link counts as full, so that one with none still gets a share when all are full. */
const headroomFloor = 0.05;

export function createLinkDialer(options: LinkDialerOptions): Dialer {
  return { dial: (request) => dial(options, request), choose: (tunnel) => choose(options, tunnel) };
}

function choose(options: LinkDialerOptions, tunnel: string): string | undefined {
  const members = options.table.members(tunnel);
  if (members === undefined || members.length < 2) return undefined;
  const candidates = members.filter((member) => mayCarry(options, member));
  return candidates.length < 2 ? undefined : pickMember(candidates, undefined, options.random).state.link.id;
}

function dial(options: LinkDialerOptions, request: DialRequest): DialResult {
  const members = options.table.members(request.tunnel);
  if (members === undefined) throw new SallyError("TUNNEL_UNKNOWN");
  let candidates = members.filter((member) => mayCarry(options, member));
  if (candidates.length === 0) throw new SallyError(options.isNodeDraining() ? "DRAINING" : "TUNNEL_OFFLINE");
  let failure: SallyError | undefined;
  let full: Membership[] | undefined;
  while (candidates.length > 0) {
    const member = pickMember(candidates, request.avoidLink, options.random);
    try {
      return openOn(member, request);
    } catch (thrown) {
      failure = toSallyError(thrown);
      // The agent said GOAWAY, or the link is gone: it is not asked again.
      if (failure.code === "DRAINING" || failure.code === "LINK_LOST") member.state.isDraining = true;
      else if (failure.code !== "OVERLOADED" && failure.code !== "STREAM_LIMIT") throw failure;
      if (failure.code === "STREAM_LIMIT") (full ??= []).push(member);
      candidates = candidates.filter((other) => other !== member);
    }
  }
  for (const member of full ?? []) {
    if (request.makeRoom?.(member.state.link.id) === true) return openOn(member, request, true);
  }
  if (failure?.code === "OVERLOADED" || failure?.code === "STREAM_LIMIT") throw failure;
  // Every link is leaving, and none has come instead yet.
  throw new SallyError(options.isNodeDraining() ? "DRAINING" : "TUNNEL_OFFLINE", undefined, { cause: failure });
}

function openOn(member: Membership, request: DialRequest, mayWait = false): DialResult {
  const { link } = member.state;
  return {
    stream: link.open(preambleOf(request), mayWait),
    linkId: link.id,
    claim: member,
    owner: link.peer.identity,
  };
}

/** The access rule: the link holds the name (it is a member), is not leaving, its certificate is current and valid. */
function mayCarry(options: LinkDialerOptions, { state }: Membership): boolean {
  const { link } = state;
  if (state.isDraining || link.isDraining) return false;
  const isCurrent = options.clock.wallMs() <= link.peer.notAfterMs + options.certificateGraceMs;
  return isCurrent && !isKnownRevoked(options, link.peer);
}

/** What cannot be read, or not at once, is judged and reported by the regular check of live links. */
function isKnownRevoked({ isRevoked }: LinkDialerOptions, peer: PeerIdentity): boolean {
  try {
    const verdict = isRevoked(peer);
    if (typeof verdict === "boolean") return verdict;
    verdict.catch(() => undefined);
  } catch {
    return false;
  }
  return false;
}

function preambleOf({ tunnel, protocol, visitor }: DialRequest) {
  return visitor === undefined ? { tunnel, protocol } : { tunnel, protocol, visitor };
}

/** Chooses among at least one member. */
export function pickMember(
  members: readonly Membership[],
  avoidLink: string | undefined,
  random: () => number,
): Membership {
  const first = members[0]!; // the caller has at least one
  if (members.length === 1) return first;
  const preferred = preferring(
    preferring(members, (member) => member.state.link.id !== avoidLink),
    (member) => member.isOriginUp,
  );
  const one = Math.floor(random() * preferred.length);
  if (preferred.length === 1) return preferred[0]!; // `preferring` never returns nothing
  const other = (one + 1 + Math.floor(random() * (preferred.length - 1))) % preferred.length;
  const left = preferred[one]!; // both indexes are below the length
  const right = preferred[other]!;
  return loadOf(right) < loadOf(left) ? right : left;
}

function preferring(members: readonly Membership[], test: (member: Membership) => boolean): readonly Membership[] {
  const passing = members.filter(test);
  return passing.length > 0 ? passing : members;
}

function loadOf({ state }: Membership): number {
  return (state.link.streamCount + 1) / Math.max(state.headroom, headroomFloor);
}
