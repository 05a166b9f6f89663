/** Who may serve which name: what the exit asks before it puts a tunnel up. The control keeps the rules. */

import type { ErrorCode } from "../core/errors.ts";
import type { PeerIdentity } from "../core/identity.ts";

export interface ClaimRequest {
  /** The name that the agent asks for. */
  readonly name?: string | undefined;
  /** Without a name: what a stable free name is derived from, together with the identity. */
  readonly stableKey?: string | undefined;
}

export type ClaimResult =
  | { readonly ok: true; readonly name: string; readonly leaseUntilMs: number }
  | { readonly ok: false; readonly name: string | undefined; readonly code: ErrorCode; readonly message: string };

export interface ClaimPolicy {
  /** Reserves the name for the peer's identity, or says why not. Throws only when the store fails. */
  claim(peer: PeerIdentity, request: ClaimRequest): Promise<ClaimResult>;
  /** Ends the lease; the quarantine begins. False when the name is not the peer's. */
  release(peer: PeerIdentity, name: string): Promise<boolean>;
  /** Extends the leases of names that the peer serves: call it every few minutes. Returns those that it lost. */
  touch(peer: PeerIdentity, names: readonly string[]): Promise<readonly string[]>;
}
