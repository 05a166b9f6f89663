/**
 * The sending half of a lane. Frames of one turn leave in one write; frames other than DATA never wait behind queued
 * data; streams take turns in pieces of 16 KiB; and the carrier is never handed more than the lane's send queue.
 */

import { utf8Encode } from "../core/bytes.ts";
import type { Duplex } from "../core/duplex.ts";
import type { SallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import {
  creditBytes,
  finBytes,
  frameHeaderBytes,
  FrameWriter,
  frameType,
  goawayBytes,
  pingBytes,
  resetBytes,
} from "./frames.ts";
import { encodePreamble, type Preamble } from "./preamble.ts";
import type { WireStream } from "./wire-stream.ts";

/** Received DATA is acknowledged with the next write, or at once when this much is owed. */
const ackAtBytes = 32 * 1024;
/** Who opens streams on this lane is told when so much is about to be sent, ahead of it, and behind the last of it. */
const announceAtBytes = 16 * 1024;

export interface LaneSenderOptions {
  readonly carrier: Duplex;
  readonly limits: Limits;
  readonly schedule: (task: () => void) => void;
  /** The turn's frames are with the carrier. */
  readonly onFlushed: () => void;
  /** The peer reads too little of what it makes us say. */
  readonly onOverflow: () => void;
}

export class LaneSender {
  /** DATA that waits in the queues of this lane's streams. */
  queuedBytes = 0;
  /** What the peer was told last that is about to be sent. */
  #announcedBytes = 0;
  /** DATA sent that the peer has not acknowledged. */
  inFlightBytes = 0;
  isClosed = false;
  readonly #carrier: Duplex;
  readonly #limits: Limits;
  readonly #schedule: (task: () => void) => void;
  readonly #onFlushed: () => void;
  readonly #onOverflow: () => void;
  readonly #writer: FrameWriter;
  readonly #flush = (): void => this.flush();
  #isScheduled = false;
  #isBlocked = false;
  /** DATA that may still be packed before the next look at the carrier. */
  #roomBytes: number;
  #readyHead: WireStream | undefined;
  #readyTail: WireStream | undefined;
  #owedAckBytes = 0;
  #owedControlAck: number | undefined;
  #pong: Uint8Array | undefined;

  constructor({ carrier, limits, schedule, onFlushed, onOverflow }: LaneSenderOptions) {
    this.#carrier = carrier;
    this.#limits = limits;
    this.#schedule = schedule;
    this.#onFlushed = onFlushed;
    this.#onOverflow = onOverflow;
    this.#roomBytes = limits.laneSendQueueBytes;
    this.#writer = new FrameWriter((slab, start, end) => this.#emit(slab, start, end), carrier.headroomBytes);
  }

  // hot: bench/micro/wire.ts; a small chunk is copied once and touches no queue. Its gain is within that benchmark's noise.
  trySend(stream: WireStream, chunk: Uint8Array): boolean {
    const length = chunk.length;
    if (
      length >= this.#limits.laneQuantumBytes ||
      length > stream.sendCredit ||
      this.#roomBytes <= 0 ||
      this.#isBlocked ||
      this.#readyHead !== undefined ||
      stream.id === 0
    ) {
      return false;
    }
    this.#writer.begin(frameType.data, stream.id, length);
    this.#writer.putBytes(chunk);
    stream.sendCredit -= length;
    this.inFlightBytes += length;
    this.#roomBytes -= length + frameHeaderBytes;
    this.wake();
    return true;
  }

  /** Puts a stream that has data and credit at the end of the line. */
  markReady(stream: WireStream): void {
    if (stream.isReady || stream.queuedBytes === 0 || stream.sendCredit === 0 || stream.id === 0) return;
    stream.isReady = true;
    if (this.#readyTail === undefined) this.#readyHead = stream;
    else this.#readyTail.nextReady = stream;
    this.#readyTail = stream;
    if (!this.#isBlocked) this.wake();
  }

  open(id: number, preamble: Preamble): void {
    this.#small(frameType.open, id, encodePreamble(preamble));
  }

  opened(id: number): void {
    this.#small(frameType.opened, id);
  }

  refused(id: number, error: SallyError): void {
    this.#aborting(frameType.refused, id, error, 0);
  }

  reset(id: number, error: SallyError, deliveredBytes: number): void {
    this.#aborting(frameType.reset, id, error, deliveredBytes);
  }

  fin(id: number, deliveredBytes: number): void {
    this.#writer.begin(frameType.fin, id, finBytes);
    this.#writer.putUint64(deliveredBytes);
    this.wake();
  }

  credit(id: number, increment: number, queuedBytes: number): void {
    this.#writer.begin(frameType.credit, id, creditBytes);
    this.#writer.putUint32(increment);
    this.#writer.putUint32(Math.min(queuedBytes, 0xffff_ffff));
    this.wake();
  }

  ping(stampMs: number): void {
    this.#writer.begin(frameType.ping, 0, pingBytes);
    this.#writer.putUint64(Math.round(stampMs * 1_000));
    this.wake();
  }

  /** Answers the latest PING; an older one that still waits is forgotten. */
  pong(payload: Uint8Array): void {
    this.#pong = payload;
    if (!this.#isBlocked) this.wake();
  }

  goaway(wireCode: number, message: string): void {
    const reason = this.#reason(message);
    this.#writer.begin(frameType.goaway, 0, goawayBytes + reason.length);
    this.#writer.putUint16(wireCode);
    this.#writer.putBytes(reason);
    this.wake();
  }

  control(sequence: number, payload: Uint8Array): void {
    this.#small(frameType.control, sequence, payload);
  }

  handshake(payload: Uint8Array): void {
    this.#small(frameType.handshake, 0, payload);
  }

  acknowledgeControl(sequence: number): void {
    this.#owedControlAck = sequence;
    this.wake();
  }

  /** DATA of the peer's arrived. */
  acknowledge(byteCount: number): void {
    this.#owedAckBytes += byteCount;
    if (this.#owedAckBytes >= ackAtBytes) this.wake();
  }

  /** Says what is owed although nothing else is to be said. */
  wakeIfOwed(): void {
    if (this.#owedAckBytes > 0) this.wake();
  }

  /** A stream that is over had so much queued. */
  dropped(byteCount: number): void {
    this.queuedBytes -= byteCount;
    if (this.#announcedBytes > 0) this.wake();
  }

  wake(): void {
    if (this.#isScheduled || this.isClosed) return;
    this.#isScheduled = true;
    this.#schedule(this.#flush);
  }

  flush(): void {
    if (this.isClosed) return;
    this.#isScheduled = true; // what is packed from here on leaves with this flush
    this.#packOwed();
    this.#roomBytes = this.#limits.laneSendQueueBytes - this.#carrier.queuedBytes - this.#writer.pendingBytes;
    // A carrier that accepts more than our own limit gets one piece a turn, since it will not say when it has drained.
    if (!this.#isBlocked) this.#roomBytes = Math.max(this.#roomBytes, this.#limits.laneQuantumBytes);
    while (this.#readyHead !== undefined && this.#roomBytes > 0 && !this.#isBlocked) this.#sendPiece();
    if (this.#announcedBytes > 0 && this.#readyHead === undefined) this.#announce(0);
    this.#writer.flush();
    this.#isScheduled = false;
    this.#roomBytes = this.#limits.laneSendQueueBytes - this.#carrier.queuedBytes;
    if (this.#readyHead !== undefined && !this.#isBlocked) this.wake();
    this.#onFlushed();
    const bound = this.#limits.laneSendQueueBytes + this.#limits.framePayloadBytes + this.#limits.laneControlQueueBytes;
    if (this.#carrier.queuedBytes > bound) this.#onOverflow();
  }

  onDrain(): void {
    this.#isBlocked = false;
    this.flush();
  }

  /** True: the carrier is done with the bytes. */
  #emit(slab: Uint8Array, start: number, end: number): boolean {
    const carrier = this.#carrier;
    const hasRoom =
      carrier.writeOver === undefined ? carrier.write(slab.subarray(start, end)) : carrier.writeOver(slab, start, end);
    if (!hasRoom) this.#isBlocked = true;
    return carrier.copiesWrites === true && carrier.queuedBytes === 0;
  }

  #packOwed(): void {
    const sendableBytes = this.queuedBytes === 0 ? 0 : this.#sendableBytes();
    const isNews = sendableBytes >= announceAtBytes && sendableBytes !== this.#announcedBytes && !this.#isBlocked;
    if (this.#owedAckBytes > 0 || isNews) this.#announce(sendableBytes);
    if (this.#owedControlAck !== undefined) {
      this.#small(frameType.controlAck, this.#owedControlAck);
      this.#owedControlAck = undefined;
    }
    if (this.#pong !== undefined && !this.#isBlocked) {
      this.#small(frameType.pong, 0, this.#pong);
      this.#pong = undefined;
    }
  }

  #announce(sendableBytes: number): void {
    const owed = this.#owedAckBytes;
    this.#owedAckBytes = 0;
    this.#announcedBytes = sendableBytes;
    this.credit(0, owed, sendableBytes);
  }

  /** What is queued and has credit. */
  #sendableBytes(): number {
    let bytes = 0;
    for (let stream = this.#readyHead; stream !== undefined; stream = stream.nextReady) {
      bytes += Math.min(stream.queuedBytes, stream.sendCredit);
    }
    return bytes;
  }

  /** One frame of the stream at the head of the line. */
  #sendPiece(): void {
    const stream = this.#readyHead!; // the caller checked
    this.#readyHead = stream.nextReady;
    if (this.#readyHead === undefined) this.#readyTail = undefined;
    stream.nextReady = undefined;
    stream.isReady = false;
    if (stream.isDone) return;
    const { laneQuantumBytes: quantum, framePayloadBytes } = this.#limits;
    const most = Math.min(
      stream.sendCredit,
      stream.queuedBytes,
      this.#readyHead === undefined ? framePayloadBytes : quantum,
    );
    // Copied, also where it is large: frames that leave in one write cost less than a write for each.
    const size = this.#writer.fit(most);
    this.#writer.begin(frameType.data, stream.id, size);
    for (let left = size; left > 0;) {
      const part = stream.takeQueued(left);
      this.#writer.putBytes(part);
      left -= part.length;
    }
    stream.sendCredit -= size;
    this.queuedBytes -= size;
    this.inFlightBytes += size;
    this.#roomBytes -= size + frameHeaderBytes;
    this.markReady(stream);
    stream.onSent();
  }

  #aborting(type: number, id: number, error: SallyError, deliveredBytes: number): void {
    const reason = this.#reason(error.message === error.row.text ? "" : error.message);
    this.#writer.begin(type, id, resetBytes + reason.length);
    this.#writer.putUint16(error.row.wire);
    this.#writer.putUint64(deliveredBytes);
    this.#writer.putBytes(reason);
    this.wake();
  }

  #small(type: number, id: number, payload?: Uint8Array): void {
    this.#writer.begin(type, id, payload?.length ?? 0);
    if (payload !== undefined) this.#writer.putBytes(payload);
    this.wake();
  }

  /** At most so many bytes of UTF-8, cut between characters. */
  #reason(message: string): Uint8Array {
    const bytes = utf8Encode(message);
    let length = Math.min(bytes.length, this.#limits.reasonBytes);
    while (length > 0 && length < bytes.length && (bytes[length]! & 0xc0) === 0x80) length--;
    return bytes.subarray(0, length);
  }
}
