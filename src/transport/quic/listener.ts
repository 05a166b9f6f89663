/**
 * The node's end: accepts QUIC connections of agents. A connection is handed up when its handshake is complete and a
 * certificate was proved; what is not there yet is bounded in number and in time, and gives way to what comes. A
 * resumed connection that brings early data is handed up with its first packet, which may be a replay: the handshake of
 * the link does nothing lasting until its PROOF signs what it has just drawn. How many such connections there may be is
 * bounded too.
 */

import { closeCode } from "./close-codes.ts";
import { EarlyPlaces } from "./early-places.ts";
import { ignoreIcmpErrors } from "./icmp-errors.ts";
import { loadQuic, type QuicModule } from "./load-quic.ts";
import { alpn, identityOf, quicLimits, sessionLimits, tuning, windows, type QuicTls } from "./options.ts";
import { QuicCarrier, toAddress, type SessionLimits } from "./session.ts";
import { formatAddress, type Address } from "../../core/address.ts";
import { utf8Encode } from "../../core/bytes.ts";
import type { Clock } from "../../core/clock.ts";
import { SallyError } from "../../core/errors.ts";
import { FairSlots } from "../../core/fair-slots.ts";
import { limits } from "../../core/limits.ts";
import type { Logger } from "../../core/log.ts";
import type { Session } from "../../ports/session.ts";
import type { QuicEndpoint, QuicSession, QuicStream } from "node:quic";

/** node:quic opens no endpoint with more. */
const handshakeMostMs = 15_000;

export interface QuicListenOptions {
  /** An IP address. */
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly tls: QuicTls;
  /** Receives each authenticated connection; sets `onLane` before it returns. */
  onSession(session: Session): void;
  /** Connections that have not completed their handshake; default limits.pendingHandshakes. */
  readonly pendingMax?: number;
  /** Default limits.handshakeMs. */
  readonly handshakeMs?: number;
  /** Bytes of one connection received and not consumed; default 64 MiB. At least all the windows granted to it. */
  readonly unreadMaxBytes?: number;
  /** False: early data is refused, so agents that come back wait for the handshake. Default true. */
  readonly earlyData?: boolean;
  /** Sessions handed up on early data alone; those beyond it wait for proof. Default limits.earlySessions. */
  readonly earlyMax?: number;
  /** A connection that is silent for so long is gone; default 10. */
  readonly idleSeconds?: number;
  readonly log: Logger;
  readonly clock: Clock;
}

export interface QuicListener {
  readonly address: Address;
  readonly sessionCount: number;
  readonly pendingCount: number;
  /** Sessions that were handed up, and have not shown yet that their first flight is no replay; or failed to, just now. */
  readonly earlyCount: number;
  /**
   * New connections get the new certificate. node:quic cannot change the certificate of a listener that asks for
   * client certificates, so the port is opened again: connections end, with DRAINING, and agents come back. The port
   * is free at once, or once the last handshake that a client broke off has timed out (see `close`).
   */
  replaceTls(tls: QuicTls): Promise<void>;
  /**
   * Ends every connection; without an error what is queued still goes out, for at most limits.socketLingerMs. The UDP
   * port may stay taken for `handshakeMs`: node:quic cannot drop a handshake that its client broke off.
   */
  close(reason?: SallyError): Promise<void>;
}

/** @throws SallyError ADDRESS_IN_USE; CONNECT_FAILED when the runtime has no QUIC */
export async function listenQuic(options: QuicListenOptions): Promise<QuicListener> {
  const listener = new Listener(loadQuic(), options);
  await listener.open(options.tls, options.port);
  return listener;
}

class Listener implements QuicListener {
  readonly #quic: QuicModule;
  readonly #options: QuicListenOptions;
  readonly #limits: SessionLimits;
  readonly #sessions = new Set<QuicCarrier>();
  readonly #pending = new Set<QuicSession>();
  readonly #slots: FairSlots;
  readonly #places: EarlyPlaces;
  #endpoint: QuicEndpoint | undefined;
  #address: Address = { host: "", port: 0 };
  #isClosed = false;

  constructor(quic: QuicModule, options: QuicListenOptions) {
    this.#quic = quic;
    this.#options = options;
    this.#limits = sessionLimits(options.unreadMaxBytes);
    this.#slots = new FairSlots(options.pendingMax ?? limits.pendingHandshakes, "oldest");
    const { earlyMax: max = limits.earlySessions, handshakeMs: holdMs = limits.handshakeMs, clock } = options;
    this.#places = new EarlyPlaces({ max, holdMs, clock });
  }

  get address(): Address {
    return this.#address;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  get earlyCount(): number {
    return this.#places.taken;
  }

  async open(tls: QuicTls, port: number): Promise<void> {
    const { host } = this.#options;
    const wanted = formatAddress({ host, port });
    let endpoint: QuicEndpoint | undefined;
    try {
      endpoint = new this.#quic.QuicEndpoint({
        address: { address: host, port, family: host.includes(":") ? "ipv6" : "ipv4" },
        maxConnectionsPerHost: 0,
        maxConnectionsTotal: 0,
        sessionCreationRate: limits.pendingHandshakes,
        sessionCreationBurst: limits.pendingHandshakes,
        udpReceiveBufferSize: quicLimits.udpBufferBytes,
        udpSendBufferSize: quicLimits.udpBufferBytes,
      });
      endpoint.closed.catch(() => {}); // a failed bind also throws below
      await this.#quic.listen((session) => this.#onConnection(session), {
        endpoint,
        sni: { "*": identityOf(tls) },
        alpn: [alpn],
        verifyClient: true,
        enableEarlyData: this.#options.earlyData ?? true,
        ca: [utf8Encode(tls.caPem)],
        handshakeTimeout: Math.min(this.#options.handshakeMs ?? limits.handshakeMs, handshakeMostMs),
        transportParams: {
          maxIdleTimeout: this.#options.idleSeconds ?? limits.quicIdleMs / 1_000,
          initialMaxStreamsBidi: this.#limits.lanesMax,
          ...windows,
          initialMaxStreamsUni: 0,
          maxDatagramFrameSize: 0,
        },
        ...tuning,
      });
    } catch (error) {
      await endpoint?.destroy().catch(() => {});
      throw new SallyError("ADDRESS_IN_USE", `Cannot listen on ${wanted}/udp: is another program using it?`, {
        cause: error,
      });
    }
    const bound = endpoint.address;
    if (bound === undefined) {
      throw new SallyError("ADDRESS_IN_USE", `Cannot listen on ${wanted}/udp: is another program using it?`);
    }
    this.#endpoint = endpoint;
    this.#address = toAddress(bound);
    ignoreIcmpErrors(bound.port);
  }

  async replaceTls(tls: QuicTls): Promise<void> {
    const gone = await this.#shut(new SallyError("DRAINING", "The node changed its certificate: connect again."));
    await gone.closed;
    if (!this.#isClosed) await this.open(tls, this.#address.port);
  }

  async close(reason?: SallyError): Promise<void> {
    this.#isClosed = true;
    const gone = await this.#shut(reason);
    const late = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(limits.quicEndpointGoneMs, late.resolve);
    await Promise.race([gone.closed, late.promise]);
    timer.cancel();
  }

  /** Ends all connections. The endpoint, and with it the port, may take longer: `closed` follows it. */
  async #shut(reason: SallyError | undefined): Promise<{ readonly closed: Promise<void> }> {
    const endpoint = this.#endpoint;
    this.#endpoint = undefined;
    if (endpoint === undefined) return { closed: Promise.resolve() };
    for (const raw of this.#pending) refuse(raw, reason);
    const sessions = [...this.#sessions];
    for (const session of sessions) session.close(reason);
    const stopped = endpoint.close(); // takes no new connection from now on
    stopped.catch(() => {});
    await Promise.all(sessions.map((session) => session.closed)); // bounded by the linger time of each
    return { closed: endpoint.destroy().catch(() => {}) };
  }

  #onConnection(raw: QuicSession): void {
    // oxlint-disable-next-line unicorn/prefer-add-event-listener -- not an EventTarget
    raw.onerror = () => {}; // `closed` and `opened` report it
    raw.closed.catch(() => {});
    if (this.#isClosed) {
      raw.opened.catch(() => {});
      return refuse(raw, new SallyError("OVERLOADED"));
    }
    this.#pending.add(raw);
    // One group: node:quic cannot be asked for the address yet, which may be forged until the handshake is complete.
    const leave = this.#slots.take("", () => {
      this.#pending.delete(raw);
      refuse(raw, new SallyError("OVERLOADED"));
    });
    this.#authenticate(raw)
      .catch((error: unknown) => {
        this.#options.log.debug("a QUIC connection did not authenticate", { error: String(error) });
        refuse(raw, error instanceof SallyError ? error : undefined);
      })
      .finally(() => {
        this.#pending.delete(raw);
        leave();
      });
  }

  async #authenticate(raw: QuicSession): Promise<void> {
    const early: QuicStream[] = [];
    // With early data node:quic calls the handshake complete when the first packet is here, which may be a replay.
    // A stream that is not early cannot be: only who holds the keys of this handshake can open one.
    const proof = Promise.withResolvers<void>();
    raw.onstream = (stream) => {
      stream.closed.catch(() => {});
      if (!stream.early) proof.resolve();
      if (early.length >= this.#limits.lanesMax) stream.destroy();
      else early.push(stream);
    };
    const { clock, handshakeMs = limits.handshakeMs } = this.#options;
    const timer = clock.after(handshakeMs, () => refuse(raw, new SallyError("REQUEST_TIMEOUT")));
    let carrier: QuicCarrier | undefined;
    try {
      const info = await raw.opened;
      if (info.earlyDataAccepted) {
        const leave = this.#places.take(() => carrier?.close(new SallyError("REQUEST_TIMEOUT")));
        if (leave === undefined) await Promise.race([proof.promise, raw.closed]);
        else void proof.promise.then(leave);
      }
      const certificate = raw.peerCertificate;
      const remote = raw.path?.remote;
      if (certificate === undefined || remote === undefined || isInvalid(info.validationErrorCode)) {
        throw new SallyError(
          "CERTIFICATE_INVALID",
          `The agent's certificate is not valid (${info.validationErrorReason}).`,
        );
      }
      carrier = new QuicCarrier({
        quic: this.#quic,
        raw,
        host: "", // every agent asks TLS for the same name: HELLO says which one it dialled
        remote: toAddress(remote),
        peerCertificate: new Uint8Array(certificate.raw),
        limits: this.#limits,
        clock,
        takesEarlyLanes: info.earlyDataAccepted,
      });
    } finally {
      timer.cancel();
    }
    this.#sessions.add(carrier);
    void carrier.closed.then(() => this.#sessions.delete(carrier));
    raw.onpathvalidation = (result, _local, remote) => {
      if (result === "success") carrier.moved(remote);
    };
    this.#options.onSession(carrier);
    for (const stream of early) carrier.accept(stream);
    raw.onstream = (stream) => {
      if (!stream.early) proof.resolve();
      carrier.accept(stream);
    };
  }
}

function isInvalid(code: string | undefined): boolean {
  return code !== undefined && code !== "" && code !== "OK";
}

function refuse(raw: QuicSession, error: SallyError | undefined): void {
  if (!raw.destroyed) raw.destroy(undefined, { code: closeCode(error), type: "application" });
}
