/**
 * Moves a request's body from the visitor to the origin: pulled only as fast as the stream takes it, framed as the
 * head says, and kept from the first byte up to a bound so that it can be sent again on another stream while nothing of
 * it was seen. Requests without a body do not need one.
 */

import { SallyError, toSallyError } from "../../core/errors.ts";
import type { Limits } from "../../core/limits.ts";
import type { Body } from "../../http/body.ts";
import { HeaderList } from "../../http/header-list.ts";
import { encodeChunk, encodeLastChunk, encodeRequestHead } from "../../http/http1/head-writer.ts";
import { withoutForbiddenTrailers } from "../../http/http1/trailer-fields.ts";
import type { OriginHead } from "./request-head.ts";

/** Where the bytes go: a dialled stream. */
export interface RequestSink {
  write(bytes: Uint8Array): boolean;
}

/** Who is told. */
export interface SenderOwner {
  /** A piece went out. */
  bodyMoved(): void;
  /** Everything went out. */
  bodySent(): void;
  /** The visitor broke off, or its body is not what its head announced. */
  bodyFailed(error: SallyError): void;
  /** More than the early-reply bound would have to be drained: stopped. */
  bodyCut(): void;
}

export type SenderLimits = Pick<Limits, "replayBodyBytes" | "replayBodyPieces" | "drainedEarlyReplyBytes">;

/** Above this a piece is written by itself instead of being copied behind its head or chunk size. */
const copyBelowBytes = 16 * 1024;
/** A kept piece this much smaller than its buffer is copied, or it would keep the whole buffer alive. */
const pinFactor = 2;

export class RequestSender {
  readonly #head: OriginHead;
  readonly #body: Body;
  readonly #limits: SenderLimits;
  readonly #owner: SenderOwner;
  /** What went out so far, for a replay; undefined once that is no longer possible. */
  #kept: Uint8Array[] | undefined = [];
  #readBytes = 0;
  #sink: RequestSink | undefined;
  #isHeld: boolean;
  #isReading = false;
  #isBlocked = false;
  #isFinished = false;
  #drainLeftBytes = Infinity;

  constructor(head: OriginHead, body: Body, limits: SenderLimits, owner: SenderOwner) {
    this.#head = head;
    this.#body = body;
    this.#limits = limits;
    this.#owner = owner;
    this.#isHeld = head.expectsContinue;
  }

  /** True while the body waits for 100 Continue. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** Whether another stream can get the request from its start. */
  get canReplay(): boolean {
    return this.#kept !== undefined;
  }

  /** Sends from the start on `sink`; again after `detach`, while `canReplay`. */
  attach(sink: RequestSink): void {
    this.#sink = sink;
    this.#isBlocked = false;
    const kept = this.#kept;
    if (kept !== undefined && kept.length > 0) {
      for (const bytes of kept) this.#isBlocked = !sink.write(bytes);
      if (this.#isFinished) this.#owner.bodySent();
      else this.resume();
    } else this.#begin();
  }

  /** The stream is gone. The body is not pulled any more, unless the rest is drained. */
  detach(): void {
    this.#sink = undefined;
  }

  /** A reply began: the request was seen, so it is never sent again. */
  forget(): void {
    this.#kept = undefined;
  }

  /** The origin sent 100 Continue, or took too long to. */
  proceed(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#pump();
  }

  /** The stream takes bytes again. */
  resume(): void {
    this.#isBlocked = false;
    this.#pump();
  }

  /** The reply is complete: little of the rest is still read, written if there is a stream, else dropped. */
  drain(): void {
    if (this.#isFinished || this.#drainLeftBytes !== Infinity) return;
    if (this.#isHeld) return this.cut();
    this.#drainLeftBytes = this.#limits.drainedEarlyReplyBytes;
    if (this.#sink === undefined) this.#isBlocked = false;
    this.#pump();
  }

  /** Stops reading and tells the visitor's side. */
  cut(): void {
    if (this.#isFinished) return;
    this.stop(new SallyError("CANCELLED", "The reply is complete; the rest of the request is not wanted."));
    this.#owner.bodyCut();
  }

  stop(error: SallyError): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.#kept = undefined;
    this.#sink = undefined;
    this.#body.cancel(error);
  }

  // hot: head and small body go out in one write.
  #begin(): void {
    const { length } = this.#body;
    const first = this.#isHeld ? undefined : this.#body.read();
    const isPiece = first instanceof Uint8Array;
    if (isPiece && length !== undefined && first.length <= copyBelowBytes && first.length <= length) {
      this.#readBytes = first.length;
      this.#send(encodeRequestHead(this.#head, first));
      this.#owner.bodyMoved();
      if (first.length === length) this.#finish();
      else this.#pump();
      return;
    }
    this.#send(encodeRequestHead(this.#head));
    if (first === undefined) return;
    if (first instanceof Promise) this.#await(first);
    else if (this.#take(first)) this.#pump();
  }

  #pump(): void {
    if (this.#isReading || this.#isHeld) return;
    try {
      while (!this.#isFinished && !this.#isBlocked && !this.#isIdle()) {
        const piece = this.#body.read();
        if (piece instanceof Promise) return this.#await(piece);
        if (!this.#take(piece)) return;
      }
    } catch (thrown) {
      this.#break(thrown);
    }
  }

  /** Nobody wants the body now: between two streams, or after the last one failed. */
  #isIdle(): boolean {
    return this.#sink === undefined && this.#drainLeftBytes === Infinity;
  }

  #await(reading: Promise<Uint8Array | null>): void {
    this.#isReading = true;
    reading.then(
      (piece) => this.#resumeWith(piece),
      (error: unknown) => {
        this.#isReading = false;
        this.#fail(toSallyError(error));
      },
    );
  }

  #resumeWith(piece: Uint8Array | null): void {
    this.#isReading = false;
    if (this.#isFinished) return;
    try {
      if (this.#take(piece)) this.#pump();
    } catch (thrown) {
      this.#break(thrown);
    }
  }

  /** What cannot be written (a trailer that is no field line) ends this request, nothing else. */
  #break(thrown: unknown): void {
    const error = toSallyError(thrown);
    this.#body.cancel(error);
    this.#fail(error);
  }

  #fail(error: SallyError): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.#kept = undefined;
    this.#sink = undefined;
    this.#owner.bodyFailed(error);
  }

  /** Passes one piece on; false when that was the last. */
  #take(piece: Uint8Array | null): boolean {
    const { length } = this.#body;
    if (piece === null) {
      if (length === undefined) this.#sendLastChunk();
      else if (this.#readBytes !== length) this.#fail(mismatch());
      else this.#finish();
      return false;
    }
    this.#readBytes += piece.length;
    // Never one byte more than announced: the origin would take it for another request.
    if (length !== undefined && this.#readBytes > length) {
      this.#body.cancel(mismatch());
      this.#fail(mismatch());
      return false;
    }
    if (this.#readBytes > this.#limits.replayBodyBytes) this.#kept = undefined;
    this.#drainLeftBytes -= piece.length;
    if (this.#drainLeftBytes < 0) {
      this.cut();
      return false;
    }
    if (piece.length > 0) this.#sendPiece(piece, length === undefined);
    this.#owner.bodyMoved();
    if (this.#readBytes !== length) return !this.#isFinished;
    this.#finish();
    return false;
  }

  #sendPiece(piece: Uint8Array, isChunked: boolean): void {
    if (isChunked && piece.length <= copyBelowBytes) return this.#send(encodeChunk(piece));
    // Only what came from outside is looked at: asking for a buffer makes JavaScriptCore create one.
    const isPinning = this.#kept !== undefined && piece.buffer.byteLength > pinFactor * piece.length;
    if (isChunked) this.#send(chunkStart(piece.length));
    this.#send(isPinning ? piece.slice() : piece);
    if (isChunked) this.#send(chunkEnd);
  }

  #sendLastChunk(): void {
    const { trailers } = this.#body;
    const kept = trailers === undefined ? undefined : new HeaderList(withoutForbiddenTrailers(trailers.raw));
    this.#send(encodeLastChunk(kept));
    this.#finish();
  }

  #send(bytes: Uint8Array): void {
    if (this.#kept !== undefined && this.#kept.length === this.#limits.replayBodyPieces) this.#kept = undefined;
    this.#kept?.push(bytes);
    if (this.#sink?.write(bytes) === false) this.#isBlocked = true;
  }

  #finish(): void {
    this.#isFinished = true;
    this.#owner.bodySent();
  }
}

const chunkEnd = new Uint8Array([13, 10]);

function chunkStart(length: number): Uint8Array {
  return new TextEncoder().encode(`${length.toString(16)}\r\n`);
}

function mismatch(): SallyError {
  return new SallyError("BAD_REQUEST", "The request body is not as long as its head says.");
}
