/**
 * What both ends of an established link share: its lanes, the placing and counting of streams, control messages,
 * liveness, draining and the one way to end. Who opens lanes, and the handshake, are in link.ts.
 */

import type { Address } from "../core/address.ts";
import type { Timer } from "../core/clock.ts";
import { utf8Decode } from "../core/bytes.ts";
import { errorCodeFromWire, SallyError, toSallyError } from "../core/errors.ts";
import type { PeerIdentity } from "../core/identity.ts";
import type { Session, TransportKind } from "../ports/session.ts";
import { ControlChannel } from "./control-channel.ts";
import { frameType, goawayBytes, payloadOf, readUint16, type Frame } from "./frames.ts";
import type { HandshakeResult } from "./handshake.ts";
import type { LaneHost } from "./lane-host.ts";
import type { Lane } from "./lane.ts";
import type { Link, LinkOptions } from "./link.ts";
import { Liveness } from "./liveness.ts";
import { decodeMessage, encodeMessage, type ControlMessage } from "./messages.ts";
import { OpenLine } from "./open-line.ts";
import { bytesInFront, placeStream } from "./placement.ts";
import type { Preamble } from "./preamble.ts";
import { StreamAdmission } from "./stream-admission.ts";
import type { WindowAccount } from "./window-budget.ts";
import type { LinkStream, WireStream } from "./wire-stream.ts";

export interface LinkCoreOptions {
  readonly session: Session;
  readonly options: LinkOptions;
  readonly isDialler: boolean;
  /** A HANDSHAKE frame on a lane. */
  readonly onHandshake: (lane: Lane, payload: Uint8Array) => void;
  /** A lane is gone, while others are left. */
  readonly onLaneLost: () => void;
  /** The link has ended. */
  readonly onStop: () => void;
}

/** Implements `Link` and hosts its lanes. `onClose` of the options is called only after `establish`. */
export class LinkCore implements Link, LaneHost {
  readonly clock: LinkOptions["clock"];
  readonly log: LinkOptions["log"];
  readonly limits: LinkOptions["limits"];
  readonly schedule: (task: () => void) => void;
  readonly opensOdd: boolean;
  isClosed = false;
  isDraining = false;
  /** Why the link ended, once it has. */
  closeError: SallyError | undefined;
  readonly #session: Session;
  readonly #options: LinkOptions;
  readonly #setup: LinkCoreOptions;
  readonly #control: ControlChannel;
  readonly #admission: StreamAdmission;
  readonly #openLine: OpenLine;
  readonly #liveness: Liveness;
  /** Lanes that have joined; control messages go over the first. */
  #lanes: Lane[] = [];
  /** Lanes that have not joined yet. */
  readonly #joining = new Map<Lane, Timer | undefined>();
  #result: HandshakeResult | undefined;
  #account: WindowAccount | undefined;
  /** Streams that this side opened, or is about to. */
  #ownStreams = 0;
  #peerDrains = false;
  #hasToldDrain = false;
  #onEnded: ((error: SallyError | undefined) => void) | undefined;

  constructor(setup: LinkCoreOptions) {
    const { options, session } = setup;
    this.#setup = setup;
    this.#options = options;
    this.#session = session;
    this.clock = options.clock;
    this.log = options.log;
    this.limits = options.limits;
    this.schedule = options.schedule ?? queueMicrotask;
    this.opensOdd = setup.isDialler;
    this.#control = new ControlChannel(this.limits.controlUnackedMax, this.limits.laneControlQueueBytes);
    this.#admission = new StreamAdmission(this);
    this.#openLine = new OpenLine({ host: this, hasPlace: () => this.#hasPlace });
    this.#liveness = new Liveness({
      clock: this.clock,
      limits: this.limits,
      lanesShareLine: session.transport === "quic",
      lanes: () => this.#lanes,
      onLaneDead: (lane) => (lane as Lane).abort(new SallyError("LINK_IDLE")), // lanes() handed out lanes
      onLinkDead: () => this.#end(new SallyError("LINK_IDLE"), "abrupt"),
      onDoubt: () => options.onDoubt?.(this),
    });
    void session.closed.then((error) => this.#onSessionClosed(error));
  }

  get isEstablished(): boolean {
    return this.#result !== undefined;
  }

  get id(): string {
    return this.#known.linkId;
  }

  get peer(): PeerIdentity {
    return this.#known.peer;
  }

  get peerProcess(): string {
    return this.#known.peerProcess;
  }

  get peerVersion(): string {
    return this.#known.peerVersion;
  }

  get transport(): TransportKind {
    return this.#session.transport;
  }

  get remote(): Address {
    return this.#session.remote;
  }

  get rttMs(): number | undefined {
    return this.#liveness.rttMs;
  }

  get isInDoubt(): boolean {
    return this.#liveness.isInDoubt;
  }

  get streamCount(): number {
    return this.#ownStreams + this.#admission.count;
  }

  get laneCount(): number {
    return this.#lanes.length;
  }

  get joiningCount(): number {
    return this.#joining.size;
  }

  get budget(): WindowAccount {
    if (this.#account === undefined) throw new Error("assertion failed: the link is not established");
    return this.#account;
  }

  get #known(): HandshakeResult {
    if (this.#result === undefined) throw new Error("assertion failed: the link is not established");
    return this.#result;
  }

  /** Called while the link is not established, in place of `options.onClose`. */
  onEnded(callback: (error: SallyError | undefined) => void): void {
    this.#onEnded = callback;
  }

  establish(result: HandshakeResult, lane: Lane): void {
    this.#result = result;
    this.#account = this.#options.budget.join(result.peer.identity);
    this.#onEnded = undefined;
    this.addLane(lane);
    this.#liveness.start();
  }

  /** A lane that has not shown yet that it belongs here; a further one has limits.handshakeMs for it. */
  watch(lane: Lane, isFurther = false): void {
    const tooLate = (): void => lane.abort(new SallyError("CONNECT_TIMEOUT"));
    this.#joining.set(lane, isFurther ? this.clock.after(this.limits.handshakeMs, tooLate) : undefined);
  }

  addLane(lane: Lane): void {
    this.#unwatch(lane);
    if (lane.isClosed) return;
    lane.join();
    const at = this.#lanes.findIndex(({ index }) => index > lane.index);
    this.#lanes.splice(at < 0 ? this.#lanes.length : at, 0, lane);
  }

  bytesInFront(lane: Lane): number {
    return this.#session.transport === "quic" ? bytesInFront(this.#lanes, lane.index) : 0;
  }

  open(preamble: Preamble, mayWait = false): LinkStream {
    if (this.isClosed) throw new SallyError("LINK_LOST");
    if (this.isDraining) throw new SallyError("DRAINING");
    const hasPlace = this.#hasPlace;
    if (!hasPlace && !mayWait) throw new SallyError("STREAM_LIMIT");
    const usable = this.#lanes.every((lane) => lane.canOpen) ? this.#lanes : this.#lanes.filter((lane) => lane.canOpen);
    const lane = usable[placeStream(usable, this.rttMs)];
    if (lane === undefined) {
      this.drain(); // the lanes have used up their ids: the agent links anew
      throw new SallyError("DRAINING");
    }
    if (hasPlace && this.budget.tryReserve(this.limits.streamWindowInitialBytes)) {
      this.#ownStreams++;
      return lane.open(preamble, true);
    }
    const stream = this.#openLine.open(lane, preamble);
    this.#ownStreams++;
    return stream;
  }

  /** Those that wait for a place have none. */
  get #hasPlace(): boolean {
    return this.#ownStreams - this.#openLine.placeless < this.limits.streamsPerLink;
  }

  send(message: ControlMessage): void {
    if (this.isClosed) return;
    const payload = encodeMessage(message);
    if (payload.length > this.limits.controlMessageBytes) {
      throw new SallyError("BAD_REQUEST", `the control message "${message.type}" is too large`);
    }
    try {
      const sequence = this.#control.add(payload);
      this.#lanes[0]?.sender.control(sequence, payload);
    } catch (thrown) {
      const error = toSallyError(thrown);
      queueMicrotask(() => this.close(error));
    }
  }

  drain(): void {
    if (this.isClosed || this.isDraining) return;
    this.isDraining = true;
    this.#lanes[0]?.sender.goaway(0, "");
    this.#closeWhenDone();
  }

  suspect(): void {
    this.#liveness.suspect();
  }

  bear(): void {
    this.#liveness.bear();
  }

  close(error?: SallyError): void {
    this.#end(error, "graceful");
  }

  // What lanes report.

  admit(): SallyError | undefined {
    return this.#admission.admit(this.isDraining && !this.#peerDrains);
  }

  onStream(stream: WireStream): void {
    this.#options.onStream(stream, this);
  }

  onStreamDone(stream: WireStream): void {
    if (stream.isIncoming) this.#admission.count--;
    else this.#ownStreams--;
    if (stream.cancelWait === undefined) {
      stream.held = this.budget.retire(stream, stream.windowBytes, stream.unconsumedBytes);
    } else stream.cancelWait();
    stream.cancelWait = undefined;
    if (this.#openLine.placeless > 0 && !this.isClosed) this.#openLine.serve();
    if (this.isDraining && this.streamCount === 0) queueMicrotask(() => this.#closeWhenDone());
  }

  onPeerReset(): void {
    this.#admission.onReset();
  }

  onPeerPing(lane: Lane): void {
    this.#liveness.onPeerPing(lane);
  }

  onRoundTrip(rttMs: number): void {
    this.#liveness.onRoundTrip(rttMs);
  }

  onLinkFrame(lane: Lane, frame: Frame): void {
    switch (frame.type) {
      case frameType.handshake:
        return this.#setup.onHandshake(lane, payloadOf(frame, 1).slice());
      case frameType.goaway:
        return this.#onGoaway(lane, payloadOf(frame, goawayBytes));
      case frameType.controlAck:
        return this.#control.onAcknowledged(frame.streamId);
      default:
        return this.#onControl(lane, frame);
    }
  }

  onViolation(lane: Lane, error: SallyError): void {
    this.log.warn("the peer broke the protocol", { code: error.code, error: error.message, lane: lane.index });
    this.#end(error, "graceful");
  }

  onLaneClosed(lane: Lane, error: SallyError): void {
    this.#unwatch(lane);
    const at = this.#lanes.indexOf(lane);
    if (at >= 0) this.#lanes.splice(at, 1);
    if (this.isClosed) return;
    if (this.#lanes.length === 0 && (at >= 0 || this.#result === undefined)) {
      return this.#end(this.isDraining && this.streamCount === 0 ? undefined : error, "abrupt");
    }
    if (at === 0) this.#resendControl();
    this.#setup.onLaneLost();
  }

  #onControl(lane: Lane, frame: Frame): void {
    const isNew = this.#control.accepts(frame.streamId);
    lane.sender.acknowledgeControl(this.#control.lastReceived);
    if (!isNew) return;
    const message = decodeMessage(payloadOf(frame, 1));
    if (message !== undefined) this.#options.onMessage(message, this);
  }

  #resendControl(): void {
    const lane = this.#lanes[0]!; // the caller checked that one is left
    for (const { sequence, payload } of this.#control.pending) lane.sender.control(sequence, payload);
  }

  #onGoaway(lane: Lane, payload: Uint8Array): void {
    const wire = readUint16(payload, 0);
    if (wire === 0) {
      this.#peerDrains = !this.isDraining;
      this.isDraining = true;
      this.#tellDrain();
      return this.#closeWhenDone();
    }
    const reason = utf8Decode(payload.subarray(goawayBytes, goawayBytes + this.limits.reasonBytes));
    const error = new SallyError(errorCodeFromWire(wire), reason === "" ? undefined : reason);
    if (!lane.isJoined && this.#result !== undefined) return lane.abort(error);
    this.#end(error, "abrupt");
  }

  #tellDrain(): void {
    if (this.#hasToldDrain || this.#result === undefined) return;
    this.#hasToldDrain = true;
    this.#options.onDrain?.(this);
  }

  /** A GOAWAY may overtake an OPEN on another lane: who did not open the streams, and did not drain, waits for the peer. */
  #closeWhenDone(): void {
    if (this.#peerDrains && this.#setup.isDialler) return;
    if (this.isDraining && this.streamCount === 0) this.#end(undefined, "graceful");
  }

  #onSessionClosed(error: SallyError | undefined): void {
    const isClean = error === undefined && this.isDraining;
    this.#end(isClean ? undefined : (error ?? new SallyError("LINK_LOST")), "abrupt");
  }

  /** Its timer would keep the lane, with its buffers, in memory. */
  #unwatch(lane: Lane): void {
    this.#joining.get(lane)?.cancel();
    this.#joining.delete(lane);
  }

  /** Graceful: the peer is told why, and the transport delivers what is queued. */
  #end(error: SallyError | undefined, manner: "graceful" | "abrupt"): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.isDraining = true;
    this.closeError = error;
    this.#liveness.stop();
    this.#setup.onStop();
    const lanes = [...this.#lanes, ...this.#joining.keys()];
    if (manner === "graceful") {
      lanes[0]?.sender.goaway(error?.row.wire ?? 0, error === undefined ? "" : error.message);
      for (const lane of lanes) lane.sender.flush(); // what the streams said last may wait for the end of the turn
    }
    for (const lane of lanes) {
      this.#unwatch(lane);
      lane.close(error ?? new SallyError("LINK_LOST"));
    }
    this.#account?.leave();
    this.#session.close(manner === "graceful" ? undefined : error);
    if (this.#onEnded !== undefined) this.#onEnded(error);
    else if (this.#result !== undefined) this.#options.onClose(error, this);
  }
}
