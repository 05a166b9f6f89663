/**
 * Who may serve which name. A name must be a host label, the token must allow it, and it must be free or the
 * identity's own; a peer without identity or token owns nothing, so no check can be skipped by leaving them out.
 */

import type { Clock } from "../core/clock.ts";
import { type ErrorCode, SallyError, toSallyError } from "../core/errors.ts";
import type { PeerIdentity } from "../core/identity.ts";
import type { Limits } from "../core/limits.ts";
import type { NameRecord, Registry, TokenRecord } from "../ports/registry.ts";
import { allowsName, generatedPrefix, generateName, nameFault } from "./names.ts";
import { isTokenLive, type Revocations } from "./revocations.ts";

export interface ClaimRequest {
  /** The name that the agent asks for. */
  readonly name?: string | undefined;
  /** Without a name: what a stable free name is derived from, together with the identity. */
  readonly stableKey?: string | undefined;
}

export type ClaimDecision =
  | { readonly ok: true; readonly name: string }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

export interface ClaimPolicy {
  /** Reserves the name for the peer's identity, or says why not. @throws SallyError STORE_FAILED */
  claim(peer: PeerIdentity, request: ClaimRequest): Promise<ClaimDecision>;
  /** Ends the lease, if the name is the peer's; the quarantine begins. */
  release(peer: PeerIdentity, name: string): Promise<void>;
  /** Extends the leases of names that are served now, for those who own them. */
  touch(names: readonly string[]): Promise<void>;
}

export interface ClaimPolicyOptions {
  readonly registry: Registry;
  readonly revocations: Revocations;
  readonly clock: Clock;
  readonly limits: Pick<
    Limits,
    "nameLeaseMs" | "nameLeaseFreshShare" | "nameQuarantineMs" | "namesPerIdentity" | "generatedNameAttempts"
  >;
}

export function createClaimPolicy(options: ClaimPolicyOptions): ClaimPolicy {
  return {
    async claim(peer, request) {
      try {
        const token = await usableToken(options, peer);
        const record =
          request.name === undefined
            ? await reserveGenerated(options, peer, token, request)
            : await reserveNamed(options, peer, token, request.name);
        return { ok: true, name: record.name };
      } catch (error) {
        const { code, message } = toSallyError(error);
        if (code === "INTERNAL" || code === "STORE_FAILED") throw error;
        return { ok: false, code, message };
      }
    },

    async release(peer, name) {
      if (!isSomebody(peer)) return;
      const { registry, clock, limits } = options;
      const nowMs = clock.wallMs();
      const before = await registry.findName(name);
      if (before?.identity !== peer.identity) return;
      const isReleased = await registry.releaseName(name, peer.identity, nowMs, limits.nameQuarantineMs);
      if (!isReleased || before.leaseUntilMs <= nowMs) return;
      await registry.audit({ atMs: nowMs, actor: peer.identity, action: "name.release", subject: name });
    },

    async touch(names) {
      for (const name of names) {
        const known = await options.registry.findName(name);
        if (known === undefined || known.leaseUntilMs <= options.clock.wallMs()) continue; // a claim brings it back
        await reserve(options, known.identity, name);
      }
    },
  };
}

function isSomebody({ role, identity, tokenId }: PeerIdentity): boolean {
  return role === "agent" && identity !== "" && tokenId !== undefined;
}

/** @throws SallyError FORBIDDEN, CERTIFICATE_REVOKED */
async function usableToken(options: ClaimPolicyOptions, peer: PeerIdentity): Promise<TokenRecord> {
  if (!isSomebody(peer) || peer.tokenId === undefined) throw new SallyError("FORBIDDEN", "Only agents serve tunnels.");
  const token = await options.registry.findToken(peer.tokenId);
  const isLive = token !== undefined && isTokenLive(token, options.clock.wallMs());
  if (!isLive || token.identity !== peer.identity || (await options.revocations.isRevoked(peer))) {
    throw new SallyError("CERTIFICATE_REVOKED", "The certificate or its token was revoked: log in again.");
  }
  return token;
}

async function reserveNamed(
  options: ClaimPolicyOptions,
  peer: PeerIdentity,
  token: TokenRecord,
  name: string,
): Promise<NameRecord> {
  const fault = nameFault(name);
  if (fault !== undefined) throw new SallyError("NAME_INVALID", `This name cannot be used: ${fault}.`);
  if (!allowsName(token.scope.names, name)) throw notAllowed(token);
  const { record, untilMs } = await reserve(options, peer.identity, name);
  if (record !== undefined) return record;
  const until = new Date(untilMs).toISOString().slice(0, 16);
  throw new SallyError(
    "NAME_TAKEN",
    `"${name}" belongs to somebody else until ${until}Z at least: choose another name.`,
  );
}

/** The same name every time: first one that is already the identity's, else the first candidate that is free. */
async function reserveGenerated(
  options: ClaimPolicyOptions,
  peer: PeerIdentity,
  token: TokenRecord,
  { stableKey = peer.installation }: ClaimRequest,
): Promise<NameRecord> {
  const prefix = generatedPrefix(token.scope.names);
  if (prefix === undefined) throw notAllowed(token);
  const candidates: string[] = [];
  for (let attempt = 0; attempt < options.limits.generatedNameAttempts; attempt++) {
    const name = prefix + (await generateName({ identity: peer.identity, stableKey, attempt }));
    if (nameFault(name) !== undefined) throw notAllowed(token); // the token's prefix leaves too little room
    const known = await options.registry.findName(name);
    if (known?.identity === peer.identity) candidates.unshift(name);
    else candidates.push(name);
    if (attempt === 0 && known?.identity === peer.identity) break; // nearly always
  }
  for (const name of candidates) {
    const { record } = await reserve(options, peer.identity, name);
    if (record !== undefined) return record;
  }
  throw new SallyError("NAME_TAKEN", "No free name was found for this tunnel: pass --name.");
}

type Reserved =
  | { readonly record: NameRecord; readonly untilMs?: undefined }
  | { readonly record: undefined; readonly untilMs: number };

async function reserve(options: ClaimPolicyOptions, identity: string, name: string): Promise<Reserved> {
  const { registry, clock, limits } = options;
  const nowMs = clock.wallMs();
  const before = await registry.findName(name);
  const freshUntilMs = nowMs + limits.nameLeaseMs * limits.nameLeaseFreshShare;
  if (before?.identity === identity && before.leaseUntilMs > freshUntilMs) return { record: before };
  const result = await registry.reserveName({
    name,
    identity,
    nowMs,
    leaseMs: limits.nameLeaseMs,
    quarantineMs: limits.nameQuarantineMs,
    namesMax: limits.namesPerIdentity,
  });
  if (result.kind === "taken") return { record: undefined, untilMs: result.untilMs };
  if (result.kind === "limit") {
    throw new SallyError("NAME_LIMIT", `You hold ${result.max} names, the most there may be: release one.`);
  }
  if (before?.identity !== identity || before.leaseUntilMs <= nowMs) {
    await registry.audit({ atMs: nowMs, actor: identity, action: "name.reserve", subject: name });
  }
  return { record: result.record };
}

function notAllowed(token: TokenRecord): SallyError {
  const allowed = token.scope.names.join(", ");
  return new SallyError("NAME_NOT_ALLOWED", `This token allows only these names: ${allowed}. Pass one with --name.`);
}
