/**
 * Frames: eight bytes of header, then the payload. The decoder takes any chunking, hands on DATA as views into the
 * chunk it came in, and never buffers more than one small frame; the writer packs frames into one shared buffer.
 */

import { SallyError } from "../core/errors.ts";

/** Frame types. A receiver skips a type it does not know when bit 7 is set, and ends the link otherwise. */
export const frameType = {
  open: 0x01,
  opened: 0x02,
  refused: 0x03,
  data: 0x04,
  credit: 0x05,
  fin: 0x06,
  reset: 0x07,
  ping: 0x08,
  pong: 0x09,
  goaway: 0x0a,
  control: 0x0b,
  controlAck: 0x0c,
  handshake: 0x0d,
  datagram: 0x81,
} as const;

export const skipIfUnknown = 0x80;
export const frameHeaderBytes = 8;
/** Sizes of the payloads that have one. */
export const creditBytes = 8;
export const finBytes = 8;
export const resetBytes = 10;
export const pingBytes = 8;
export const goawayBytes = 2;

const knownTypes = new Set<number>(Object.values(frameType));

export interface FrameSink {
  /**
   * Part of a DATA frame. `frameBytes` is the length of the whole payload with its first part and 0 with the others;
   * the view may be kept.
   */
  onData(streamId: number, part: Uint8Array, frameBytes: number): void;
  /** Any other known frame; `bytes[at .. at + length)` is its payload and must not be kept. */
  onFrame(frame: Frame): void;
}

/** One frame that is not DATA. The decoder reuses the object. */
export interface Frame {
  type: number;
  streamId: number;
  bytes: Uint8Array;
  at: number;
  length: number;
}

/** Turns chunks into frames. @throws SallyError FRAME_TOO_LARGE, PROTOCOL_VIOLATION from `push` */
export class FrameDecoder {
  /** Frames that are complete; a peer that dribbles bytes does not raise it. */
  frameCount = 0;
  /** Set to stop between frames, when the receiver of a frame closed the lane. */
  isStopped = false;
  readonly #sink: FrameSink;
  /** Frames above this end the link. */
  maxPayloadBytes: number;
  readonly #header = new Uint8Array(frameHeaderBytes);
  #headerFill = 0;
  #type = 0;
  #streamId = 0;
  /** Payload bytes still to come; the frame is over at zero. */
  #remaining = 0;
  #frameBytes = 0;
  #partial: Uint8Array | undefined;
  #partialFill = 0;
  readonly #frame: Frame = { type: 0, streamId: 0, bytes: this.#header, at: 0, length: 0 };

  constructor(sink: FrameSink, maxPayloadBytes: number) {
    this.#sink = sink;
    this.maxPayloadBytes = maxPayloadBytes;
  }

  /** Bytes held between chunks: at most one header or one payload that is not DATA. */
  get bufferedBytes(): number {
    return this.#headerFill + this.#partialFill;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    const end = chunk.length;
    while (at < end && !this.isStopped) {
      if (this.#remaining === 0) {
        if (this.#headerFill === 0 && end - at >= frameHeaderBytes) {
          this.#readHeader(chunk, at);
          at += frameHeaderBytes;
        } else {
          this.#header[this.#headerFill++] = chunk[at++]!; // at < end
          if (this.#headerFill < frameHeaderBytes) continue;
          this.#headerFill = 0;
          this.#readHeader(this.#header, 0);
        }
        if (this.#remaining > 0) continue;
        this.#emit(chunk, at, 0);
      } else {
        at += this.#readPayload(chunk, at, Math.min(this.#remaining, end - at));
      }
    }
  }

  #readHeader(bytes: Uint8Array, at: number): void {
    const type = bytes[at]!; // the caller checked that eight bytes are there
    const length = ((bytes[at + 1]! & 0x0f) << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
    if (length > this.maxPayloadBytes) throw new SallyError("FRAME_TOO_LARGE");
    if (type !== frameType.data && type < skipIfUnknown && !knownTypes.has(type)) {
      throw new SallyError("PROTOCOL_VIOLATION", `the frame type 0x${type.toString(16)} is unknown`);
    }
    if (type === frameType.data && length === 0) throw new SallyError("PROTOCOL_VIOLATION", "an empty DATA frame");
    this.#type = type;
    this.#streamId = readUint32(bytes, at + 4);
    this.#remaining = length;
    this.#frameBytes = length;
  }

  /** Takes `available` bytes of the current payload. */
  #readPayload(chunk: Uint8Array, at: number, available: number): number {
    const isWhole = available === this.#remaining;
    this.#remaining -= available;
    if (this.#type === frameType.data) {
      const frameBytes = this.#frameBytes;
      this.#frameBytes = 0;
      if (isWhole) this.frameCount++;
      this.#sink.onData(this.#streamId, chunk.subarray(at, at + available), frameBytes);
    } else if (!knownTypes.has(this.#type)) {
      if (isWhole) this.frameCount++;
    } else if (isWhole && this.#partial === undefined) {
      this.#emit(chunk, at, available);
    } else {
      this.#partial ??= new Uint8Array(this.#frameBytes);
      this.#partial.set(chunk.subarray(at, at + available), this.#partialFill);
      this.#partialFill += available;
      if (isWhole) {
        const whole = this.#partial;
        this.#partial = undefined;
        this.#partialFill = 0;
        this.#emit(whole, 0, whole.length);
      }
    }
    return available;
  }

  #emit(bytes: Uint8Array, at: number, length: number): void {
    this.frameCount++;
    if (!knownTypes.has(this.#type)) return;
    const frame = this.#frame;
    frame.type = this.#type;
    frame.streamId = this.#streamId;
    frame.bytes = bytes;
    frame.at = at;
    frame.length = length;
    this.#sink.onFrame(frame);
  }
}

const slabBytes = 64 * 1024;
/** A frame is not cut down to less than this to fit into the buffer. */
const fitMinBytes = 4 * 1024;

/** Hands on `slab[start..end)`. True: nobody needs these bytes any more, so the slab may be filled anew. */
export type SlabSink = (slab: Uint8Array, start: number, end: number) => boolean;

/** Packs frames into a shared buffer; whatever is full, or flushed, goes out as one chunk. */
export class FrameWriter {
  readonly #emit: SlabSink;
  readonly #headroomBytes: number;
  #slab = new Uint8Array(0);
  #start = 0;
  #end = 0;

  /** `headroomBytes` in front of each chunk are left free for the carrier's own framing. */
  constructor(emit: SlabSink, headroomBytes = 0) {
    this.#emit = emit;
    this.#headroomBytes = headroomBytes;
  }

  /** Bytes packed and not yet emitted. */
  get pendingBytes(): number {
    return this.#end - this.#start;
  }

  /** A header and room for its payload, which the caller fills with the put functions below. */
  begin(type: number, streamId: number, length: number): void {
    this.#reserve(frameHeaderBytes + length);
    this.#putHeader(type, streamId, length);
  }

  /** How much of a payload of `length` bytes a frame should take so that the buffer is filled, not left half empty. */
  fit(length: number): number {
    const room = this.#slab.length - this.#end - frameHeaderBytes;
    return room >= fitMinBytes && room < length ? room : Math.min(length, slabBytes - frameHeaderBytes);
  }

  putBytes(bytes: Uint8Array): void {
    this.#slab.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  putUint16(value: number): void {
    this.#slab[this.#end++] = value >>> 8;
    this.#slab[this.#end++] = value;
  }

  putUint32(value: number): void {
    writeUint32(this.#slab, this.#end, value);
    this.#end += 4;
  }

  putUint64(value: number): void {
    this.putUint32(Math.floor(value / 0x1_0000_0000));
    this.putUint32(value >>> 0);
  }

  // hot: bench/micro/wire.ts; a slab that is used again costs no zeroing, no page faults and no collection.
  flush(): void {
    const start = this.#start;
    const end = this.#end;
    if (end === start) return;
    this.#start = this.#end = end + this.#headroomBytes;
    const isFree = this.#emit(this.#slab, start, end);
    if (isFree && this.#end === this.#start) this.#start = this.#end = this.#headroomBytes;
  }

  #putHeader(type: number, streamId: number, length: number): void {
    const slab = this.#slab;
    const at = this.#end;
    slab[at] = type;
    slab[at + 1] = length >>> 16;
    slab[at + 2] = length >>> 8;
    slab[at + 3] = length;
    writeUint32(slab, at + 4, streamId);
    this.#end = at + frameHeaderBytes;
  }

  #reserve(byteCount: number): void {
    if (this.#slab.length - this.#end >= byteCount) return;
    this.flush();
    if (this.#slab.length - this.#end >= byteCount) return;
    this.#slab = new Uint8Array(Math.max(slabBytes, byteCount) + this.#headroomBytes);
    this.#start = this.#end = this.#headroomBytes;
  }
}

/** The payload of a frame that has at least `min` bytes: a view that must not be kept. */
export function payloadOf(frame: Frame, min: number): Uint8Array {
  if (frame.length < min) throw new SallyError("PROTOCOL_VIOLATION", "a frame is too short for its type");
  return frame.bytes.subarray(frame.at, frame.at + frame.length);
}

export function readUint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!; // the caller checked the length
}

export function readUint32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

/** Numbers above 2^53 lose precision, which no counter of ours reaches. */
export function readUint64(bytes: Uint8Array, at: number): number {
  return readUint32(bytes, at) * 0x1_0000_0000 + readUint32(bytes, at + 4);
}

function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
