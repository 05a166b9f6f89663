/**
 * Reads one reply after another from the bytes of a stream: interim heads, the final head, the body, and where it ends
 * (RFC 9112 §6.3). Bytes are reported as consumed when they are done with: those of heads and framing at once, those of
 * the body when its reader took them.
 */

import { SallyError } from "../../core/errors.ts";
import type { Limits } from "../../core/limits.ts";
import { bytesBody, emptyBody, type Body } from "../../http/body.ts";
import {
  type BodyDecoder,
  type BodySink,
  ChunkedDecoder,
  LengthDecoder,
  UntilCloseDecoder,
} from "../../http/http1/body-decoder.ts";
import { type BodyOwner, BodyQueue } from "../../http/http1/body-queue.ts";
import { type ParsedReply, ReplyParser } from "../../http/http1/head-parser.ts";

export interface ReplyEvents {
  /** So many bytes of those pushed are done with. */
  consumed(byteCount: number): void;
  /** False stops the reading: nobody listens any more. */
  interim(head: ParsedReply): boolean;
  /** 101: what follows is `rest`, unread, and is no HTTP. */
  switched(head: ParsedReply, rest: Uint8Array): void;
  final(head: ParsedReply, body: Body): void;
  /** The reply is complete. */
  finished(): void;
  /** Whoever reads the body lost interest before its end. */
  cancelled(error: SallyError): void;
}

export class ReplyReader implements BodyOwner, BodySink {
  readonly #limits: Limits;
  readonly #events: ReplyEvents;
  readonly #parser: ReplyParser;
  #isHeadRequest = false;
  #interimCount = 0;
  #decoder: BodyDecoder | undefined;
  #queue: BodyQueue | undefined;
  #pieceBytes = 0;
  /** Body bytes that arrived and were not read. */
  unreadBytes = 0;
  /** Any byte of this reply is here. */
  hasBytes = false;
  isDone = false;
  /** Bytes came behind the end of the reply. */
  hasStrayBytes = false;
  /** The body ends with the connection. */
  isUntilClose = false;

  constructor(limits: Limits, events: ReplyEvents) {
    this.#limits = limits;
    this.#events = events;
    this.#parser = new ReplyParser(limits);
  }

  /** Expects the next reply. */
  start(isHeadRequest: boolean): void {
    this.#isHeadRequest = isHeadRequest;
    this.#interimCount = 0;
    this.#decoder = undefined;
    this.#queue = undefined;
    this.unreadBytes = 0;
    this.hasBytes = this.isDone = this.isUntilClose = false;
  }

  /** Takes what arrived. @throws SallyError ORIGIN_BAD_REPLY */
  push(chunk: Uint8Array): void {
    this.hasBytes = true;
    if (this.#decoder === undefined) this.#readHeads(chunk);
    else this.#readBody(this.#decoder, chunk, 0);
  }

  /** The connection ended cleanly: true if the reply is complete with it. */
  end(): boolean {
    if (this.isDone) return true;
    if (this.#decoder?.finish() !== true) return false;
    this.#finish();
    return true;
  }

  /** The rest of the body will not come. */
  fail(error: SallyError): void {
    this.#queue?.fail(error);
  }

  bodyWanted(): void {}

  bodyConsumed(byteCount: number): void {
    this.unreadBytes -= byteCount;
    this.#events.consumed(byteCount);
  }

  bodyCancelled(error: SallyError): void {
    this.#events.cancelled(error);
  }

  onBody(piece: Uint8Array): void {
    const queue = this.#queue!; // a decoder never runs without its queue
    this.#pieceBytes += piece.length;
    this.unreadBytes += piece.length;
    queue.onBody(piece);
  }

  #readHeads(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      const head = this.#parser.push(chunk, at);
      if (head === undefined) return this.#events.consumed(chunk.length - at);
      const { end } = this.#parser;
      this.#events.consumed(end - at);
      at = end;
      if (head.status === 101) return this.#events.switched(head, chunk.subarray(at));
      if (head.status >= 200) return this.#readFinal(head, chunk, at);
      if (++this.#interimCount > this.#limits.interimReplies) {
        throw new SallyError("ORIGIN_BAD_REPLY", "The local service sent too many interim replies.");
      }
      if (!this.#events.interim(head)) return;
    }
  }

  #readFinal(head: ParsedReply, chunk: Uint8Array, at: number): void {
    const hasBody = !this.#isHeadRequest && head.status !== 204 && head.status !== 304;
    const length = hasBody ? head.contentLength : 0;
    const bodyBytes = chunk.length - at;
    if (hasBody && head.isChunked) this.#decoder = new ChunkedDecoder(this.#limits, "ORIGIN_BAD_REPLY");
    else if (length === undefined) {
      this.isUntilClose = true;
      this.#decoder = new UntilCloseDecoder();
    } else if (length > bodyBytes) this.#decoder = new LengthDecoder(length);
    else return this.#readWhole(head, chunk, at, length);

    this.#queue = new BodyQueue(this.#decoder.length, this);
    this.#events.final(head, this.#queue);
    this.#readBody(this.#decoder, chunk, at);
  }

  // hot: the whole reply is here, so its body answers at once and the stream is free before the visitor has it.
  #readWhole(head: ParsedReply, chunk: Uint8Array, at: number, length: number): void {
    this.hasStrayBytes ||= chunk.length > at + length;
    if (chunk.length > at) this.#events.consumed(chunk.length - at);
    this.#events.final(head, length === 0 ? emptyBody : bytesBody(chunk.subarray(at, at + length)));
    this.#finish();
  }

  #readBody(decoder: BodyDecoder, chunk: Uint8Array, at: number): void {
    if (at === chunk.length) return;
    this.#pieceBytes = 0;
    const end = decoder.push(chunk, at, this);
    const framingBytes = chunk.length - at - this.#pieceBytes;
    if (framingBytes > 0) this.#events.consumed(framingBytes);
    this.hasStrayBytes ||= end < chunk.length;
    if (decoder.isDone) this.#finish();
  }

  #finish(): void {
    this.isDone = true;
    this.#queue?.finish(this.#decoder?.trailers);
    this.#events.finished();
  }
}
