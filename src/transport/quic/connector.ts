/**
 * The agent's end: dials a node over QUIC. It hides addresses (fresh DNS for each attempt, both families), the one UDP
 * socket per family that all connections of the process share, and the session tickets that save a round trip.
 */

import { reasonOf } from "./close-codes.ts";
import { DialledCarrier, type QuicSessionHandle } from "./dialled-carrier.ts";
import { ignoreIcmpErrors } from "./icmp-errors.ts";
import { loadQuic, type QuicModule } from "./load-quic.ts";
import {
  alpn,
  identityOf,
  nodeServerName,
  quicLimits,
  sessionLimits,
  tuning,
  windows,
  type QuicTls,
} from "./options.ts";
import type { SessionLimits } from "./session.ts";
import { formatAddress, type Address } from "../../core/address.ts";
import { utf8Encode } from "../../core/bytes.ts";
import type { Clock } from "../../core/clock.ts";
import { SallyError, toSallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { Connector, Session } from "../../ports/session.ts";
import { findAddresses } from "../../sockets/resolve-host.ts";
import type { QuicEndpoint, QuicSession } from "node:quic";

/** The UDP sockets of one process: every connection of a family shares one. Whoever creates it closes it. */
export class QuicEndpoints {
  readonly #byFamily = new Map<"ipv4" | "ipv6", QuicEndpoint>();
  readonly #quietened = new WeakSet<QuicEndpoint>();

  /** An open endpoint that can reach `family`. */
  get(quic: QuicModule, family: "ipv4" | "ipv6"): QuicEndpoint {
    const known = this.#byFamily.get(family);
    if (known !== undefined && !known.destroyed && !known.closing) return known;
    const endpoint = new quic.QuicEndpoint({
      address: { address: family === "ipv4" ? "0.0.0.0" : "::", port: 0, family },
      udpReceiveBufferSize: quicLimits.udpBufferBytes,
      udpSendBufferSize: quicLimits.udpBufferBytes,
    });
    endpoint.closed.catch(() => {}); // the sessions on it report it
    this.#byFamily.set(family, endpoint);
    return endpoint;
  }

  /** The socket of `family` exists now: one node that is gone must not slow down the others. */
  opened(family: "ipv4" | "ipv6"): void {
    const endpoint = this.#byFamily.get(family);
    const port = endpoint?.address?.port;
    if (endpoint === undefined || port === undefined || this.#quietened.has(endpoint)) return;
    this.#quietened.add(endpoint);
    ignoreIcmpErrors(port);
  }

  async close(): Promise<void> {
    const endpoints = [...this.#byFamily.values()];
    this.#byFamily.clear();
    await Promise.all(endpoints.map((endpoint) => endpoint.destroy().catch(() => {})));
  }
}

export interface QuicConnectOptions {
  /** Where the node is: a host name or an IP address. */
  readonly address: Address;
  /** The host name that HELLO signs; default: the name in the node's certificate. */
  readonly host?: string;
  readonly tls: QuicTls | (() => QuicTls);
  /** Shared by the connectors of a process. */
  readonly endpoints: QuicEndpoints;
  readonly clock: Clock;
  /** Default limits.connectMs. */
  readonly connectMs?: number;
  readonly unreadMaxBytes?: number;
  /** What a name stands for now, best first. Default: as the system's resolver says, families alternating. */
  readonly findAddresses?: (host: string) => Promise<readonly string[]>;
}

type Greet = (session: Session) => void;

export interface QuicConnector extends Connector {
  connect(signal: AbortSignal, greet?: Greet): Promise<QuicSessionHandle>;
}

/** @throws SallyError CONNECT_FAILED when the runtime has no QUIC */
export function createQuicConnector(options: QuicConnectOptions): QuicConnector {
  const dialler = new Dialler(loadQuic(), options);
  return { connect: (signal, greet) => dialler.connect(signal, greet) };
}

/** What a node gave us to come back with. It resumes the identity that it was given to, on the address it came from. */
interface Ticket {
  readonly bytes: Uint8Array;
  readonly host: string;
  readonly certPem: string;
  readonly sinceMs: number;
  readonly tries: number;
}

class Dialler {
  readonly #quic: QuicModule;
  readonly #options: QuicConnectOptions;
  readonly #limits: SessionLimits;
  #ticket: Ticket | undefined;

  constructor(quic: QuicModule, options: QuicConnectOptions) {
    this.#quic = quic;
    this.#options = options;
    this.#limits = sessionLimits(options.unreadMaxBytes);
  }

  async connect(signal: AbortSignal, greet: Greet | undefined): Promise<QuicSessionHandle> {
    signal.throwIfAborted();
    const { address, clock, connectMs = limits.connectMs, findAddresses: find = findAddresses } = this.#options;
    const attempt = new AbortController();
    const onAbort = (): void => attempt.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = clock.after(connectMs, () => attempt.abort(this.#timeout()));
    try {
      const found = await untilAborted(find(address.host), attempt.signal);
      const targets = found.slice(0, limits.quicAddressesMax).map((host) => ({ host, port: address.port }));
      const known = this.#ticket?.host;
      targets.sort((a, b) => Number(b.host === known) - Number(a.host === known));
      return await this.#race(targets, greet, attempt.signal);
    } finally {
      timer.cancel();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #timeout(): SallyError {
    const { address, connectMs = limits.connectMs } = this.#options;
    const where = `${formatAddress(address)}/udp`;
    return new SallyError("CONNECT_TIMEOUT", `No answer from ${where} within ${connectMs} ms: is UDP blocked?`);
  }

  /** The first address that answers wins; the others are dropped. */
  #race(targets: readonly Address[], greet: Greet | undefined, signal: AbortSignal): Promise<DialledCarrier> {
    const others = new AbortController();
    const { clock } = this.#options;
    return new Promise((resolve, reject) => {
      let failed = 0;
      let started = 0;
      let isDone = false;
      let timer = clock.after(0, () => {});
      const finish = (): void => {
        isDone = true;
        timer.cancel();
        signal.removeEventListener("abort", onAbort);
        others.abort(new SallyError("CANCELLED"));
      };
      const onAbort = (): void => {
        finish();
        reject(signal.reason);
      };
      const tryNext = (): void => {
        timer.cancel();
        const target = targets[started];
        if (target === undefined || isDone) return;
        started++;
        timer = clock.after(limits.nextAddressAfterMs, tryNext);
        this.#dial(target, greet, others.signal).then(
          (carrier) => {
            if (isDone) return carrier.close(new SallyError("CANCELLED"));
            finish();
            resolve(carrier);
          },
          (error: unknown) => {
            failed++;
            if (isDone) return;
            if (failed < targets.length) return tryNext();
            finish();
            reject(error);
          },
        );
      };
      if (signal.aborted) return onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      tryNext();
    });
  }

  async #dial(target: Address, greet: Greet | undefined, signal: AbortSignal): Promise<DialledCarrier> {
    const { tls: given, clock, host = nodeServerName } = this.#options;
    const tls = typeof given === "function" ? given() : given;
    const ticket = greet && this.#takeTicket(target, tls);
    const authenticated = Promise.withResolvers<void>();
    let carrier: DialledCarrier | undefined;
    const raw = await this.#open(target, tls, ticket?.bytes, (bytes) => {
      carrier?.prove();
      const fresh = { bytes, host: target.host, certPem: tls.certPem, sinceMs: clock.wallMs(), tries: 0 };
      void authenticated.promise.then(() => (this.#ticket = fresh));
    });
    carrier = new DialledCarrier({
      quic: this.#quic,
      raw,
      host,
      remote: target,
      peerCertificate: undefined,
      limits: this.#limits,
      clock,
      earlyMaxBytes: ticket && limits.quicEarlyLaneBytes,
    });
    const dialled = carrier;
    const onAbort = (): void => dialled.close(toSallyError(signal.reason, "CANCELLED"));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    else greet?.(dialled);
    const problem = await dialled.opened;
    signal.removeEventListener("abort", onAbort);
    if (signal.aborted) {
      if (dialled.early === "pending") this.#ticket ??= ticket;
      throw signal.reason;
    }
    if (problem !== undefined) throw problem;
    authenticated.resolve();
    return dialled;
  }

  /** A ticket that the node has seen is not used again (RFC 8446 appendix C.4). */
  #takeTicket({ host }: Address, { certPem }: QuicTls): Ticket | undefined {
    const ticket = this.#ticket;
    if (ticket?.host !== host) return undefined;
    this.#ticket = undefined;
    const ageMs = this.#options.clock.wallMs() - ticket.sinceMs;
    const isFresh = ageMs < limits.quicTicketMs && ticket.tries < limits.quicTicketTries;
    return isFresh && ticket.certPem === certPem ? { ...ticket, tries: ticket.tries + 1 } : undefined;
  }

  async #open(
    { host, port }: Address,
    tls: QuicTls,
    sessionTicket: Uint8Array | undefined,
    onTicket: (bytes: Uint8Array) => void,
  ): Promise<QuicSession> {
    const family = host.includes(":") ? "ipv6" : "ipv4";
    const { endpoints } = this.#options;
    try {
      const raw = await this.#quic.connect(
        { address: host, port, family },
        {
          endpoint: endpoints.get(this.#quic, family),
          servername: nodeServerName,
          alpn,
          ca: [utf8Encode(tls.caPem)],
          ...identityOf(tls),
          transportParams: {
            maxIdleTimeout: limits.quicIdleMs / 1_000,
            initialMaxStreamsUni: 0,
            ...windows,
            maxDatagramFrameSize: 0,
          },
          enableEarlyData: true,
          ...(sessionTicket === undefined ? {} : { sessionTicket }),
          onerror: () => {}, // `closed` and `opened` report it
          onstream: (stream) => stream.destroy(), // only the agent opens lanes
          onsessionticket: onTicket,
          ...tuning,
        },
      );
      raw.opened.catch(() => {});
      endpoints.opened(family);
      return raw;
    } catch (error) {
      throw reasonOf(error, "CONNECT_FAILED");
    }
  }
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
