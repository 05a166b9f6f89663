/**
 * A link: one authenticated connection between an agent and a node, made of lanes, over any transport. This file is
 * what the other rooms see; docs/protocol.md says what travels.
 */

import type { Address } from "../core/address.ts";
import type { Clock } from "../core/clock.ts";
import type { DialledStream } from "../core/duplex.ts";
import type { SallyError } from "../core/errors.ts";
import type { LinkAuth, PeerIdentity } from "../core/identity.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { StreamProtocol } from "../ports/dialer.ts";
import type { Session, TransportKind } from "../ports/session.ts";
import type { ControlMessage } from "./messages.ts";
import type { WindowBudget } from "./window-budget.ts";

/** What the first frame of a stream says about it. */
export interface Preamble {
  /** Name of the tunnel, lower case. */
  readonly tunnel: string;
  readonly protocol: StreamProtocol;
  /** Absent on pooled streams. */
  readonly visitor?: Address;
}

/** A stream of a link, as its opener holds it. */
export interface LinkStream extends DialledStream {
  readonly preamble: Preamble;
  /** Bytes on the way in both directions of this stream's lane: a pool prefers the idle stream where it is lowest. */
  readonly laneLoadBytes: number;
}

/** A stream that the peer opened. Exactly one of `accept` and `refuse` answers it; writing accepts it too. */
export interface IncomingStream extends LinkStream {
  /** Says OPENED: the origin's connection is up. */
  accept(): void;
  /** Says REFUSED with the error's code and message; nothing reaches the handler afterwards. */
  refuse(error: SallyError): void;
  /** Bytes of the peer's that the origin's socket has taken so far, in total: our FIN or RESET tells the peer. */
  reportDelivered(totalBytes: number): void;
}

export interface LinkOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** One per process. */
  readonly budget: WindowBudget;
  readonly limits: Limits;
  /**
   * Runs a task after the events at hand: all frames until then leave in one write. Apps pass `setImmediate`.
   * Default: a microtask.
   */
  readonly schedule?: (task: () => void) => void;
  /** A stream that the peer opened. Set its handler before returning. */
  onStream(stream: IncomingStream, link: Link): void;
  onMessage(message: ControlMessage, link: Link): void;
  /** Once; every stream has seen its own `onClose` before. Never called when connectLink or acceptLink rejects. */
  onClose(error: SallyError | undefined, link: Link): void;
}

export interface ConnectLinkOptions extends LinkOptions {
  /** Lanes to open, 1 to limits.lanesPerLinkMax. */
  readonly lanes: number;
  readonly agentVersion: string;
}

export interface AcceptLinkOptions extends LinkOptions {
  readonly nodeVersion?: string;
}

export interface Link {
  /** Chosen by the node; both sides know it. */
  readonly id: string;
  readonly peer: PeerIdentity;
  readonly peerProcess: string;
  /** What the peer says it runs. */
  readonly peerVersion: string;
  readonly transport: TransportKind;
  readonly remote: Address;
  /** Smoothed; undefined until the first PONG. */
  readonly rttMs: number | undefined;
  readonly streamCount: number;
  readonly laneCount: number;
  /** True after `drain` here or GOAWAY from the peer: `open` throws. */
  readonly isDraining: boolean;
  readonly isClosed: boolean;
  /**
   * Opens a stream on the best lane; set its handler before control returns to the event loop. Data may be written at
   * once. When the window budget is used up the OPEN waits up to limits.openWaitMs, then the stream closes OVERLOADED.
   * @throws SallyError STREAM_LIMIT, OVERLOADED, DRAINING, LINK_LOST
   */
  open(preamble: Preamble): LinkStream;
  /** Sends a control message; in order, exactly once while the link lives. */
  send(message: ControlMessage): void;
  /** Opens nothing new, refuses what the peer opens, and closes when the last stream is done. */
  drain(): void;
  /** Ends the link at once: the peer is told the code, streams close with the error (LINK_LOST without one). */
  close(error?: SallyError): void;
}

/**
 * The agent's side: proves who we are, checks the node, opens the lanes. Rejects with the code that either side found.
 * @throws SallyError AUTH_FAILED, CERTIFICATE_INVALID, CERTIFICATE_REVOKED, CA_MISMATCH, PROXY_UNTRUSTED,
 *   VERSION_MISMATCH, CONNECT_TIMEOUT, LINK_LOST, PROTOCOL_VIOLATION
 */
export function connectLink(
  _session: Session,
  _auth: LinkAuth,
  _options: ConnectLinkOptions,
  _signal: AbortSignal,
): Promise<Link> {
  throw new Error("not implemented");
}

/** The node's side. Throws as `connectLink`; the session is closed when it rejects. */
export function acceptLink(
  _session: Session,
  _auth: LinkAuth,
  _options: AcceptLinkOptions,
  _signal: AbortSignal,
): Promise<Link> {
  throw new Error("not implemented");
}
