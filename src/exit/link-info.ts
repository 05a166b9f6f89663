/** What the exit tells others about its links: for `sally status`, metrics and the audit log. */

import type { Address } from "../core/address.ts";
import type { SallyError } from "../core/errors.ts";
import type { TransportKind } from "../ports/session.ts";
import type { RefusedName } from "./claims.ts";
import type { LinkState } from "./tunnel-table.ts";

/** One live link. */
export interface LinkInfo {
  readonly id: string;
  readonly names: readonly string[];
  readonly identity: string;
  readonly installation: string;
  readonly keyFingerprint: string;
  readonly tokenId: string | undefined;
  readonly transport: TransportKind;
  readonly remote: Address;
  readonly rttMs: number | undefined;
  readonly streams: number;
  readonly lanes: number;
  readonly headroom: number;
  /** How long the link has been up. */
  readonly connectedForMs: number;
  readonly isDraining: boolean;
}

export type ExitEvent =
  | { readonly event: "link-up"; readonly link: LinkInfo }
  /** It finishes what runs and takes nothing new: idle streams on it only keep it waiting. */
  | { readonly event: "link-draining"; readonly link: LinkInfo }
  /** It answers nothing, and its agent has a newer link: what can be asked twice is better asked there. */
  | { readonly event: "link-silent"; readonly link: LinkInfo }
  | { readonly event: "link-down"; readonly link: LinkInfo; readonly error: SallyError | undefined }
  | { readonly event: "handshake-failed"; readonly remote: Address; readonly error: SallyError }
  | { readonly event: "claimed" | "replaced" | "released"; readonly name: string; readonly link: LinkInfo }
  | { readonly event: "refused"; readonly refused: readonly RefusedName[]; readonly link: LinkInfo }
  | { readonly event: "revoked"; readonly link: LinkInfo }
  | { readonly event: "origin"; readonly name: string; readonly state: "up" | "down"; readonly link: LinkInfo };

export function describeLink(
  { link, headroom, connectedMs, isDraining, memberships }: LinkState,
  nowMs: number,
): LinkInfo {
  return {
    id: link.id,
    names: [...memberships.keys()],
    identity: link.peer.identity,
    installation: link.peer.installation,
    keyFingerprint: link.peer.keyFingerprint,
    tokenId: link.peer.tokenId,
    transport: link.transport,
    remote: link.remote,
    rttMs: link.rttMs,
    streams: link.streamCount,
    lanes: link.laneCount,
    headroom,
    connectedForMs: nowMs - connectedMs,
    isDraining: isDraining || link.isDraining,
  };
}
