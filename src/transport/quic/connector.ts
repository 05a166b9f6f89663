/**
 * The agent's end: dials a node over QUIC. It hides addresses (fresh DNS for each attempt, both families), the one UDP
 * socket per family that all connections of the process share, session tickets, and the first flight that may go out
 * before the handshake is complete.
 */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { reasonOf } from "./close-codes.ts";
import { ignoreIcmpErrors } from "./icmp-errors.ts";
import { loadQuic, type QuicModule } from "./load-quic.ts";
import { alpn, identityOf, nodeServerName, quicLimits, sessionLimits, tuning, type QuicTls } from "./options.ts";
import { QuicCarrier, toAddress, type SessionLimits } from "./session.ts";
import { formatAddress, type Address } from "../../core/address.ts";
import { utf8Encode } from "../../core/bytes.ts";
import type { Clock } from "../../core/clock.ts";
import { SallyError, toSallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { Connector, Session } from "../../ports/session.ts";
import type { QuicEndpoint, QuicSession } from "node:quic";

/** The next address is tried when the one before did not answer for so long (RFC 8305 section 5). */
const nextAddressAfterMs = 250;
const addressesMax = 4;

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
  /**
   * True: with a ticket of an earlier connection `connect` returns before the node has answered, so that the first
   * bytes of each lane travel with the first packet; `opened` tells when the node did. Default false.
   */
  readonly earlyData?: boolean;
}

export interface QuicSessionHandle extends Session {
  /**
   * Undefined once the handshake is complete and the node is authenticated, else why not. `peerCertificate` is set
   * from then on. Already resolved unless early data was sent.
   */
  readonly opened: Promise<SallyError | undefined>;
  /** What became of the early data. */
  readonly early: "none" | "pending" | "accepted" | "rejected";
}

export interface QuicConnector extends Connector {
  connect(signal: AbortSignal): Promise<QuicSessionHandle>;
}

class DialledCarrier extends QuicCarrier implements QuicSessionHandle {
  opened: Promise<SallyError | undefined> = Promise.resolve(undefined);
  early: "none" | "pending" | "accepted" | "rejected" = "none";
}

/** @throws SallyError CONNECT_FAILED when the runtime has no QUIC */
export function createQuicConnector(options: QuicConnectOptions): QuicConnector {
  const dialler = new Dialler(loadQuic(), options);
  return { connect: (signal) => dialler.connect(signal) };
}

/** What a node gave us to come back with. It resumes the identity that it was given to, on the address it came from. */
interface Ticket {
  readonly bytes: Uint8Array;
  readonly host: string;
  readonly certPem: string;
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

  async connect(signal: AbortSignal): Promise<QuicSessionHandle> {
    signal.throwIfAborted();
    const { address, clock, connectMs = limits.connectMs } = this.#options;
    const attempt = new AbortController();
    const onAbort = (): void => attempt.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = clock.after(connectMs, () => attempt.abort(this.#timeout()));
    try {
      const targets = await untilAborted(resolve(address), attempt.signal);
      const known = this.#options.earlyData === true ? this.#ticket?.host : undefined;
      targets.sort((a, b) => Number(b.host === known) - Number(a.host === known));
      return await this.#race(targets, attempt.signal);
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
  #race(targets: readonly Address[], signal: AbortSignal): Promise<DialledCarrier> {
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
        timer = clock.after(nextAddressAfterMs, tryNext);
        this.#dial(target, others.signal).then(
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

  async #dial(target: Address, signal: AbortSignal): Promise<DialledCarrier> {
    const family = target.host.includes(":") ? "ipv6" : "ipv4";
    const { tls: given, endpoints, clock, host = nodeServerName } = this.#options;
    const tls = typeof given === "function" ? given() : given;
    const ticket = this.#takeTicket(target, tls);
    const raw = await this.#open({ address: target.host, port: target.port, family }, tls, ticket, endpoints);
    const carrier = new DialledCarrier({
      quic: this.#quic,
      raw,
      host,
      remote: target,
      peerCertificate: undefined,
      limits: this.#limits,
      clock,
      earlyMaxBytes: ticket && quicLimits.earlyLaneBytes,
    });
    const opened = this.#authenticate(raw, carrier);
    if (ticket !== undefined) {
      carrier.early = "pending";
      carrier.opened = opened;
      return carrier;
    }
    const onAbort = (): void => carrier.close(toSallyError(signal.reason, "CANCELLED"));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    const problem = await opened;
    signal.removeEventListener("abort", onAbort);
    if (signal.aborted) throw signal.reason;
    if (problem !== undefined) throw problem;
    return carrier;
  }

  /** A ticket is used once (RFC 8446 appendix C.4). */
  #takeTicket({ host }: Address, { certPem }: QuicTls): Uint8Array | undefined {
    const ticket = this.#ticket;
    if (this.#options.earlyData !== true || ticket?.host !== host) return undefined;
    this.#ticket = undefined;
    return ticket.certPem === certPem ? ticket.bytes : undefined;
  }

  async #open(
    address: { address: string; port: number; family: "ipv4" | "ipv6" },
    tls: QuicTls,
    ticket: Uint8Array | undefined,
    endpoints: QuicEndpoints,
  ): Promise<QuicSession> {
    try {
      const raw = await this.#quic.connect(address, {
        endpoint: endpoints.get(this.#quic, address.family),
        servername: nodeServerName,
        alpn,
        ca: [utf8Encode(tls.caPem)],
        ...identityOf(tls),
        transportParams: {
          maxIdleTimeout: quicLimits.idleSeconds,
          initialMaxStreamsUni: 0,
          maxDatagramFrameSize: 0,
        },
        enableEarlyData: this.#options.earlyData === true,
        ...(ticket === undefined ? {} : { sessionTicket: ticket }),
        onerror: () => {}, // `closed` and `opened` report it
        onstream: (stream) => stream.destroy(), // only the agent opens lanes
        onsessionticket: (bytes) => {
          this.#ticket = { bytes, host: address.address, certPem: tls.certPem };
        },
        ...tuning,
      });
      raw.opened.catch(() => {});
      endpoints.opened(address.family);
      return raw;
    } catch (error) {
      throw reasonOf(error, "CONNECT_FAILED");
    }
  }

  /** Never rejects. Has its own time limit, since with early data nobody else watches the clock. */
  async #authenticate(raw: QuicSession, carrier: DialledCarrier): Promise<SallyError | undefined> {
    const { clock, connectMs = limits.connectMs } = this.#options;
    let late: SallyError | undefined;
    const timer = clock.after(connectMs, () => {
      late = this.#timeout();
      carrier.close(late);
    });
    try {
      const info = await raw.opened;
      const certificate = raw.peerCertificate;
      const remote = raw.path?.remote;
      if (certificate === undefined || remote === undefined) throw new SallyError("CONNECT_FAILED");
      carrier.remote = toAddress(remote);
      if (carrier.early === "pending") carrier.early = info.earlyDataAccepted ? "accepted" : "rejected";
      await carrier.confirm(info.earlyDataAccepted, new Uint8Array(certificate.raw));
      return undefined;
    } catch (error) {
      const reason = late ?? reasonOf(error, "CONNECT_FAILED") ?? new SallyError("CONNECT_FAILED");
      carrier.close(reason);
      return reason;
    } finally {
      timer.cancel();
    }
  }
}

/** Fresh addresses, the families alternating as RFC 8305 asks. */
async function resolve({ host, port }: Address): Promise<Address[]> {
  if (isIP(host) !== 0) return [{ host, port }];
  try {
    const found = await lookup(host, { all: true });
    const v6 = found.filter(({ family }) => family === 6);
    const v4 = found.filter(({ family }) => family === 4);
    const mixed: Address[] = [];
    for (let i = 0; i < Math.max(v6.length, v4.length); i++) {
      for (const entry of [v4[i], v6[i]]) if (entry !== undefined) mixed.push({ host: entry.address, port });
    }
    if (mixed.length > 0) return mixed.slice(0, addressesMax);
  } catch (error) {
    throw new SallyError("CONNECT_FAILED", `The name ${host} could not be resolved.`, { cause: error });
  }
  throw new SallyError("CONNECT_FAILED", `The name ${host} has no address.`);
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
