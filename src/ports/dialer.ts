/**
 * The idea that holds the parts together: above this line everything is a dialled stream to an origin; below it, which
 * agent, node or transport carries the stream. See docs/protocol.md for how a preamble travels.
 */

import type { Address } from "../core/address.ts";
import type { DialledStream } from "../core/duplex.ts";

/**
 * `http`: pooled, carries no visitor. `raw`: one visitor's bytes. `probe`: the agent answers itself, to prove the path.
 */
export type StreamProtocol = "http" | "raw" | "probe";

export interface DialRequest {
  /** Name of the tunnel, lower case. */
  readonly tunnel: string;
  readonly protocol: StreamProtocol;
  /** Who asks: for logs, raw streams and the PROXY protocol. Absent on pooled streams. */
  readonly visitor?: Address;
  /** Prefer another agent than the one that just failed (link id), if there is one. */
  readonly avoidLink?: string;
  /**
   * Asked, with the link's id, where a link has all the streams that it may have: whether one of them is about to go.
   * Then the stream that is dialled waits for its place.
   */
  readonly makeRoom?: (linkId: string) => boolean;
}

/**
 * A link's right to serve a tunnel. Each claim that a node grants is another one: a name that was given up and got back,
 * on the same link too, is under a new claim.
 */
export interface TunnelClaim {
  /** False once the link no longer serves the tunnel under this claim: what it dialled takes no further request. */
  readonly isCurrent: boolean;
}

export interface DialResult {
  readonly stream: DialledStream;
  /** Asked before a stream is used for another request. */
  readonly claim: TunnelClaim;
  /** Which link carries it: to avoid on a retry, to group a pool, to name in logs. */
  readonly linkId: string;
  /** Whose agent it is: the streams of one owner share memory. */
  readonly owner: string;
}

export interface Dialer {
  /**
   * Opens a stream at once; data may be written before the origin has answered, a refusal arrives as `onClose`.
   * Where there is no memory for one more, the stream waits.
   * @throws SallyError TUNNEL_UNKNOWN, TUNNEL_OFFLINE, OVERLOADED, STREAM_LIMIT, DRAINING
   */
  dial(request: DialRequest): DialResult;
  /**
   * The link that the next request should go over, where a tunnel has several: a pool takes a stream of that one, or
   * dials. Otherwise an agent that came later would get nothing while the first one's streams are idle.
   */
  choose?(tunnel: string): string | undefined;
}
