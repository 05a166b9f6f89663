/**
 * Reads DER (X.690), strictly: definite and minimal lengths only, one-byte tags, nothing outside the parent. It exists
 * so that checking a certificate needs no certificate library: that import costs an agent 80 ms at every start.
 */

import { SallyError } from "../core/errors.ts";

export const derTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
} as const;

/** One element: where it lies in the bytes it was read from. */
export interface DerElement {
  readonly tag: number;
  /** The whole element, header included. */
  readonly bytes: Uint8Array;
  readonly content: Uint8Array;
}

function malformed(what: string): SallyError {
  return new SallyError("CERTIFICATE_INVALID", `The certificate is malformed: ${what}.`);
}

/** Walks over the elements of one constructed value. */
export class DerReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** The tag of the next element; undefined at the end. */
  peekTag(): number | undefined {
    return this.#bytes[this.#at];
  }

  /** The next element, whatever it is. @throws SallyError CERTIFICATE_INVALID */
  next(): DerElement {
    const bytes = this.#bytes;
    const start = this.#at;
    const tag = bytes[start];
    const first = bytes[start + 1];
    if (tag === undefined || first === undefined) throw malformed("it ends too early");
    if ((tag & 0x1f) === 0x1f) throw malformed("it has a long tag");
    let length = first;
    let contentStart = start + 2;
    if (first >= 0x80) {
      const lengthBytes = first & 0x7f;
      if (lengthBytes === 0 || lengthBytes > 3) throw malformed("it has an odd length");
      length = 0;
      for (let i = 0; i < lengthBytes; i++) length = length * 256 + (bytes[contentStart + i] ?? 0);
      if (length < 0x80 || length < 256 ** (lengthBytes - 1)) throw malformed("a length is not minimal");
      contentStart += lengthBytes;
    }
    const end = contentStart + length;
    if (end > bytes.length) throw malformed("it ends too early");
    this.#at = end;
    return { tag, bytes: bytes.subarray(start, end), content: bytes.subarray(contentStart, end) };
  }

  /** The next element, which must have this tag. @throws SallyError CERTIFICATE_INVALID */
  expect(tag: number): DerElement {
    const element = this.next();
    if (element.tag !== tag) throw malformed(`tag ${element.tag} where ${tag} belongs`);
    return element;
  }

  /** The next element if it has this tag. */
  take(tag: number): DerElement | undefined {
    return this.peekTag() === tag ? this.next() : undefined;
  }

  /** @throws SallyError CERTIFICATE_INVALID when elements are left */
  finish(): void {
    if (!this.isAtEnd) throw malformed("it has trailing bytes");
  }
}

/** The one element that fills the bytes. @throws SallyError CERTIFICATE_INVALID */
export function readOnly(bytes: Uint8Array, tag: number): DerElement {
  const reader = new DerReader(bytes);
  const element = reader.expect(tag);
  reader.finish();
  return element;
}

/** Dotted text of an object identifier's content. */
export function oidText(content: Uint8Array): string {
  const parts: number[] = [];
  let value = 0;
  for (const byte of content) {
    value = value * 128 + (byte & 0x7f);
    if (value > Number.MAX_SAFE_INTEGER / 128) throw malformed("an identifier is too large");
    if ((byte & 0x80) !== 0) continue;
    if (parts.length === 0) {
      const root = Math.min(2, Math.floor(value / 40));
      parts.push(root, value - root * 40);
    } else parts.push(value);
    value = 0;
  }
  return parts.join(".");
}

/** Wall-clock milliseconds of a UTCTime or GeneralizedTime (RFC 5280 §4.1.2.5: with seconds, in UTC). */
export function timeMs(element: DerElement): number {
  const text = new TextDecoder("latin1").decode(element.content);
  const isShort = element.tag === derTag.utcTime;
  if (!isShort && element.tag !== derTag.generalizedTime) throw malformed("a time has the wrong type");
  const match = (
    isShort ? /^(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/ : /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/
  ).exec(text);
  if (match === null) throw malformed("a time is not in UTC with seconds");
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match.slice(1).map(Number);
  const century = isShort ? (year >= 50 ? 1900 : 2000) : 0;
  return Date.UTC(century + year, month - 1, day, hour, minute, second);
}

/** ECDSA: SEQUENCE { r, s } as X.509 has it, to the 64 bytes r ‖ s that WebCrypto wants. */
export function signatureFromDer(der: Uint8Array): Uint8Array {
  const reader = new DerReader(readOnly(der, derTag.sequence).content);
  const raw = new Uint8Array(64);
  for (const end of [32, 64]) {
    const content = reader.expect(derTag.integer).content;
    const digits = content[0] === 0 ? content.subarray(1) : content;
    if (digits.length === 0 || digits.length > 32) throw malformed("the signature has the wrong size");
    raw.set(digits, end - digits.length);
  }
  reader.finish();
  return raw;
}
