/**
 * A transport's connection between an agent and a node, below the multiplexer: it authenticates with TLS and carries
 * byte pipes that the agent opens. Over QUIC a lane is a stream of one connection; over WebSocket each is a connection.
 */

import type { Address } from "../core/address.ts";
import type { Duplex } from "../core/duplex.ts";
import type { SallyError } from "../core/errors.ts";

export type TransportKind = "quic" | "websocket" | "memory";

export interface Session {
  readonly transport: TransportKind;
  readonly remote: Address;
  /** The host name that the dialling side asked for; both sides sign it. */
  readonly host: string;
  /** DER of the leaf certificate that the peer proved in TLS; undefined before it did, and when a proxy ended TLS. */
  readonly peerCertificate: Uint8Array | undefined;
  /** TLS exporter of the first lane's connection; undefined where the transport has none. */
  readonly exporter: Uint8Array | undefined;
  /** True when the node was told that a proxy ends TLS for this connection. */
  readonly isProxied: boolean;
  /** Dialling side only. @throws SallyError CONNECT_FAILED, CONNECT_TIMEOUT, LINK_LOST */
  openLane(signal: AbortSignal): Promise<Duplex>;
  /** Accepting side: called for each lane. Set synchronously on receipt; lanes that came earlier are delivered on set. */
  onLane: (lane: Duplex) => void;
  /** Ends every lane. Without an error what is queued still goes out. */
  close(error?: SallyError): void;
  /** Resolves, never rejects, when the connection is gone, with the reason if it was not clean. */
  readonly closed: Promise<SallyError | undefined>;
}

/** How an agent reaches a node. */
export interface Connector {
  /**
   * `greet`, if given, may get sessions on which the node has not answered yet: what is written to a lane at once
   * arrives up to a round trip earlier. It must be nothing that does harm when somebody records and repeats it. One of
   * these sessions may be the one that is returned; the others are closed.
   * @throws SallyError CONNECT_FAILED, CONNECT_TIMEOUT, CA_MISMATCH, CERTIFICATE_INVALID
   */
  connect(signal: AbortSignal, greet?: (session: Session) => void): Promise<Session>;
}
