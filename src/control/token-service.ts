/** Join tokens: made, listed, revoked, recognised. The secret leaves this file once, in what `create` returns. */

import { equalConstantTime, hexDecode, hexEncode } from "../core/bytes.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Registry, TokenRecord } from "../ports/registry.ts";
import { createSecret, formatJoinToken, hashSecret } from "../trust/join-token.ts";
import { isTokenLive, type Revocations } from "./revocations.ts";

export interface NewToken {
  readonly label: string;
  /** A new one when absent: a token shares the names of no other unless that is said. */
  readonly identity?: string | undefined;
  /** Patterns; empty allows every name. */
  readonly names: readonly string[];
  readonly ports: readonly number[];
  readonly expiresMs?: number | undefined;
}

export interface TokenServiceOptions {
  readonly registry: Registry;
  readonly revocations: Revocations;
  readonly clock: Clock;
  readonly caFingerprint: string;
}

/** Who the first token belongs to: the person who runs the node. */
export const ownerIdentity = "owner";

export class TokenService {
  readonly #options: TokenServiceOptions;

  constructor(options: TokenServiceOptions) {
    this.#options = options;
  }

  /** Returns the whole join token, once. @throws SallyError USAGE, OVERLOADED */
  async create(request: NewToken, actor: string): Promise<{ readonly token: string; readonly record: TokenRecord }> {
    const { registry, clock, caFingerprint } = this.#options;
    const nowMs = clock.wallMs();
    if (request.expiresMs !== undefined && request.expiresMs <= nowMs) {
      throw new SallyError("USAGE", "The token would have expired already: give a time in the future.");
    }
    if ((await registry.listTokens()).length >= limits.tokensMax) {
      throw new SallyError("OVERLOADED", `There are ${limits.tokensMax} tokens already.`);
    }
    const secret = createSecret();
    const record = await tokenRecord(secret, { ...request, identity: request.identity ?? newIdentity() }, nowMs);
    await registry.addToken(record);
    await registry.audit({ atMs: nowMs, actor, action: "token.create", subject: `${record.id} ${record.identity}` });
    return { token: formatJoinToken({ secret, caFingerprint }), record };
  }

  async list(): Promise<readonly TokenRecord[]> {
    return this.#options.registry.listTokens();
  }

  /** Shuts out every agent that enrolled with it. False when there is no such token. */
  async revoke(id: string, actor: string): Promise<boolean> {
    const { registry, revocations, clock } = this.#options;
    if (!(await revocations.revokeToken(id))) return false;
    await registry.audit({ atMs: clock.wallMs(), actor, action: "token.revoke", subject: id });
    return true;
  }

  /** The token with this secret, if it may be used now. @throws SallyError TOKEN_INVALID, the same for every reason */
  async authenticate(secret: Uint8Array): Promise<TokenRecord> {
    const { registry, clock } = this.#options;
    const hash = await hashSecret(secret);
    const token = await registry.findTokenByHash(hash);
    const isKnown = token !== undefined && equalConstantTime(hexDecode(token.secretHash), hexDecode(hash));
    if (!isKnown || !isTokenLive(token, clock.wallMs())) {
      throw new SallyError("TOKEN_INVALID", "The token is unknown, expired or revoked: ask for a new one.");
    }
    return token;
  }
}

function newIdentity(): string {
  return `id-${hexEncode(crypto.getRandomValues(new Uint8Array(6)))}`;
}

/** What is stored of a token. Its id follows from the secret, so a registry that was lost gets the same one again. */
export async function tokenRecord(
  secret: Uint8Array,
  request: NewToken & { readonly identity: string },
  nowMs: number,
): Promise<TokenRecord> {
  const secretHash = await hashSecret(secret);
  return {
    id: `tok_${secretHash.slice(0, 16)}`,
    secretHash,
    identity: request.identity,
    label: request.label,
    scope: { names: request.names, ports: request.ports },
    createdMs: nowMs,
    expiresMs: request.expiresMs,
    revokedMs: undefined,
  };
}
