/**
 * Strict parser for the heads of HTTP/1.0 and HTTP/1.1 messages (RFC 9112), over chunks cut anywhere. It answers once
 * per head with everything the connection needs to go on; a head that two parsers could understand differently is
 * refused, never repaired.
 */

import { emptyBytes } from "../../core/bytes.ts";
import { SallyError } from "../../core/errors.ts";
import type { Limits } from "../../core/limits.ts";
import type { ReplyHead, RequestHead } from "../exchange.ts";
import { HeaderList } from "../header-list.ts";
import { isAll, targetBit, tokenBit } from "./char-class.ts";
import { cutFields, type Refuse, trimBlanks } from "./field-list.ts";
import { asksUpgrade, FramingFields, persists } from "./framing-fields.ts";
import { type HeadCodes, HeadScanner } from "./head-scanner.ts";
import { checkTarget, parseAuthority } from "./request-authority.ts";

/** A request head with what its framing says, so that nobody scans the fields again. */
export interface ParsedRequest extends RequestHead {
  readonly minorVersion: 0 | 1;
  /** Bytes of body; 0 without a body, undefined when chunked. */
  readonly bodyLength: number | undefined;
  readonly persists: boolean;
  readonly wantsUpgrade: boolean;
  /** Value of Expect; undefined without one and on HTTP/1.0, where it is ignored. */
  readonly expect: string | undefined;
  /** Host and optional port, lower case, checked; empty only on HTTP/1.0 without Host. */
  readonly authority: string;
  /** Names that Connection lists (lower case), for the removal of hop-by-hop fields. */
  readonly nominated: readonly string[];
}

/** A reply head with what its framing says; whether there is a body also depends on the request's method. */
export interface ParsedReply extends ReplyHead {
  readonly minorVersion: 0 | 1;
  /** Content-Length; undefined without one. */
  readonly contentLength: number | undefined;
  readonly isChunked: boolean;
  /** What Version and Connection say; a body that ends with the connection still ends it. */
  readonly persists: boolean;
  /** Connection: upgrade together with an Upgrade field. */
  readonly hasUpgrade: boolean;
  readonly nominated: readonly string[];
}

const requestCodes: HeadCodes = { malformed: "BAD_REQUEST", line: "TARGET_TOO_LONG", head: "HEADERS_TOO_LARGE" };
const replyCodes: HeadCodes = { malformed: "ORIGIN_BAD_REPLY", line: "ORIGIN_BAD_REPLY", head: "ORIGIN_BAD_REPLY" };

const refuseRequest: Refuse = (what) =>
  new SallyError("BAD_REQUEST", `The request is malformed or ambiguous: ${what}.`);
const refuseReply: Refuse = (what) =>
  new SallyError("ORIGIN_BAD_REPLY", `The local service sent something that is not HTTP: ${what}.`);

type RequestLimits = Pick<Limits, "requestLineBytes" | "headBytes" | "headFields">;
type ReplyLimits = Pick<Limits, "replyHeadBytes" | "headFields">;

export class RequestParser {
  readonly #scanner: HeadScanner;
  // A visitor's connection nearly always names one host: check it once.
  #lastHost: string | undefined;
  #lastAuthority = "";
  /** A complete head while it is parsed, and for good when that throws. */
  #refusedText: string | undefined;

  /** After a successful `push`: the index behind the head in that chunk. */
  end = 0;

  constructor(limits: RequestLimits) {
    const { requestLineBytes: lineBytes, headBytes, headFields } = limits;
    this.#scanner = new HeadScanner({ lineBytes, headBytes, headFields }, requestCodes);
  }

  /** True while a head has begun and is not complete. */
  get isStarted(): boolean {
    return this.#scanner.isStarted;
  }

  /**
   * Takes bytes of `chunk` from index `from`; undefined means that all were taken and more are needed. After a throw the
   * parser cannot be used again.
   * @throws SallyError BAD_REQUEST, TARGET_TOO_LONG, HEADERS_TOO_LARGE, VERSION_UNSUPPORTED, METHOD_REFUSED
   */
  push(chunk: Uint8Array, from: number): ParsedRequest | undefined {
    const scanner = this.#scanner;
    const end = scanner.push(chunk, from);
    if (end < 0) return undefined;
    this.end = end;
    const { text, fieldCount } = scanner;
    scanner.fieldCount = 0;
    scanner.text = "";
    this.#refusedText = text;
    const parsed = this.#parse(text, fieldCount);
    this.#refusedText = undefined;
    return parsed;
  }

  /**
   * The Accept field of a head that will not become a request, if it came that far: for the form of the refusal and
   * nothing else. `refused` are the bytes behind those that `push` took before it threw.
   */
  acceptOfRefused(refused: Uint8Array = emptyBytes): string | undefined {
    const text = this.#refusedText ?? this.#scanner.textSoFar(refused);
    const accept = /\r\naccept:([^\r\n]*)\r\n/i.exec(text)?.[1];
    return accept === undefined ? undefined : trimBlanks(accept);
  }

  #parse(text: string, fieldCount: number): ParsedRequest {
    const lineEnd = text.indexOf("\r");
    const methodEnd = text.indexOf(" ");
    if (methodEnd < 0 || methodEnd > lineEnd) throw refuseRequest("the request line has no target");
    const targetEnd = lineEnd - 9; // " HTTP/1.1"
    const minorVersion = parseVersion(text, targetEnd, refuseRequest);
    const method = text.slice(0, methodEnd);
    if (!isAll(method, tokenBit)) throw refuseRequest("the method is not a token");
    const target = text.slice(methodEnd + 1, targetEnd);
    if (!isAll(target, targetBit)) throw refuseRequest("the target is empty or holds a forbidden character");
    if (method === "CONNECT" || method === "TRACE") throw new SallyError("METHOD_REFUSED");

    const raw = cutFields(text, lineEnd + 2, fieldCount);
    const fields = FramingFields.of(raw, minorVersion, refuseRequest);
    return {
      method,
      target,
      minorVersion,
      headers: new HeaderList(raw),
      bodyLength: fields.isChunked ? undefined : Math.max(fields.contentLength, 0),
      persists: persists(fields, minorVersion),
      wantsUpgrade: minorVersion === 1 && asksUpgrade(fields),
      expect: minorVersion === 1 ? fields.expect : undefined,
      authority: this.#authority(fields.host, method, target, minorVersion),
      nominated: fields.nominated,
    };
  }

  #authority(host: string | undefined, method: string, target: string, minorVersion: 0 | 1): string {
    const targetAuthority = checkTarget(method, target, refuseRequest);
    if (host === undefined) {
      if (minorVersion === 1) throw refuseRequest("it has no Host field");
      return targetAuthority ?? "";
    }
    if (host !== this.#lastHost) {
      const authority = parseAuthority(host);
      if (authority === undefined) throw refuseRequest("its Host is not a host name with an optional port");
      this.#lastHost = host;
      this.#lastAuthority = authority;
    }
    if (targetAuthority !== undefined && targetAuthority !== this.#lastAuthority) {
      throw refuseRequest("its target and its Host name different hosts");
    }
    return this.#lastAuthority;
  }
}

export class ReplyParser {
  readonly #scanner: HeadScanner;
  /** Bytes of a head that is not complete that were found to be its usual start. */
  #startBytes = 0;

  /** After a successful `push`: the index behind the head in that chunk. */
  end = 0;

  constructor(limits: ReplyLimits) {
    const headBytes = limits.replyHeadBytes;
    this.#scanner = new HeadScanner({ lineBytes: headBytes, headBytes, headFields: limits.headFields }, replyCodes);
  }

  /** True while a head has begun and is not complete. */
  get isStarted(): boolean {
    return this.#scanner.isStarted;
  }

  /** As RequestParser.push; interim (1xx) heads come one by one like any other. @throws SallyError ORIGIN_BAD_REPLY */
  push(chunk: Uint8Array, from: number): ParsedReply | undefined {
    const scanner = this.#scanner;
    const end = scanner.push(chunk, from);
    if (end < 0) {
      this.#checkStart(chunk, from);
      return undefined;
    }
    this.end = end;
    this.#startBytes = 0;
    const { text, fieldCount } = scanner;
    scanner.fieldCount = 0;
    scanner.text = "";
    return parseReply(text, fieldCount);
  }

  /** Who does not speak HTTP may never complete a head: the first bytes tell. */
  #checkStart(chunk: Uint8Array, from: number): void {
    for (let at = from; at < chunk.length && this.#startBytes < replyStart.length; at++) {
      if (this.#startBytes === 0 && (chunk[at] === 13 || chunk[at] === 10)) continue; // empty lines: the scanner's
      if (chunk[at] !== replyStart.charCodeAt(this.#startBytes++)) throw refuseReply("it does not begin with HTTP/");
    }
  }
}

const replyStart = "HTTP/";

/** `HTTP/1.1 200 OK`. The space before an empty reason may be missing: common, and nobody reads it differently. */
function parseReply(text: string, fieldCount: number): ParsedReply {
  const lineEnd = text.indexOf("\r");
  const minorVersion = parseVersion(text, -1, refuseReply);
  const status = text.charCodeAt(8) === 32 ? parseStatus(text) : 0;
  if (status === 0 || lineEnd < 12) throw refuseReply("its status line has no status between 100 and 599");
  if (lineEnd > 12 && text.charCodeAt(12) !== 32) throw refuseReply("its status is longer than three digits");
  const raw = cutFields(text, lineEnd + 2, fieldCount);
  const fields = FramingFields.of(raw, minorVersion, refuseReply);
  return {
    status,
    reason: text.slice(13, Math.max(lineEnd, 13)),
    minorVersion,
    headers: new HeaderList(raw),
    contentLength: fields.contentLength < 0 ? undefined : fields.contentLength,
    isChunked: fields.isChunked,
    persists: persists(fields, minorVersion),
    hasUpgrade: asksUpgrade(fields),
    nominated: fields.nominated,
  };
}

function parseStatus(text: string): number {
  let status = 0;
  for (let i = 9; i < 12; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return 0;
    status = status * 10 + digit;
  }
  return status >= 100 && status <= 599 ? status : 0;
}

/** Reads `HTTP/1.x` behind the index `space`, which must hold a space (or be -1: start of the text). */
function parseVersion(text: string, space: number, refuse: Refuse): 0 | 1 {
  if (space >= 0 ? text.startsWith(" HTTP/", space) : space === -1 && text.startsWith("HTTP/")) {
    const at = space + 6;
    const major = text.charCodeAt(at) - 48;
    const minor = text.charCodeAt(at + 2) - 48;
    if (major >= 0 && major <= 9 && minor >= 0 && minor <= 9 && text.charCodeAt(at + 1) === 46) {
      if (major === 1 && minor <= 1) return minor === 0 ? 0 : 1;
      throw refuse === refuseRequest ? new SallyError("VERSION_UNSUPPORTED") : refuse("it is neither HTTP/1.0 nor 1.1");
    }
  }
  throw refuse("the first line has no HTTP version");
}
