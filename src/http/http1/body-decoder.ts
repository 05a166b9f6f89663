/**
 * Tells where a message body ends and what is in it: by length, chunked, or until the connection closes (RFC 9112 §6,
 * §7). Bytes are pushed in as they come and handed on as slices of what came in; bytes behind the end are left for the
 * next message. The chunked coding is read strictly: a size that two parsers could read differently is refused.
 */

import { type ErrorCode, SallyError } from "../../core/errors.ts";
import type { Limits } from "../../core/limits.ts";
import { HeaderList } from "../header-list.ts";
import { charClass, textBit } from "./char-class.ts";
import { cutFields } from "./field-list.ts";
import { HeadScanner } from "./head-scanner.ts";
import { withoutForbiddenTrailers } from "./trailer-fields.ts";

export interface BodySink {
  /** A piece of the body; the sink owns it. */
  onBody(piece: Uint8Array): void;
}

export interface BodyDecoder {
  /** Exact byte count if it is known beforehand. */
  readonly length: number | undefined;
  readonly isDone: boolean;
  /** Set when done, if the sender sent any. */
  readonly trailers: HeaderList | undefined;
  /** Takes bytes of `chunk` from index `from`; returns the index behind what belongs to the body. @throws SallyError */
  push(chunk: Uint8Array, from: number, sink: BodySink): number;
  /** The connection ended: true if that is a proper end of this body. */
  finish(): boolean;
}

/** A body of exactly `length` bytes. */
export class LengthDecoder implements BodyDecoder {
  readonly length: number;
  readonly trailers = undefined;
  #leftBytes: number;

  constructor(length: number) {
    this.length = length;
    this.#leftBytes = length;
  }

  get isDone(): boolean {
    return this.#leftBytes === 0;
  }

  push(chunk: Uint8Array, from: number, sink: BodySink): number {
    const bytes = Math.min(chunk.length - from, this.#leftBytes);
    if (bytes === 0) return from;
    this.#leftBytes -= bytes;
    sink.onBody(bytes === chunk.length ? chunk : chunk.subarray(from, from + bytes));
    return from + bytes;
  }

  finish(): boolean {
    return this.isDone;
  }
}

/** A reply body that ends with the connection. */
export class UntilCloseDecoder implements BodyDecoder {
  readonly length = undefined;
  readonly trailers = undefined;
  isDone = false;

  push(chunk: Uint8Array, from: number, sink: BodySink): number {
    if (chunk.length > from) sink.onBody(from === 0 ? chunk : chunk.subarray(from));
    return chunk.length;
  }

  finish(): boolean {
    this.isDone = true;
    return true;
  }
}

const CR = 13;
const LF = 10;
const SEMICOLON = 59;

const SIZE_FIRST = 0;
const SIZE = 1;
const EXTENSION = 2;
const SIZE_LF = 3;
const DATA = 4;
const DATA_CR = 5;
const DATA_LF = 6;
const TRAILER = 7;
const DONE = 8;

/** Pieces below this are gathered: a body in one-byte chunks must not cost an object a byte. */
const gatherBelowBytes = 1024;

type ChunkLimits = Pick<Limits, "trailerBytes" | "headFields" | "chunkExtensionBytes" | "chunkSizeDigits">;

export class ChunkedDecoder implements BodyDecoder {
  readonly length = undefined;
  trailers: HeaderList | undefined;
  readonly #limits: ChunkLimits;
  readonly #malformed: ErrorCode;
  readonly #tooLarge: ErrorCode;
  #state = SIZE_FIRST;
  /** The size while it is read, then what is left of the chunk. */
  #leftBytes = 0;
  #sizeDigits = 0;
  /** Extensions beyond what the data received so far pays for. */
  #extensionBytes = 0;
  #trailerScanner: HeadScanner | undefined;
  readonly #gather = new Gather();

  /** `malformed` is the code for a body that is not properly chunked: BAD_REQUEST or ORIGIN_BAD_REPLY. */
  constructor(limits: ChunkLimits, malformed: ErrorCode) {
    this.#limits = limits;
    this.#malformed = malformed;
    this.#tooLarge = malformed === "BAD_REQUEST" ? "HEADERS_TOO_LARGE" : malformed;
  }

  get isDone(): boolean {
    return this.#state === DONE;
  }

  push(chunk: Uint8Array, from: number, sink: BodySink): number {
    let i = from;
    while (i < chunk.length && this.#state !== DONE) {
      if (this.#state === DATA) i = this.#takeData(chunk, i, sink);
      else if (this.#state === TRAILER) i = this.#takeTrailer(chunk, i);
      else this.#takeByte(chunk[i++]!); // i is in range
    }
    this.#gather.flush(sink);
    return i;
  }

  finish(): boolean {
    return this.isDone;
  }

  #takeData(chunk: Uint8Array, from: number, sink: BodySink): number {
    const end = Math.min(chunk.length, from + this.#leftBytes);
    this.#leftBytes -= end - from;
    this.#extensionBytes = Math.max(0, this.#extensionBytes - (end - from));
    if (end - from < gatherBelowBytes) this.#gather.add(chunk, from, end);
    else {
      this.#gather.flush(sink);
      sink.onBody(chunk.subarray(from, end));
    }
    if (this.#leftBytes === 0) this.#state = DATA_CR;
    return end;
  }

  #takeTrailer(chunk: Uint8Array, from: number): number {
    const { trailerBytes: headBytes, headFields } = this.#limits;
    this.#trailerScanner ??= new HeadScanner(
      { lineBytes: headBytes, headBytes, headFields },
      { malformed: this.#malformed, line: this.#tooLarge, head: this.#tooLarge },
      true,
    );
    const end = this.#trailerScanner.push(chunk, from);
    if (end < 0) return chunk.length;
    const { text, fieldCount } = this.#trailerScanner;
    if (fieldCount > 0) this.trailers = new HeaderList(withoutForbiddenTrailers(cutFields(text, 0, fieldCount)));
    this.#state = DONE;
    return end;
  }

  #takeByte(byte: number): void {
    switch (this.#state) {
      case SIZE_FIRST:
      case SIZE:
        this.#takeSizeByte(byte);
        break;
      case EXTENSION:
        if (byte === CR) this.#state = SIZE_LF;
        else if ((charClass[byte]! & textBit) === 0) throw this.#refusal("a chunk extension holds a control character");
        else if (++this.#extensionBytes > this.#limits.chunkExtensionBytes) {
          throw new SallyError(this.#tooLarge, "The chunk extensions are too large.");
        }
        break;
      case SIZE_LF:
        if (byte !== LF) throw this.#refusal("a chunk size does not end with CR LF");
        this.#state = this.#leftBytes === 0 ? TRAILER : DATA;
        break;
      case DATA_CR:
        if (byte !== CR) throw this.#refusal("a chunk is longer than its size");
        this.#state = DATA_LF;
        break;
      default: // DATA_LF
        if (byte !== LF) throw this.#refusal("a chunk does not end with CR LF");
        this.#state = SIZE_FIRST;
    }
  }

  #takeSizeByte(byte: number): void {
    const digit = hexDigit(byte);
    if (digit >= 0) {
      this.#sizeDigits = this.#state === SIZE ? this.#sizeDigits + 1 : 1;
      this.#leftBytes = (this.#state === SIZE ? this.#leftBytes * 16 : 0) + digit;
      if (this.#sizeDigits > this.#limits.chunkSizeDigits || this.#leftBytes > Number.MAX_SAFE_INTEGER) {
        throw this.#refusal("a chunk size is too large");
      }
      this.#state = SIZE;
      return;
    }
    if (this.#state === SIZE_FIRST) throw this.#refusal("a chunk has no size");
    if (byte === CR) this.#state = SIZE_LF;
    else if (byte === SEMICOLON) this.#state = EXTENSION;
    else throw this.#refusal("a chunk size is not a plain hexadecimal number");
  }

  #refusal(what: string): SallyError {
    return new SallyError(this.#malformed, `The chunked body is malformed: ${what}.`);
  }
}

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

/** Joins small pieces of one incoming chunk; a single piece stays a slice. */
class Gather {
  #chunk: Uint8Array | undefined;
  #from = 0;
  #end = 0;
  #joined: Uint8Array | undefined;
  #joinedBytes = 0;

  add(chunk: Uint8Array, from: number, end: number): void {
    if (this.#chunk === undefined) {
      this.#chunk = chunk;
      this.#from = from;
      this.#end = end;
      return;
    }
    if (this.#joined === undefined) {
      this.#joined = new Uint8Array(chunk.length - this.#from);
      this.#append(chunk, this.#from, this.#end);
    }
    this.#append(chunk, from, end);
  }

  flush(sink: BodySink): void {
    if (this.#chunk === undefined) return;
    const piece = this.#joined?.subarray(0, this.#joinedBytes) ?? this.#chunk.subarray(this.#from, this.#end);
    this.#chunk = undefined;
    this.#joined = undefined;
    this.#joinedBytes = 0;
    if (piece.length > 0) sink.onBody(piece);
  }

  #append(chunk: Uint8Array, from: number, end: number): void {
    this.#joined!.set(chunk.subarray(from, end), this.#joinedBytes); // made by the caller
    this.#joinedBytes += end - from;
  }
}
