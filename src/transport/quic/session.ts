/**
 * One QUIC connection as a session of the tunnel: its lanes, its reason for ending, and the ceiling on bytes that
 * were received and not read yet. node:quic has no flow control on the receiving side, so that ceiling is what keeps
 * a peer that ignores the multiplexer's credit from filling the memory: it closes the session.
 */

import { closeCode, reasonOf } from "./close-codes.ts";
import { confirmPreface, QuicLane, type LaneHost } from "./lane.ts";
import type { QuicModule } from "./load-quic.ts";
import { SendTurns } from "./send-turns.ts";
import type { Address } from "../../core/address.ts";
import type { Clock, Timer } from "../../core/clock.ts";
import type { Duplex } from "../../core/duplex.ts";
import { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { Session } from "../../ports/session.ts";
import type { QuicSession, QuicStream, SocketAddressLike } from "node:quic";

/** Bounds and measures that both sides of a connection share. */
export interface SessionLimits {
  /** Bytes received and not consumed on all lanes together; beyond it the session closes with CREDIT_EXCEEDED. */
  readonly unreadMaxBytes: number;
  readonly lanesMax: number;
  /** Bytes that node:quic holds for a lane until they are acknowledged; a writer is told to wait above it. */
  readonly laneBufferBytes: number;
  /** How long a clean close waits for the peer to acknowledge what was queued. */
  readonly lingerMs: number;
}

export interface CarrierOptions {
  readonly quic: QuicModule;
  readonly raw: QuicSession;
  readonly host: string;
  readonly remote: Address;
  readonly peerCertificate: Uint8Array | undefined;
  readonly limits: SessionLimits;
  readonly clock: Clock;
  /** False: the handshake is not complete; lanes may be written to, and deliver once `open` was called. Default true. */
  readonly isOpen?: boolean;
  /** Not open yet, and resumed: so many bytes of each lane may go out as early data. */
  readonly earlyMaxBytes?: number | undefined;
  /** Accepting side: the handshake accepted the early data of the peer. */
  readonly takesEarlyLanes?: boolean;
}

/** More than a connection sends in limits.socketLingerMs when it only looks whether the peer is there. */
const probesBytes = 8_192n;

export class QuicCarrier implements Session, LaneHost {
  readonly transport = "quic";
  readonly exporter = undefined;
  readonly isProxied = false;
  readonly host: string;
  readonly quic: QuicModule;
  readonly takesEarlyLanes: boolean;
  readonly closed: Promise<SallyError | undefined>;
  remote: Address;
  peerCertificate: Uint8Array | undefined;
  readonly #raw: QuicSession;
  readonly #limits: SessionLimits;
  readonly clock: Clock;
  readonly turns: SendTurns;
  readonly #lanes = new Set<QuicLane>();
  #waitingLanes: QuicLane[] = [];
  #onLane: ((lane: Duplex) => void) | undefined;
  #unreadBytes = 0;
  #isOpen: boolean;
  #earlyMaxBytes: number | undefined;
  #isClosing = false;
  #isGone = false;
  #reason: SallyError | undefined;
  #linger: Timer | undefined;
  #resolveClosed!: (reason: SallyError | undefined) => void;

  constructor({ quic, raw, host, remote, peerCertificate, limits, clock, ...early }: CarrierOptions) {
    this.quic = quic;
    this.host = host;
    this.remote = remote;
    this.peerCertificate = peerCertificate;
    this.#raw = raw;
    this.#limits = limits;
    this.clock = clock;
    this.turns = new SendTurns(clock);
    this.#isOpen = early.isOpen ?? true;
    this.#earlyMaxBytes = early.earlyMaxBytes;
    this.takesEarlyLanes = early.takesEarlyLanes ?? false;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    // Comes before the streams are torn down, so that the lanes can say why.
    // oxlint-disable-next-line unicorn/prefer-add-event-listener -- not an EventTarget
    raw.onerror = (error) => {
      if (!this.#isClosing) this.#reason ??= reasonOf(error);
    };
    raw.closed.then(
      () => this.#gone(reasonOf(undefined)),
      (error: unknown) => this.#gone(reasonOf(error)),
    );
  }

  get isGone(): boolean {
    return this.#isGone || this.#raw.destroyed;
  }

  get isClosing(): boolean {
    return this.#isClosing;
  }

  endReason(lane: QuicLane): SallyError | undefined {
    if (this.#reason !== undefined || lane.isEnding) return this.#reason;
    return new SallyError("LINK_LOST", "The QUIC connection ended while the lane was in use.");
  }

  get onLane(): (lane: Duplex) => void {
    return this.#onLane ?? (() => {});
  }

  set onLane(receive: (lane: Duplex) => void) {
    this.#onLane = receive;
    const lanes = this.#waitingLanes;
    this.#waitingLanes = [];
    for (const lane of lanes) this.#handUp(lane, receive);
  }

  async openLane(signal: AbortSignal): Promise<Duplex> {
    signal.throwIfAborted();
    if (this.isGone || this.#isClosing) throw await this.#whyClosed();
    const stream = await this.#createStream();
    if (signal.aborted) {
      stream.destroy();
      throw signal.reason;
    }
    const lane = new QuicLane(this, { stream, isOurs: true, earlyMaxBytes: this.#earlyMaxBytes });
    this.#lanes.add(lane);
    if (this.#isOpen) lane.start();
    return lane;
  }

  /** A stream that the peer opened. The caller has made sure that the peer is authenticated. */
  accept(stream: QuicStream): void {
    stream.closed.catch(() => {}); // the lane reports it
    if (this.#isClosing || this.isGone) return stream.destroy();
    if (this.#lanes.size >= this.#limits.lanesMax) {
      return this.close(new SallyError("STREAM_LIMIT", "The agent opened too many lanes."));
    }
    stream.highWaterMark = this.#limits.laneBufferBytes;
    const lane = new QuicLane(this, { stream, isOurs: false });
    this.#lanes.add(lane);
  }

  /** Only now: a stream of rejected early data shows up here too, and is reset before it has said anything. */
  arrived(lane: QuicLane): void {
    if (this.#onLane === undefined) this.#waitingLanes.push(lane);
    else this.#handUp(lane, this.#onLane);
  }

  close(reason?: SallyError): void {
    if (this.isGone) return;
    if (reason !== undefined) return this.#abort(reason);
    if (this.#isClosing) return;
    this.#isClosing = true;
    for (const lane of this.#lanes) lane.end();
    this.#raw.close({ code: closeCode(undefined), type: "application" }).catch(() => {}); // `closed` reports it
    this.#lingerOn();
  }

  /** A peer that still takes what is left gets the time for that. */
  #lingerOn(): void {
    const { sentBytes, receivedBytes } = this.#carried();
    this.#linger = this.clock.after(this.#limits.lingerMs, () => {
      const now = this.#carried();
      if (now.receivedBytes > receivedBytes && now.sentBytes - sentBytes > probesBytes) this.#lingerOn();
      else this.#destroy(undefined);
    });
  }

  #carried(): { readonly sentBytes: bigint; readonly receivedBytes: bigint } {
    const { bytesSent: sentBytes = 0n, bytesReceived: receivedBytes = 0n } = this.#raw.stats;
    return { sentBytes, receivedBytes };
  }

  received(byteCount: number): boolean {
    this.#unreadBytes += byteCount;
    if (this.#unreadBytes <= this.#limits.unreadMaxBytes) return true;
    this.#abort(new SallyError("CREDIT_EXCEEDED"));
    return false;
  }

  consumed(byteCount: number): void {
    this.#unreadBytes -= byteCount;
  }

  over(lane: QuicLane): void {
    this.#lanes.delete(lane);
  }

  /** The peer moved to another address, and proved that it did. */
  moved(remote: SocketAddressLike): void {
    this.remote = toAddress(remote);
  }

  /** The dialling side's business, as the next one. */
  answered(): void {}

  earlyRefused(): void {}

  /** The peer is authenticated: what it says is delivered. */
  protected open(peerCertificate: Uint8Array): void {
    this.peerCertificate = peerCertificate;
    this.#isOpen = true;
    for (const lane of this.#lanes) lane.start();
  }

  protected earlyTaken(): void {
    this.#earlyMaxBytes = undefined;
    for (const lane of this.#lanes) lane.earlyAccepted();
  }

  /** What had left early leaves again. */
  protected async sendAgain(): Promise<void> {
    this.#earlyMaxBytes = undefined;
    for (const lane of this.#lanes) {
      if (lane.isEarly) lane.earlyRejected(await this.#createStream());
    }
  }

  /** Shows the peer that we take part in this handshake. */
  protected async proveFreshness(): Promise<void> {
    const { writer } = await this.#createStream();
    writer.writeSync(Uint8Array.of(confirmPreface));
    writer.endSync();
  }

  async #createStream(): Promise<QuicStream> {
    try {
      const stream = await this.#raw.createBidirectionalStream({ highWaterMark: this.#limits.laneBufferBytes });
      stream.closed.catch(() => {}); // the lane reports it
      return stream;
    } catch (error) {
      throw await this.#whyClosed(error);
    }
  }

  /** What the peer said may come a moment after the first sign that the connection is gone. */
  async #whyClosed(cause?: unknown): Promise<SallyError> {
    const late = Promise.withResolvers<undefined>();
    const timer = this.clock.after(limits.quicReasonWaitMs, () => late.resolve(undefined));
    const reason = this.#reason ?? (await Promise.race([this.closed, late.promise])) ?? this.#reason;
    timer.cancel();
    return reason ?? new SallyError("LINK_LOST", "The QUIC connection is closed.", { cause });
  }

  #handUp(lane: QuicLane, receive: (lane: Duplex) => void): void {
    receive(lane);
    lane.start();
  }

  #abort(error: SallyError): void {
    this.#isClosing = true;
    this.#reason ??= error;
    for (const lane of this.#lanes) lane.fail(error);
    this.#destroy(error);
  }

  #destroy(error: SallyError | undefined): void {
    if (this.#raw.destroyed) return;
    this.#raw.destroy(undefined, {
      code: closeCode(error),
      type: "application",
      ...(error === undefined ? {} : { reason: error.code }),
    });
  }

  #gone(reason: SallyError | undefined): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#linger?.cancel();
    if (!this.#isClosing) this.#reason = reason; // else it was ours: the one given to close, or none
    for (const lane of this.#lanes) lane.fail(this.endReason(lane));
    this.#waitingLanes = [];
    this.#resolveClosed(this.#reason);
  }
}

/** IPv4-mapped IPv6 is written as IPv4. */
export function toAddress({ address, port }: SocketAddressLike): Address {
  return { host: address.startsWith("::ffff:") && address.includes(".") ? address.slice(7) : address, port };
}
