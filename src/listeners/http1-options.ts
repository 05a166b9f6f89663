/** What an HTTP/1.1 listener is given, and what its connections share. Types only. */

import type { Address } from "../core/address.ts";
import type { Clock } from "../core/clock.ts";
import type { Duplex } from "../core/duplex.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { ErrorPage } from "../http/error-page.ts";
import type { Handler } from "../http/exchange.ts";
import type { ParsedRequest } from "../http/http1/head-parser.ts";

export interface ConnectionMeta {
  readonly remote: Address;
  readonly scheme: "http" | "https";
  /** What TLS proved about the peer, where the listener asks for it. */
  readonly tls?: ConnectionTls | undefined;
}

export interface ConnectionTls {
  /** DER of the leaf, only if its chain was verified. */
  readonly peerCertificate: Uint8Array | undefined;
  /** It showed one that did not verify. */
  readonly peerCertificateRejected: boolean;
  readonly exporter: Uint8Array;
}

/** `GET /_sally/link` with an upgrade. Who takes it owns the duplex and must consume `earlyBytes` too. */
export interface LinkRequest {
  readonly duplex: Duplex;
  readonly head: ParsedRequest;
  readonly meta: ConnectionMeta;
  /** Delivered behind the head, not consumed yet. */
  readonly earlyBytes: Uint8Array;
}

export interface AccessRecord {
  /** When the request was over, as ISO 8601. */
  readonly time: string;
  readonly id: string;
  /** This and the next two are undefined when the head was refused as it is. */
  readonly method: string | undefined;
  readonly target: string | undefined;
  readonly host: string | undefined;
  readonly status: number;
  /** Body bytes. */
  readonly bytesIn: number;
  /** Reply bytes including the head; 0 for what an upgraded connection carried. */
  readonly bytesOut: number;
  /** To the microsecond; of a refused request, since it was refused. */
  readonly durationMs: number;
  readonly visitor: Address;
  /** Why the reply is not complete, or the request was refused. */
  readonly error: string | undefined;
}

export interface Http1Options {
  readonly handler: Handler;
  /** Takes a link request for this node's own host and returns true; false makes it an ordinary request. */
  readonly onLinkRequest?: ((request: LinkRequest) => boolean) | undefined;
  readonly errorPage: ErrorPage;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  readonly accessLog?: ((record: AccessRecord) => void) | undefined;
  /** A visitor who takes no byte of a reply for so long is cut off. Default: twice `limits.bodyStallMs`. */
  readonly writeStallMs?: number | undefined;
}

/** What a connection needs of the service that holds it. */
export interface ConnectionHost {
  readonly options: Http1Options;
  readonly writeStallMs: number;
  readonly sweepMs: number;
  /** Monotonic time of the last sweep: exact enough for time-outs of seconds, and free. */
  readonly coarseMs: number;
  readonly isDraining: boolean;
  /** The connection is gone. Called once. */
  remove(connection: { readonly meta: ConnectionMeta }): void;
}
