/**
 * WebSocket frames (RFC 6455 §5): writing them, masks, and a reader that hands payloads on as they arrive instead of
 * collecting messages, since a lane is a byte pipe. The reader is strict: what the RFC forbids is a violation.
 */

import { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";

export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export const framePayloadMaxBytes = limits.websocketFrameBytes;
const controlMaxBytes = 125;
const longestHeadBytes = 14;

export interface Masks {
  /** The next key: four unpredictable bytes, as a little-endian number (§5.3). */
  next(): number;
}

/** Draws keys from the system's random source, many at a time. */
export function randomMasks(): Masks {
  const pool = new Int32Array(256);
  let used = pool.length;
  return {
    next() {
      if (used === pool.length) {
        crypto.getRandomValues(pool);
        used = 0;
      }
      return pool[used++]!; // below the pool's length
    },
  };
}

/** XORs `bytes[start..end)` with a key; `phase` is how many bytes of the payload came before. */
// hot: bench/micro/websocket-frames.ts, 6 to 8 times the bytewise loop.
export function maskInPlace(bytes: Uint8Array, { start, end }: Range, key: number, phase: number): void {
  let turned = turn(key, phase);
  let at = start;
  while (at < end && ((bytes.byteOffset + at) & 3) !== 0) {
    bytes[at]! ^= turned & 255;
    turned = turn(turned, 1);
    at++;
  }
  const words = (end - at) >> 2;
  if (words > 0) {
    const view = new Int32Array(bytes.buffer, bytes.byteOffset + at, words);
    for (let i = 0; i < words; i++) view[i]! ^= turned;
    at += words << 2;
  }
  for (; at < end; at++) {
    bytes[at]! ^= turned & 255;
    turned = turn(turned, 1);
  }
}

export interface Range {
  readonly start: number;
  readonly end: number;
}

/** The key as it applies `phase` bytes further on. */
function turn(key: number, phase: number): number {
  const bits = (phase & 3) << 3;
  return bits === 0 ? key : (key >>> bits) | (key << (32 - bits));
}

/** Room in front of a payload for the longest head of a frame of ours: payloads stay below 4 GiB, masked or not. */
export const frameHeadroomBytes = 16;

/** A whole frame with FIN set; masked when `masks` is given (client to server). Copies the payload. */
export function encodeFrame(code: number, payload: Uint8Array, masks: Masks | undefined): Uint8Array {
  // Not zeroed: every byte of it is written. The payload starts on a word, so that the mask runs over words.
  const buffer = new Uint8Array(Buffer.allocUnsafeSlow(frameHeadroomBytes + payload.length).buffer);
  buffer.set(payload, frameHeadroomBytes);
  return buffer.subarray(frameInPlace(code, { buffer, start: frameHeadroomBytes, end: buffer.length }, masks));
}

/** Makes a frame of a payload where it lies: writes its head in front of it, and masks it. Returns where the frame starts. */
// hot: npm run bench -- --only bulk; a copy and a buffer less for each frame.
export function frameInPlace(code: number, { buffer, start, end }: Payload, masks: Masks | undefined): number {
  const length = end - start;
  const lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const maskBytes = masks === undefined ? 0 : 4;
  const head = start - maskBytes - lengthBytes - 2;
  buffer[head] = 0x80 | code;
  buffer[head + 1] = (masks === undefined ? 0 : 0x80) | (lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127);
  for (let i = 0; i < lengthBytes; i++) buffer[start - maskBytes - 1 - i] = i < 4 ? length >>> (i << 3) : 0;
  if (masks === undefined) return head;
  const key = masks.next();
  for (let i = 0; i < 4; i++) buffer[start - 4 + i] = key >>> (i << 3);
  maskInPlace(buffer, { start, end }, key, 0);
  return head;
}

/** `buffer[start..end)`, with `frameHeadroomBytes` in front of it. */
export interface Payload extends Range {
  readonly buffer: Uint8Array;
}

export interface FrameEvents {
  /** A piece of binary payload, unmasked, in order. */
  onPayload(piece: Uint8Array): void;
  /** A whole ping, pong or close. False stops the reader. */
  onControl(code: number, payload: Uint8Array): boolean;
}

/** Reads the frames of one direction, from chunks cut anywhere. Unmasks in place: it owns the chunks. */
export class FrameReader {
  readonly #expectsMask: boolean;
  readonly #events: FrameEvents;
  readonly #head = new Uint8Array(longestHeadBytes);
  #headBytes = 0;
  #code = -1;
  #isFinal = true;
  #isInMessage = false;
  #key = 0;
  #left = 0;
  #phase = 0;
  readonly #control = new Uint8Array(controlMaxBytes);
  #isStopped = false;

  /** `expectsMask`: we are the server. */
  constructor(expectsMask: boolean, events: FrameEvents) {
    this.#expectsMask = expectsMask;
    this.#events = events;
  }

  /**
   * Returns how many bytes of the chunk were not handed on as payload: heads and control frames.
   * @throws SallyError PROTOCOL_VIOLATION, FRAME_TOO_LARGE
   */
  push(chunk: Uint8Array): number {
    let at = 0;
    let overhead = 0;
    while (at < chunk.length && !this.#isStopped) {
      if (this.#code < 0) {
        this.#head[this.#headBytes++] = chunk[at++]!; // in range
        overhead++;
        if (this.#headBytes >= 2 && this.#headBytes === this.#wantedHeadBytes()) this.#begin();
        continue;
      }
      const end = Math.min(chunk.length, at + this.#left);
      if (this.#expectsMask) maskInPlace(chunk, { start: at, end }, this.#key, this.#phase);
      overhead += this.#take(chunk.subarray(at, end));
      at = end;
    }
    return this.#isStopped ? overhead + (chunk.length - at) : overhead;
  }

  #wantedHeadBytes(): number {
    const second = this.#head[1]!; // fixed size
    if (this.#headBytes === 2) this.#check(this.#head[0]!, second);
    const length = second & 127;
    return 2 + (length === 126 ? 2 : length === 127 ? 8 : 0) + (this.#expectsMask ? 4 : 0);
  }

  #check(first: number, second: number): void {
    if ((first & 0x70) !== 0) throw violation("a reserved bit is set");
    if (second >= 128 !== this.#expectsMask) throw violation("a frame is not masked as its direction asks for");
    const code = first & 15;
    const isFinal = first >= 128;
    if (code === opcode.close || code === opcode.ping || code === opcode.pong) {
      if (!isFinal || (second & 127) > controlMaxBytes) throw violation("a control frame is too long or fragmented");
    } else if (code === opcode.binary || code === opcode.continuation) {
      if (this.#isInMessage === (code === opcode.binary)) throw violation("fragments are out of order");
    } else throw violation(code === opcode.text ? "text is not spoken here" : "an opcode is unknown");
  }

  /** The head is complete; a frame without payload is over at once. */
  #begin(): void {
    const head = this.#head;
    const view = new DataView(head.buffer);
    let length = head[1]! & 127; // fixed size
    let at = 2;
    if (length === 126) {
      length = view.getUint16(2);
      at = 4;
      if (length < 126) throw violation("a length is not in its shortest form");
    } else if (length === 127) {
      if (view.getUint32(2) !== 0) throw new SallyError("FRAME_TOO_LARGE");
      length = view.getUint32(6);
      at = 10;
      if (length < 65_536) throw violation("a length is not in its shortest form");
    }
    if (length > framePayloadMaxBytes) throw new SallyError("FRAME_TOO_LARGE");
    if (this.#expectsMask) this.#key = view.getInt32(at, true);
    this.#code = head[0]! & 15;
    this.#isFinal = head[0]! >= 128;
    this.#headBytes = 0;
    this.#left = length;
    this.#phase = 0;
    if (length === 0) this.#take(head.subarray(0, 0));
  }

  /** Returns how many bytes were kept from the payload's receiver. */
  #take(piece: Uint8Array): number {
    const code = this.#code;
    const { length } = piece;
    const isControl = code >= 8;
    if (isControl) this.#control.set(piece, this.#phase);
    this.#left -= length;
    this.#phase += length;
    const isOver = this.#left === 0;
    const payload = isControl && isOver ? this.#control.slice(0, this.#phase) : undefined;
    if (isOver) {
      if (!isControl) this.#isInMessage = !this.#isFinal;
      this.#code = -1;
    }
    if (payload !== undefined) this.#isStopped = !this.#events.onControl(code, payload);
    else if (!isControl && length > 0) this.#events.onPayload(piece);
    return isControl ? length : 0;
  }
}

function violation(what: string): SallyError {
  return new SallyError("PROTOCOL_VIOLATION", `the peer broke the WebSocket protocol: ${what}`);
}
