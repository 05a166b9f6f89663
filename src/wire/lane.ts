/**
 * One lane: an ordered byte pipe that carries the frames of many streams. It checks what the peer sends against what
 * it was granted, and hands frames that concern the whole link to its host. Every violation ends the link with a code.
 */

import type { Duplex } from "../core/duplex.ts";
import { errorCodeFromWire, SallyError, toSallyError } from "../core/errors.ts";
import { utf8Decode } from "../core/bytes.ts";
import {
  creditBytes,
  finBytes,
  FrameDecoder,
  frameType,
  payloadOf,
  pingBytes,
  readUint16,
  readUint32,
  readUint64,
  resetBytes,
  type Frame,
} from "./frames.ts";
import type { LaneHost } from "./lane-host.ts";
import { LaneSender } from "./lane-sender.ts";
import { decodePreamble, type Preamble } from "./preamble.ts";
import { WireStream } from "./wire-stream.ts";

const sendCreditMax = 0x7fff_ffff;

export class Lane {
  readonly host: LaneHost;
  readonly carrier: Duplex;
  readonly sender: LaneSender;
  /** 0 for the lane that shook hands; -1 until a further one has joined. */
  index: number;
  /** False until the handshake, or the lane's JOIN, is done: nothing but HANDSHAKE and GOAWAY is understood. */
  isJoined = false;
  isClosed = false;
  /** When the last complete frame arrived, and when we last had something to hear about. */
  heardMs: number;
  pingedMs: number | undefined;
  readonly #decoder: FrameDecoder;
  readonly #streams = new Map<number, WireStream>();
  readonly #waiting = new Set<WireStream>();
  #finished: WireStream[] = [];
  #nextId: number;
  #lastPeerId = 0;
  #current: WireStream | undefined;
  /** DATA that may still arrive for streams that we reset. */
  #staleBytes = 0;
  /** What the peer said last that it is about to send. */
  #peerQueuedBytes = 0;

  constructor(host: LaneHost, carrier: Duplex, index: number) {
    this.host = host;
    this.carrier = carrier;
    this.index = index;
    this.heardMs = host.clock.nowMs();
    this.#nextId = host.opensOdd ? 1 : 2;
    this.#decoder = new FrameDecoder(
      {
        onData: (streamId, part, frameBytes) => this.#onData(streamId, part, frameBytes),
        onFrame: (frame) => this.#onFrame(frame),
      },
      host.limits.handshakeMessageBytes,
    );
    this.sender = new LaneSender({
      carrier,
      limits: host.limits,
      schedule: host.schedule,
      onFlushed: () => this.#closeFinished(),
      onOverflow: () => host.onViolation(this, new SallyError("OVERLOADED", "the peer does not read its lane")),
    });
    carrier.handler = {
      onData: (chunk) => this.#receive(chunk),
      onEnd: () => this.close(new SallyError("LINK_LOST")),
      onDrain: () => this.sender.onDrain(),
      onClose: (error) => this.close(error ?? new SallyError("LINK_LOST")),
    };
  }

  /** From now on streams may be opened, and frames may have their full size. */
  join(): void {
    this.isJoined = true;
    this.#decoder.maxPayloadBytes = this.host.limits.framePayloadBytes;
  }

  get streamCount(): number {
    return this.#streams.size + this.#waiting.size;
  }

  /** Bytes that are on the way or wait, in both directions. */
  get ownLoadBytes(): number {
    return this.sender.inFlightBytes + this.sender.queuedBytes + this.#peerQueuedBytes;
  }

  /** The same with what goes first on other lanes. */
  get loadBytes(): number {
    return this.ownLoadBytes + this.host.bytesInFront(this);
  }

  /** Bytes that the decoder holds between chunks: for tests of bounded memory. */
  get bufferedBytes(): number {
    return this.#decoder.bufferedBytes;
  }

  /** False once all stream ids are used up. */
  get canOpen(): boolean {
    return this.isJoined && !this.isClosed && this.#nextId <= this.host.limits.streamIdMax;
  }

  open(preamble: Preamble, hasWindow: boolean): WireStream {
    const stream = new WireStream(this, preamble, false);
    if (hasWindow) this.activate(stream);
    else this.#waiting.add(stream);
    return stream;
  }

  /** Sends the OPEN of a stream whose window has been reserved. */
  activate(stream: WireStream): void {
    this.#waiting.delete(stream);
    stream.id = this.#nextId;
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    this.sender.open(stream.id, stream.preamble);
    if (stream.queuedBytes > 0) this.sender.markReady(stream);
    else if (stream.isEnding) stream.sendFin();
  }

  resetStream(stream: WireStream, error: SallyError): void {
    if (stream.id !== 0) {
      this.sender.reset(stream.id, error, stream.reportedBytes);
      this.#expectStale(stream);
    }
    this.#remove(stream);
  }

  refuseStream(stream: WireStream, error: SallyError): void {
    this.sender.refused(stream.id, error);
    this.#expectStale(stream);
    this.#remove(stream);
  }

  /** Both directions have ended by our FIN: the handler hears of it after this turn's frames are out. */
  finishStream(stream: WireStream): void {
    this.#remove(stream);
    this.#finished.push(stream);
  }

  /** Ends a stream without a word to the peer. */
  failStream(stream: WireStream, error: SallyError): void {
    this.#remove(stream);
    this.#closeHandler(stream, error);
  }

  /** Runs a handler; a bug in it ends its stream, not the lane. */
  guard(stream: WireStream, call: () => void): void {
    try {
      call();
    } catch (thrown) {
      this.#onBug(stream, thrown);
    }
  }

  /** The lane is over: its streams end with the error. Idempotent. */
  close(error: SallyError): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.sender.isClosed = true;
    this.#decoder.isStopped = true;
    this.#closeFinished();
    for (const stream of [...this.#streams.values(), ...this.#waiting]) this.failStream(stream, error);
    this.host.onLaneClosed(this, error);
  }

  /** Ends the lane alone: the peer sees its carrier fail. */
  abort(error: SallyError): void {
    if (this.isClosed) return;
    this.carrier.reset(error);
    this.close(error);
  }

  /** Something of the peer's is due here, sooner or later. */
  get awaitsPeer(): boolean {
    return this.sender.inFlightBytes > 0 || this.#streams.size > 0;
  }

  ping(stampMs: number): void {
    this.sender.ping(stampMs);
  }

  nudge(): void {
    this.sender.wakeIfOwed();
  }

  #receive(chunk: Uint8Array): void {
    if (this.isClosed) return this.carrier.consume(chunk.length);
    const before = this.#decoder.frameCount;
    try {
      this.#decoder.push(chunk);
    } catch (thrown) {
      this.#decoder.isStopped = true;
      this.host.onViolation(this, toSallyError(thrown));
      return;
    }
    if (this.isClosed) return;
    if (this.#decoder.frameCount !== before) {
      this.heardMs = this.host.clock.nowMs();
      this.pingedMs = undefined;
    }
    this.carrier.consume(chunk.length);
  }

  // hot: bench/micro/wire.ts; one lookup a frame, no allocation but the view.
  #onData(streamId: number, part: Uint8Array, frameBytes: number): void {
    let stream = this.#current;
    if (frameBytes > 0) {
      if (!this.isJoined) throw new SallyError("PROTOCOL_VIOLATION", "DATA before the handshake");
      this.sender.acknowledge(frameBytes);
      stream = this.#streams.get(streamId);
      this.#current = stream;
      if (stream === undefined) return this.#onStaleData(streamId, frameBytes);
      stream.receiveCredit -= frameBytes;
      if (stream.receiveCredit < 0) throw new SallyError("CREDIT_EXCEEDED");
      if (stream.finReceived) throw new SallyError("PROTOCOL_VIOLATION", "DATA after FIN");
    }
    if (stream === undefined || stream.isDone) return;
    if (!stream.isIncoming) stream.isOpened = true;
    stream.unconsumedBytes += part.length;
    try {
      stream.handler.onData(part);
    } catch (thrown) {
      this.#onBug(stream, thrown);
    }
  }

  #onStaleData(streamId: number, byteCount: number): void {
    if (!this.#wasOpened(streamId)) throw unknownStream(streamId);
    this.#staleBytes -= byteCount;
    if (this.#staleBytes < 0) throw new SallyError("CREDIT_EXCEEDED", "DATA for a stream that is closed");
  }

  #onFrame(frame: Frame): void {
    switch (frame.type) {
      case frameType.handshake:
      case frameType.goaway:
        return this.host.onLinkFrame(this, frame);
      case frameType.datagram:
        return; // reserved: no stream speaks datagrams yet
    }
    if (!this.isJoined) throw new SallyError("PROTOCOL_VIOLATION", "a frame before the handshake");
    switch (frame.type) {
      case frameType.open:
        return this.#onOpen(frame);
      case frameType.opened:
      case frameType.refused:
      case frameType.credit:
      case frameType.fin:
      case frameType.reset:
        return this.#onStreamFrame(frame);
      case frameType.ping:
        this.host.onPeerPing(this);
        return this.sender.pong(payloadOf(frame, pingBytes).slice());
      case frameType.pong:
        return this.#onPong(readUint64(payloadOf(frame, pingBytes), 0));
      default:
        return this.host.onLinkFrame(this, frame);
    }
  }

  #onOpen(frame: Frame): void {
    const id = frame.streamId;
    const isPeers = id !== 0 && (id & 1) === (this.host.opensOdd ? 0 : 1);
    if (!isPeers || id <= this.#lastPeerId) throw new SallyError("PROTOCOL_VIOLATION", "OPEN with an id out of order");
    this.#lastPeerId = id;
    let preamble: Preamble;
    try {
      preamble = decodePreamble(payloadOf(frame, 0).slice());
    } catch (thrown) {
      return this.#refuseUnopened(id, toSallyError(thrown));
    }
    const refusal = this.host.admit();
    if (this.isClosed) return;
    if (refusal !== undefined) return this.#refuseUnopened(id, refusal);
    const stream = new WireStream(this, preamble, true);
    stream.id = id;
    this.#streams.set(id, stream);
    this.guard(stream, () => this.host.onStream(stream));
  }

  #refuseUnopened(id: number, error: SallyError): void {
    this.sender.refused(id, error);
    this.#staleBytes += this.host.limits.streamWindowInitialBytes;
  }

  #onStreamFrame(frame: Frame): void {
    if (frame.type === frameType.credit && frame.streamId === 0) return this.#onLaneCredit(frame);
    const stream = this.#streams.get(frame.streamId);
    if (stream === undefined) {
      if (this.#wasOpened(frame.streamId)) return; // crossed with our own RESET
      throw unknownStream(frame.streamId);
    }
    switch (frame.type) {
      case frameType.opened:
        if (stream.isIncoming) throw new SallyError("PROTOCOL_VIOLATION", "OPENED for a stream of the sender's own");
        stream.isOpened = true;
        return;
      case frameType.credit:
        return this.#onCredit(stream, readUint32(payloadOf(frame, creditBytes), 0));
      case frameType.fin:
        return this.#onFin(stream, readUint64(payloadOf(frame, finBytes), 0));
      case frameType.refused:
        if (stream.isIncoming || stream.isOpened) throw new SallyError("PROTOCOL_VIOLATION", "REFUSED out of place");
        return this.#onAbort(stream, frame);
      default:
        if (stream.isIncoming) this.host.onPeerReset();
        return this.#onAbort(stream, frame);
    }
  }

  #onLaneCredit(frame: Frame): void {
    const payload = payloadOf(frame, creditBytes);
    this.sender.inFlightBytes -= readUint32(payload, 0);
    if (this.sender.inFlightBytes < 0) throw new SallyError("PROTOCOL_VIOLATION", "more is acknowledged than was sent");
    this.#peerQueuedBytes = readUint32(payload, 4);
  }

  #onCredit(stream: WireStream, increment: number): void {
    stream.sendCredit += increment;
    if (stream.sendCredit > sendCreditMax) throw new SallyError("PROTOCOL_VIOLATION", "CREDIT beyond 2^31-1");
    this.sender.markReady(stream);
  }

  #onFin(stream: WireStream, deliveredBytes: number): void {
    if (stream.finReceived) throw new SallyError("PROTOCOL_VIOLATION", "FIN twice");
    stream.finReceived = true;
    stream.deliveredBytes = deliveredBytes;
    if (!stream.isIncoming) stream.isOpened = true;
    this.guard(stream, () => stream.handler.onEnd());
    if (!stream.finSent || stream.isDone) return;
    this.#remove(stream);
    this.#closeHandler(stream, undefined);
  }

  #onAbort(stream: WireStream, frame: Frame): void {
    const payload = payloadOf(frame, resetBytes);
    const code = errorCodeFromWire(readUint16(payload, 0), "ORIGIN_RESET");
    const reason = utf8Decode(payload.subarray(resetBytes, resetBytes + this.host.limits.reasonBytes));
    stream.deliveredBytes = readUint64(payload, 2);
    this.failStream(stream, new SallyError(code, reason === "" ? undefined : reason));
  }

  #onPong(stampMicros: number): void {
    this.host.onRoundTrip(this.host.clock.nowMs() - stampMicros / 1_000);
  }

  #wasOpened(id: number): boolean {
    if (id === 0) return false;
    return (id & 1) === (this.host.opensOdd ? 1 : 0) ? id < this.#nextId : id <= this.#lastPeerId;
  }

  #expectStale(stream: WireStream): void {
    if (!stream.finReceived) this.#staleBytes += stream.receiveCredit;
  }

  #remove(stream: WireStream): void {
    if (stream.isDone) return;
    stream.isDone = true;
    if (stream.id === 0) this.#waiting.delete(stream);
    else this.#streams.delete(stream.id);
    stream.dropQueue();
    this.host.onStreamDone(stream);
  }

  #closeFinished(): void {
    while (this.#finished.length > 0) {
      const finished = this.#finished;
      this.#finished = [];
      for (const stream of finished) this.#closeHandler(stream, undefined);
    }
  }

  #closeHandler(stream: WireStream, error: SallyError | undefined): void {
    if (stream.isClosed) return;
    stream.isClosed = true;
    this.guard(stream, () => stream.handler.onClose(error));
  }

  #onBug(stream: WireStream, thrown: unknown): void {
    this.host.log.error("a stream's handler failed", {
      error: thrown instanceof Error ? thrown.stack : String(thrown),
    });
    stream.reset(new SallyError("INTERNAL", undefined, { cause: thrown }));
  }
}

function unknownStream(streamId: number): SallyError {
  return new SallyError("PROTOCOL_VIOLATION", `a frame for stream ${streamId}, which was never opened`);
}
