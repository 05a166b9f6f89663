/**
 * The control of a node: who may join, who owns which name, what was revoked, and the two HTTP APIs for it. It takes
 * its store, its CA and a view of the rest of the node as arguments, and knows nothing of sockets or links.
 */

import type { Clock } from "../core/clock.ts";
import type { PeerIdentity } from "../core/identity.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Handler } from "../http/exchange.ts";
import type { Registry } from "../ports/registry.ts";
import type { Ca } from "../trust/certificates.ts";
import type { AdminGuardOptions } from "./admin-guard.ts";
import { createAdminHandler, type NodeView } from "./admin-handler.ts";
import { type ClaimPolicy, createClaimPolicy } from "./claim-policy.ts";
import { createEnrolHandler } from "./enrol-handler.ts";
import { type PeerPredicate, Revocations } from "./revocations.ts";
import { TokenService } from "./token-service.ts";

export interface ControlOptions {
  /** Stays the caller's: it is not closed here. */
  readonly registry: Registry;
  readonly ca: Ca;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  readonly admin: AdminGuardOptions;
  readonly node: NodeView;
  /** Whose word about a client's address is taken. Default nobody's. */
  readonly isTrustedProxy?: ((address: string) => boolean) | undefined;
}

export interface Control {
  readonly claims: ClaimPolicy;
  readonly tokens: TokenService;
  /** Serves `/_sally/ca`, `/_sally/enrol` and `/_sally/renew`. */
  readonly enrolHandler: Handler;
  /** Serves the admin port. */
  readonly adminHandler: Handler;
  /** Cheap enough for every stream: at once for peers on record, at most `revocationPollMs` old. */
  isRevoked(peer: PeerIdentity): boolean | Promise<boolean>;
  /** Calls back when somebody may have been shut out: close every link for which the predicate is true. */
  onRevoked(listener: (isRevoked: PeerPredicate) => void): () => void;
  /** @throws SallyError STORE_FAILED */
  start(): Promise<void>;
  close(): void;
}

export function createControl(options: ControlOptions): Control {
  const { registry, ca, clock, log, limits, admin, node, isTrustedProxy } = options;
  const revocations = new Revocations({ registry, clock, log, pollMs: limits.revocationPollMs });
  const tokens = new TokenService({ registry, revocations, clock, caFingerprint: ca.fingerprint });
  return {
    claims: createClaimPolicy({ registry, revocations, clock, limits }),
    tokens,
    enrolHandler: createEnrolHandler({ registry, tokens, ca, clock, log, limits, isTrustedProxy }),
    adminHandler: createAdminHandler({
      registry,
      tokens,
      revocations,
      guard: admin,
      node,
      clock,
      log,
      nameQuarantineMs: limits.nameQuarantineMs,
    }),
    isRevoked: (peer) => revocations.isRevoked(peer),
    onRevoked: (listener) => revocations.onRevoked(listener),
    start: () => revocations.start(),
    close: () => revocations.close(),
  };
}
