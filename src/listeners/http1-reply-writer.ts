/**
 * Writes one reply after the other to a visitor over HTTP/1.x, with the interim ones before it: chooses the framing,
 * pulls the body no faster than the visitor reads, and keeps the rule that a reply which did not end as its head
 * promised ends in a reset.
 */

import type { Duplex } from "../core/duplex.ts";
import { assert, SallyError, toSallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { Body } from "../http/body.ts";
import type { ReplyHead } from "../http/exchange.ts";
import { HeaderList, isNamed } from "../http/header-list.ts";
import { parseContentLength } from "../http/http1/field-list.ts";
import { encodeChunk, encodeLastChunk, encodeReplyHead } from "../http/http1/head-writer.ts";

export interface ReplyOwner {
  /** The whole reply was handed to the duplex. With `mustClose` its end is the end of the connection. */
  replyDone(mustClose: boolean): void;
  /** The reply cannot be completed. Once it has started the visitor must see a reset; before, another can be sent. */
  replyFailed(error: SallyError, hasStarted: boolean): void;
}

/** What the request says about the form of its reply. */
export interface ReplyTerms {
  readonly isHead: boolean;
  readonly minorVersion: 0 | 1;
  readonly keepAlive: boolean;
}

/** A first piece up to this size goes out in one write with the head. */
const joinBelowBytes = 16 * 1024;

const closeFields: readonly string[] = ["Connection", "close"];
const keepAliveFields: readonly string[] = ["Connection", "keep-alive"];
const upgradeFields: readonly string[] = ["Connection", "Upgrade"];
const noFields: readonly string[] = [];
const zero = new Uint8Array([0x30]);
const continueHead: ReplyHead = { status: 100, reason: "Continue", headers: new HeaderList() };

export class ReplyWriter {
  readonly #duplex: Duplex;
  readonly #owner: ReplyOwner;
  readonly #interimMaxBytes: number;
  #body: Body | undefined;
  #isChunked = false;
  /** Zeros that stand before the next chunk's size already. */
  #zeros = 0;
  #mustClose = false;
  #isBlocked = false;
  #interimBytes = 0;
  #isReading = false;
  /** Body bytes that the head still promises; -1 when it promises none. */
  #leftBytes = -1;
  /** The body's own length is what the head promises. */
  #isExact = false;
  #pendingHead: ReplyHead | undefined;
  #extra: readonly string[] = noFields;
  #onPiece: ((piece: Uint8Array | null) => void) | undefined;
  #onError: ((thrown: unknown) => void) | undefined;

  /** Of the current or last reply. */
  status = 0;
  /** Bytes of the current or last reply. */
  bytesOut = 0;
  /** Bytes given to the duplex so far. */
  writtenBytes = 0;

  constructor(duplex: Duplex, owner: ReplyOwner, { interimReplyBytes }: Pick<Limits, "interimReplyBytes">) {
    this.#duplex = duplex;
    this.#owner = owner;
    this.#interimMaxBytes = interimReplyBytes;
  }

  /** Bytes that the duplex has not handed on yet. */
  get queuedBytes(): number {
    return this.#duplex.queuedBytes;
  }

  /** Those, and what the system holds, as far as it tells. */
  get undeliveredBytes(): number {
    return this.#duplex.undeliveredBytes ?? this.#duplex.queuedBytes;
  }

  /** True while the duplex's queue is above its mark: `resume` follows. */
  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  /** True from `start` until the reply is done, failed or cancelled. */
  get isActive(): boolean {
    return this.#body !== undefined;
  }

  /** Begins a reply. Its owner hears of the end, perhaps before this returns. */
  start(head: ReplyHead, body: Body, terms: ReplyTerms): void {
    assert(this.#body === undefined && head.status >= 200, "one final reply at a time");
    this.status = head.status;
    this.bytesOut = 0;
    this.#zeros = 0;
    this.#interimBytes = 0;
    this.#body = body;
    try {
      this.#pendingHead = this.#frame(head, body, terms);
      if (this.#leftBytes === 0 && !this.#isChunked && !this.#mustPullEmpty(terms, head)) {
        body.cancel(new SallyError("CANCELLED", "The reply has no body."));
        this.#finish();
      } else this.#pump();
    } catch (thrown) {
      this.#fail(toSallyError(thrown));
    }
  }

  /** The duplex takes bytes again. */
  resume(): void {
    if (!this.#isBlocked) return;
    this.#isBlocked = false;
    if (this.#body !== undefined && !this.#isReading) this.#pumpSafely();
  }

  /**
   * Sends a byte that means nothing, where the framing knows one: a zero before the next chunk's size (RFC 9112 §7.1).
   * At most `zerosMax` of them stand before one chunk.
   */
  probe(zerosMax: number): void {
    if (!this.#isChunked || this.#pendingHead !== undefined || this.#isBlocked || this.#zeros >= zerosMax) return;
    this.#zeros++;
    this.#write(zero);
  }

  /** Sends a plain 100 Continue. */
  sendContinue(): void {
    this.#put(encodeReplyHead(continueHead));
  }

  /**
   * Sends an interim reply. Those are hints, so one that finds no room is left out: while the visitor does not keep up,
   * and beyond `interimReplyBytes` before one reply. If the visitor waits for it, a plain 100 Continue goes in its place.
   */
  inform(head: ReplyHead, isAwaited: boolean): void {
    const bytes = encodeReplyHead(withoutFields(head, isOfBody));
    const hasRoom = !this.#isBlocked && this.#interimBytes + bytes.length <= this.#interimMaxBytes;
    if (hasRoom) {
      this.#interimBytes += bytes.length;
      this.#put(bytes);
    } else if (isAwaited) this.sendContinue();
  }

  /** Sends the head of a switch of protocols; what follows is not ours to write. */
  switchProtocols(head: ReplyHead): void {
    this.status = head.status;
    this.bytesOut = 0;
    const extra = head.headers.has("connection") ? noFields : upgradeFields;
    this.#put(encodeReplyHead(withoutFields(head, isOfBody), extra));
  }

  /** The visitor is gone. */
  cancel(error: SallyError): void {
    const body = this.#body;
    this.#body = undefined;
    this.#pendingHead = undefined;
    body?.cancel(error);
  }

  /** Chooses the framing (RFC 9112 §6.3) and notes what `extra` fields the head needs. */
  #frame(head: ReplyHead, body: Body, { isHead, minorVersion, keepAlive }: ReplyTerms): ReplyHead {
    const { status } = head;
    const isBodiless = isHead || status === 204 || status === 304;
    const { promised, hasHopFields } = inspectFields(head.headers.raw, status);
    this.#isChunked = false;
    this.#mustClose = !keepAlive;
    this.#leftBytes = promised;
    let extra = connectionFields(head, keepAlive, minorVersion);
    if (isBodiless) this.#leftBytes = 0;
    else if (promised < 0 && body.length !== undefined) {
      this.#leftBytes = body.length;
      extra = [...extra, "Content-Length", String(body.length)];
    } else if (promised < 0 && minorVersion === 1) {
      this.#isChunked = true;
      extra = [...extra, "Transfer-Encoding", "chunked"];
    } else if (promised < 0) {
      this.#mustClose = true;
      extra = connectionFields(head, false, minorVersion);
    }
    this.#extra = extra;
    this.#isExact = this.#leftBytes === body.length;
    return hasHopFields ? withoutFields(head, status === 204 ? isFramingOrLength : isFraming) : head;
  }

  /** A body that must be empty but is not known to be: a longer one than promised has to show. */
  #mustPullEmpty({ isHead }: ReplyTerms, { status }: ReplyHead): boolean {
    return !isHead && status !== 204 && status !== 304 && this.#body?.length !== 0;
  }

  #pumpSafely(): void {
    try {
      this.#pump();
    } catch (thrown) {
      this.#fail(toSallyError(thrown));
    }
  }

  #pump(): void {
    while (this.#body !== undefined && !this.#isBlocked) {
      const piece = this.#body.read();
      if (piece instanceof Promise) {
        this.#flushHead(undefined);
        this.#await(piece);
        return;
      }
      if (piece === null) this.#end();
      else this.#send(piece);
    }
  }

  #await(piece: Promise<Uint8Array | null>): void {
    this.#onPiece ??= (value) => {
      this.#isReading = false;
      if (this.#body === undefined) return;
      try {
        if (value === null) this.#end();
        else this.#send(value);
        if (!this.#isBlocked) this.#pump();
      } catch (thrown) {
        this.#fail(toSallyError(thrown));
      }
    };
    this.#onError ??= (thrown) => {
      this.#isReading = false;
      this.#fail(toSallyError(thrown, "ORIGIN_RESET"));
    };
    this.#isReading = true;
    piece.then(this.#onPiece, this.#onError);
  }

  #send(piece: Uint8Array): void {
    if (piece.length === 0) return;
    if (this.#leftBytes >= 0) {
      this.#leftBytes -= piece.length;
      if (this.#leftBytes < 0) throw new SallyError("ORIGIN_BAD_REPLY", "The reply is longer than its Content-Length.");
    }
    const bytes = this.#isChunked ? encodeChunk(piece) : piece;
    this.#zeros = 0;
    const joins = this.#pendingHead !== undefined && bytes.length <= joinBelowBytes;
    this.#flushHead(joins ? bytes : undefined);
    if (!joins) this.#write(bytes);
    // The usual small reply is over now: no need to ask its body again.
    if (this.#leftBytes === 0 && this.#isExact) this.#finish();
  }

  #end(): void {
    if (this.#leftBytes > 0) throw new SallyError("ORIGIN_CLOSED", "The reply is shorter than its Content-Length.");
    if (this.#isChunked) {
      const last = encodeLastChunk(this.#body?.trailers);
      if (this.#pendingHead === undefined) this.#write(last);
      else this.#flushHead(last);
    }
    this.#finish();
  }

  #finish(): void {
    this.#flushHead(undefined);
    this.#body = undefined;
    this.#owner.replyDone(this.#mustClose);
  }

  #fail(error: SallyError): void {
    const body = this.#body;
    if (body === undefined) return;
    this.#body = undefined;
    this.#pendingHead = undefined;
    body.cancel(error);
    this.#owner.replyFailed(error, this.bytesOut > 0);
  }

  #flushHead(joined: Uint8Array | undefined): void {
    const head = this.#pendingHead;
    if (head === undefined) return;
    this.#pendingHead = undefined;
    this.#write(encodeReplyHead(head, this.#extra, joined));
  }

  #write(bytes: Uint8Array): void {
    this.bytesOut += bytes.length;
    this.#put(bytes);
  }

  #put(bytes: Uint8Array): void {
    this.writtenBytes += bytes.length;
    if (!this.#duplex.write(bytes)) this.#isBlocked = true;
  }
}

/** A 426 names protocols in Upgrade (RFC 9110 §15.5.22), and whoever sends Upgrade says so in Connection (§7.8). */
function connectionFields({ status, headers }: ReplyHead, keepAlive: boolean, minorVersion: 0 | 1): readonly string[] {
  if (status === 426 && headers.has("upgrade")) return ["Connection", keepAlive ? "upgrade" : "close, upgrade"];
  if (!keepAlive) return closeFields;
  return minorVersion === 0 ? keepAliveFields : noFields;
}

interface Inspected {
  /** Content-Length, or -1. */
  readonly promised: number;
  /** Fields that the listener writes itself are there and must go. */
  readonly hasHopFields: boolean;
}

/** One look at the fields that framing depends on. */
function inspectFields(raw: readonly string[], status: number): Inspected {
  let promised = -1;
  let hasHopFields = false;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!; // pairs
    if (name.length === 14 && isNamed(name, "content-length")) {
      const value = parseContentLength(raw[i + 1]!, (what) => new SallyError("ORIGIN_BAD_REPLY", `${what}.`)); // pairs
      if (promised >= 0) throw new SallyError("ORIGIN_BAD_REPLY", "The reply has several Content-Length fields.");
      promised = value;
      if (status === 204) hasHopFields = true;
    } else if (isFraming(name)) hasHopFields = true;
  }
  return { promised, hasHopFields };
}

function isFraming(name: string): boolean {
  switch (name.length) {
    case 10:
      return isNamed(name, "connection") || isNamed(name, "keep-alive");
    case 16:
      return isNamed(name, "proxy-connection");
    case 17:
      return isNamed(name, "transfer-encoding");
    default:
      return false;
  }
}

/** A 204 has no Content-Length (RFC 9110 §8.6). */
function isFramingOrLength(name: string): boolean {
  return isFraming(name) || isNamed(name, "content-length");
}

/** Replies below 200 have no body, and no field that announces one (RFC 9110 §8.6, RFC 9112 §6.1). */
function isOfBody(name: string): boolean {
  return isNamed(name, "content-length") || isNamed(name, "transfer-encoding");
}

function withoutFields(head: ReplyHead, isDropped: (name: string) => boolean): ReplyHead {
  const kept: string[] = [];
  for (const [name, value] of head.headers) if (!isDropped(name)) kept.push(name, value);
  return { status: head.status, reason: head.reason, headers: new HeaderList(kept) };
}
