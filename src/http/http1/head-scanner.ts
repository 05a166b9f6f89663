/**
 * Finds where a head ends and checks every byte of it on the way, over chunks cut anywhere. It keeps the rule that a
 * line ends with CR LF and nothing else: a bare LF, a bare CR, a folded line, a control character, a space before a
 * colon or a name that is no token is refused at the byte where it stands, so a sender never waits for a time-out.
 */

import { concatBytes, emptyBytes } from "../../core/bytes.ts";
import { type ErrorCode, SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import { charClass, textBit, tokenBit } from "./char-class.ts";
import { decodeLatin1 } from "./latin1.ts";

export interface HeadLimits {
  readonly lineBytes: number;
  readonly headBytes: number;
  readonly headFields: number;
}

/** Codes for the troubles of a head, by who sent it. */
export interface HeadCodes {
  readonly malformed: ErrorCode;
  readonly line: ErrorCode;
  readonly head: ErrorCode;
}

const CR = 13;
const LF = 10;
const COLON = 58;

// States. Numbers instead of strings: this is the hottest loop of the program.
const BEFORE = 0;
const BEFORE_LF = 1;
const LINE = 2; // 3: after its CR
const FIELD = 4;
const NAME = 5;
const VALUE = 6; // 7: after its CR
const END_LF = 8;

export class HeadScanner {
  readonly #limits: HeadLimits;
  readonly #codes: HeadCodes;
  readonly #startState: number;
  #state: number;
  #emptyLines = 0;
  #held: Uint8Array | undefined;
  #heldBytes = 0;
  #seenBits = 0;

  /** Fields of the head that `push` completed. */
  fieldCount = 0;
  /** The head that `push` completed, latin1, up to and including its empty line. */
  text = "";

  /** With `isTrailer` there is no first line: fields and the empty line only. */
  constructor(limits: HeadLimits, codes: HeadCodes, isTrailer = false) {
    this.#limits = limits;
    this.#codes = codes;
    this.#startState = isTrailer ? FIELD : BEFORE;
    this.#state = this.#startState;
  }

  /** True from the first byte of a head on until the head is complete. Empty lines before it do not count. */
  get isStarted(): boolean {
    return this.#heldBytes > 0;
  }

  /** What came of a head that is not complete, with the bytes that made it be refused; nothing of it is checked. */
  textSoFar(refused: Uint8Array): string {
    const held = this.#held?.subarray(0, this.#heldBytes) ?? emptyBytes;
    return decodeLatin1(concatBytes([held, refused.subarray(0, this.#limits.headBytes)]), false);
  }

  /**
   * Takes bytes from `chunk`, starting at `from`. Returns the index behind the head when it is complete (then `text`
   * and `fieldCount` are set), or -1 when the whole chunk was taken and more is needed.
   * @throws SallyError with one of the codes
   */
  push(chunk: Uint8Array, from: number): number {
    let start = from;
    if (this.#state < LINE) {
      start = this.#skipEmptyLines(chunk, from);
      if (start === chunk.length) return -1;
    }
    const end = this.#scan(chunk, start);
    if (end >= 0) return end;
    this.#hold(chunk, start);
    return -1;
  }

  /** Leading empty lines are tolerated (RFC 9112 §2.2), but few. */
  #skipEmptyLines(chunk: Uint8Array, from: number): number {
    let i = from;
    for (; i < chunk.length; i++) {
      const byte = chunk[i]!; // i is in range
      if (this.#state === BEFORE_LF) {
        if (byte !== LF) throw this.#refusal(0, "a CR without LF before the first line");
        if (++this.#emptyLines > limits.leadingEmptyLines)
          throw this.#refusal(0, "too many empty lines before the head");
        this.#state = BEFORE;
      } else if (byte === CR) this.#state = BEFORE_LF;
      else {
        this.#state = LINE;
        break;
      }
    }
    return i;
  }

  // A state machine in one function: split up, its state would leave the registers.
  #scan(chunk: Uint8Array, from: number): number {
    const { length } = chunk;
    const offset = this.#heldBytes - from; // index in the chunk + offset = index in the head
    let state = this.#state;
    let seen = this.#seenBits;
    let i = from;
    while (i < length) {
      let byte = chunk[i]!; // i is in range here and below
      switch (state) {
        case LINE:
        case VALUE:
          while ((charClass[byte]! & textBit) !== 0) {
            seen |= byte;
            if (++i === length) break;
            byte = chunk[i]!;
          }
          if (i === length) break;
          if (state === LINE) this.#checkLine(i + offset);
          if (byte !== CR) throw this.#refusal(i + offset, describeByte(byte));
          state++;
          i++;
          break;
        case FIELD:
          if (byte === CR) {
            state = END_LF;
            i++;
            break;
          }
          if ((charClass[byte]! & tokenBit) === 0) throw this.#refusal(i + offset, describeFieldStart(byte));
          this.#countField();
          state = NAME;
          i++;
          break;
        case NAME:
          while ((charClass[byte]! & tokenBit) !== 0) {
            if (++i === length) break;
            byte = chunk[i]!;
          }
          if (i === length) break;
          if (byte !== COLON) throw this.#refusal(i + offset, "a field name is not a token directly before its colon");
          state = VALUE;
          i++;
          break;
        case END_LF:
          if (byte !== LF) throw this.#refusal(i + offset, "a CR without LF");
          this.#complete(chunk, from, i + 1, seen);
          return i + 1;
        default: // after the CR of a line
          if (byte !== LF) throw this.#refusal(i + offset, "a CR without LF");
          state = FIELD;
          i++;
      }
    }
    this.#state = state;
    this.#seenBits = seen;
    if (state === LINE) this.#checkLine(length + offset);
    if (length + offset >= this.#limits.headBytes) throw this.#tooLarge();
    return -1;
  }

  #complete(chunk: Uint8Array, from: number, end: number, seen: number): void {
    const bytes = this.#heldBytes + end - from;
    if (bytes > this.#limits.headBytes) throw this.#tooLarge();
    const isAscii = seen < 0x80;
    if (this.#held === undefined) {
      const isWhole = from === 0 && end === chunk.length;
      this.text = decodeLatin1(isWhole ? chunk : chunk.subarray(from, end), isAscii);
    } else {
      this.#hold(chunk.subarray(0, end), from);
      this.text = decodeLatin1(this.#held.subarray(0, this.#heldBytes), isAscii);
      this.#held = undefined;
      this.#heldBytes = 0;
    }
    this.#state = this.#startState;
    this.#emptyLines = 0;
    this.#seenBits = 0;
  }

  /** Copies instead of keeping the chunks: a head sent byte by byte must not cost an object a byte. */
  #hold(chunk: Uint8Array, from: number): void {
    const needed = this.#heldBytes + chunk.length - from;
    if (this.#held === undefined || this.#held.length < needed) {
      const grown = new Uint8Array(Math.max(needed, 2 * (this.#held?.length ?? 256)));
      if (this.#held !== undefined) grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    this.#held.set(chunk.subarray(from), this.#heldBytes);
    this.#heldBytes = needed;
  }

  #countField(): void {
    if (++this.fieldCount <= this.#limits.headFields) return;
    throw new SallyError(this.#codes.head, `The head has more than ${this.#limits.headFields} fields.`);
  }

  #checkLine(bytes: number): void {
    if (bytes <= this.#limits.lineBytes) return;
    throw new SallyError(this.#codes.line, `The first line is longer than ${this.#limits.lineBytes} bytes.`);
  }

  #tooLarge(): SallyError {
    return new SallyError(this.#codes.head, `The head is larger than ${this.#limits.headBytes} bytes.`);
  }

  /** The same answer however the bytes were cut: past the limit, the limit is what is wrong. */
  #refusal(at: number, what: string): SallyError {
    if (at >= this.#limits.headBytes) return this.#tooLarge();
    return new SallyError(this.#codes.malformed, `The head is malformed: ${what}.`);
  }
}

function describeByte(byte: number): string {
  return byte === LF ? "a line ends with LF instead of CR LF" : "a control character stands in a line";
}

function describeFieldStart(byte: number): string {
  if (byte === 32 || byte === 9) return "a line is folded";
  if (byte === COLON) return "a field has no name";
  return byte === LF ? "a line ends with LF instead of CR LF" : "a field name is not a token";
}
