/**
 * The node's end: takes HTTP requests for `/_sally/link` from whichever listener met them, and makes sessions of the
 * connections. Rule kept: a connection joins a session only with the certificate that opened it, and everything that
 * a stranger can make grow is bounded.
 */

import { acceptFor, parseUpgrade, refusalReply, switchingReply, type LaneRequest } from "./handshake.ts";
import { WebsocketSession } from "./session.ts";
import type { Address } from "../../core/address.ts";
import { equalConstantTime, utf8Encode } from "../../core/bytes.ts";
import { systemClock, type Clock } from "../../core/clock.ts";
import { idleHandler, type Duplex } from "../../core/duplex.ts";
import { SallyError, toSallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { RequestHead } from "../../http/exchange.ts";
import type { Session } from "../../ports/session.ts";
import { endThenLinger } from "../../sockets/linger.ts";
import type { AcceptedTls } from "../../sockets/listen.ts";

export interface LinkRequest {
  /** Nothing but the head was read from it, and `earlyBytes`. Taken over at once. */
  readonly duplex: Duplex;
  readonly head: RequestHead;
  readonly remote: Address;
  /** Undefined when the connection came in plain text. */
  readonly tls?: Pick<AcceptedTls, "peerCertificate" | "peerCertificateRejected" | "exporter"> | undefined;
  /** What was read behind the head, not consumed yet. */
  readonly earlyBytes?: Uint8Array;
}

export interface WebsocketAcceptorOptions {
  /** A new session; set its `onLane` before returning. */
  readonly onSession: (session: Session) => void;
  /** The node runs with --trust-tls-proxy: a connection that shows no agent's certificate counts as proxied. */
  readonly trustsTlsProxy?: boolean;
  readonly clock?: Clock;
  /** Default: the links of a node, and as many as may be set up at a time. */
  readonly sessionsMax?: number;
}

export class WebsocketLinkAcceptor {
  readonly #options: WebsocketAcceptorOptions;
  readonly #clock: Clock;
  readonly #sessionsMax: number;
  readonly #sessions = new Map<string, WebsocketSession>();
  #isClosing = false;

  constructor(options: WebsocketAcceptorOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#sessionsMax = options.sessionsMax ?? limits.links + 2 * limits.pendingHandshakes; // of either kind
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Answers the request: 101 and a lane, or a refusal. Never throws. */
  accept(request: LinkRequest): void {
    const { duplex } = request;
    duplex.handler = idleHandler;
    try {
      const wanted = parseUpgrade(request.head.method, request.head.target, request.head.headers);
      const { session, isNew } = this.#sessionFor(wanted, request);
      duplex.write(utf8Encode(switchingReply(acceptFor(wanted.key))));
      const lane = session.addLane(duplex, {
        masks: undefined,
        clock: this.#clock,
        ...(request.earlyBytes === undefined ? {} : { earlyBytes: request.earlyBytes }),
      });
      if (isNew) this.#options.onSession(session);
      session.handUp(lane);
    } catch (error) {
      duplex.write(utf8Encode(refusalReply(toSallyError(error))));
      duplex.consume(request.earlyBytes?.length ?? 0);
      endThenLinger(duplex, { clock: this.#clock, lingerMs: limits.socketLingerMs });
    }
  }

  /**
   * Takes no new session and ends every one there is; those that were closed before, or without an error, are waited for
   * until what was queued has arrived, for at most limits.socketLingerMs.
   */
  async close(error?: SallyError): Promise<void> {
    this.#isClosing = true;
    const sessions = [...this.#sessions.values()];
    for (const session of sessions) session.close(error);
    for (const session of sessions) await session.closed; // bounded by the linger time of each lane
  }

  #sessionFor(wanted: LaneRequest, request: LinkRequest): { session: WebsocketSession; isNew: boolean } {
    const { tls, remote, head } = request;
    const trustsTlsProxy = this.#options.trustsTlsProxy ?? false;
    if (tls?.peerCertificateRejected === true) throw new SallyError("CERTIFICATE_INVALID");
    // Plain text: what the agent's TLS was, ended somewhere on the way.
    if (tls === undefined && !trustsTlsProxy) throw new SallyError("PROXY_UNTRUSTED");
    const known = this.#sessions.get(wanted.session);
    if (known !== undefined) {
      if (!isSame(known.peerCertificate, tls?.peerCertificate)) {
        throw new SallyError("FORBIDDEN", "this session belongs to another certificate");
      }
      if (known.laneCount >= limits.lanesPerLinkMax) throw new SallyError("STREAM_LIMIT");
      if (!known.isClosing) return { session: known, isNew: false };
    }
    if (this.#isClosing) throw new SallyError("DRAINING");
    if (known !== undefined || wanted.lane !== 0) {
      throw new SallyError("NOT_FOUND", "this session has ended: open a new one with lane 0");
    }
    if (this.#sessions.size >= this.#sessionsMax) {
      throw new SallyError("OVERLOADED", "this node holds as many links as it may");
    }
    const isProxied = tls?.peerCertificate === undefined && trustsTlsProxy;
    const session = new WebsocketSession({
      remote,
      host: (head.headers.get("host") ?? "").toLowerCase(),
      peerCertificate: tls?.peerCertificate,
      exporter: isProxied ? undefined : tls?.exporter,
      isProxied,
    });
    this.#sessions.set(wanted.session, session);
    void session.closed.then(() => this.#sessions.delete(wanted.session));
    return { session, isNew: true };
  }
}

function isSame(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return equalConstantTime(a, b);
}
