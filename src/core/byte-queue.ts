/**
 * Bytes that wait, in order. What it costs is proportional to the bytes it holds, whatever pieces they come in: small
 * pieces are copied together into blocks, and a piece that is a small part of a large buffer is copied out of it, since
 * it would keep all of that buffer alive. Large pieces are kept as they are.
 */

import { concatBytes, emptyBytes } from "./bytes.ts";

/** Pieces below this are copied into blocks. */
const smallBytes = 4 * 1024;
const blockMinBytes = 256;
const blockMaxBytes = 16 * 1024;
/** A large piece is copied when its buffer is more than this many times as long. */
const pinFactor = 4;

export class ByteQueue {
  /** Bytes that wait. */
  length = 0;
  #pieces: Uint8Array[] = [];
  #head = 0;
  /** The block behind `pieces` that small pieces are copied into; `start` to `end` of it waits. */
  #block: Uint8Array = emptyBytes;
  #start = 0;
  #end = 0;

  /** Adds a piece, which must not be changed afterwards. */
  push(piece: Uint8Array): void {
    const { length } = piece;
    if (length === 0) return;
    if (length < smallBytes) this.#copy(piece);
    else {
      this.#seal();
      this.#pieces.push(piece.buffer.byteLength > pinFactor * length ? piece.slice() : piece);
    }
    this.length += length;
  }

  /** Puts a piece in front of everything: the rest of one that was taken. */
  unshift(piece: Uint8Array): void {
    if (piece.length === 0) return;
    if (this.#head > 0) this.#pieces[--this.#head] = piece;
    else this.#pieces.unshift(piece);
    this.length += piece.length;
  }

  /** Length of what `shift` returns at most; 0 when nothing waits. */
  get firstBytes(): number {
    const first = this.#pieces[this.#head];
    return first === undefined ? this.#end - this.#start : first.length;
  }

  /** The first bytes, without taking them; pieces up to `joinBytes` together are joined to one. Call while bytes wait. */
  peek(joinBytes = 0): Uint8Array {
    const pieces = this.#pieces;
    const head = this.#head;
    const first = pieces[head];
    if (first === undefined) return this.#block.subarray(this.#start, this.#end);
    let end = head + 1;
    let total = first.length;
    while (end < pieces.length && total + pieces[end]!.length <= joinBytes) total += pieces[end++]!.length; // in range
    if (end === head + 1) return first;
    const joined = concatBytes(pieces.slice(head, end));
    pieces.splice(0, end, joined);
    this.#head = 0;
    return joined;
  }

  /** Forgets the first `byteCount` bytes: at most those that `peek` returned last. */
  drop(byteCount: number): void {
    this.length -= byteCount;
    const first = this.#pieces[this.#head];
    if (first === undefined) {
      this.#start += byteCount;
      if (this.#start === this.#end) this.#block = this.#dropped();
    } else if (byteCount < first.length) this.#pieces[this.#head] = first.subarray(byteCount);
    else this.#dropPiece();
  }

  /** Takes the first bytes: those of one piece or block, and at most `max`. Call while bytes wait. */
  shift(max = Infinity): Uint8Array {
    const first = this.peek();
    const taken = first.length <= max ? first : first.subarray(0, max);
    this.drop(taken.length);
    return taken;
  }

  /** Takes everything, as one piece. */
  shiftAll(): Uint8Array {
    const parts: Uint8Array[] = [];
    while (this.length > 0) parts.push(this.shift());
    return concatBytes(parts);
  }

  clear(): void {
    this.length = 0;
    this.#pieces = [];
    this.#head = 0;
    this.#block = this.#dropped();
  }

  #dropped(): Uint8Array {
    this.#start = 0;
    this.#end = 0;
    return emptyBytes;
  }

  #dropPiece(): void {
    const pieces = this.#pieces;
    pieces[this.#head++] = emptyBytes; // so that it can be collected
    if (this.#head === pieces.length) {
      pieces.length = 0;
      this.#head = 0;
    } else if (this.#head > 64 && this.#head * 2 > pieces.length) {
      pieces.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** Blocks grow with what waits, so that a few bytes do not cost a large one. */
  #copy(piece: Uint8Array): void {
    if (this.#block.length - this.#end < piece.length) {
      this.#seal();
      this.#block = new Uint8Array(Math.max(piece.length, blockMinBytes, Math.min(this.length, blockMaxBytes)));
    }
    this.#block.set(piece, this.#end);
    this.#end += piece.length;
  }

  /** Nothing more goes into the block; one that is mostly empty is not kept. */
  #seal(): void {
    if (this.#end > this.#start) {
      const used = this.#block.subarray(this.#start, this.#end);
      this.#pieces.push(used.length * 2 < this.#block.length ? used.slice() : used);
    }
    this.#block = this.#dropped();
  }
}
