/**
 * The reading half of a visitor's connection: cuts incoming bytes into heads and bodies, one request at a time, and
 * keeps what lies behind the current request untouched until it is asked for. It keeps the rule that a byte counts as
 * consumed only when it has been parsed, read by the body's reader, or deliberately dropped.
 */

import { ByteQueue } from "../core/byte-queue.ts";
import { emptyBytes } from "../core/bytes.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import { type BodyDecoder, ChunkedDecoder, LengthDecoder } from "../http/http1/body-decoder.ts";
import { type BodyOwner, BodyQueue } from "../http/http1/body-queue.ts";
import { type ParsedRequest, RequestParser } from "../http/http1/head-parser.ts";

export interface IntakeOwner {
  /** A head is complete; it ended at `end` of `chunk`. True: the duplex belongs to somebody else now. */
  requestHead(request: ParsedRequest, chunk: Uint8Array, end: number): boolean;
  /** The first bytes of a head came, but not all. */
  headStarted(): void;
  /** The head cannot be understood: nothing behind it can be either. */
  headRefused(error: SallyError): void;
  /** The reader of the body waits and nothing is here. */
  bodyWanted(): void;
  /** The body has come in completely. */
  bodyComplete(): void;
  /** The body is malformed or too large; its reader has been told. */
  bodyBroken(): void;
  /** So many bytes of the body came in. */
  bodyTaken(byteCount: number): void;
}

/** Why a well-formed request is refused by its head alone. */
export function refusalOf({ expect, bodyLength }: ParsedRequest, { bodyBytes }: Limits): SallyError | undefined {
  if (expect !== undefined && expect.toLowerCase() !== "100-continue") return new SallyError("EXPECTATION_FAILED");
  return bodyLength !== undefined && bodyLength > bodyBytes ? new SallyError("BODY_TOO_LARGE") : undefined;
}

/** waiting: reads heads. paused: a request is complete, further bytes wait. dropping: everything that comes is dropped. */
type Mode = "waiting" | "body" | "paused" | "dropping" | "gone";

export class RequestIntake implements BodyOwner {
  readonly #duplex: Duplex;
  readonly #owner: IntakeOwner;
  readonly #limits: Limits;
  readonly #parser: RequestParser;
  #mode: Mode = "waiting";
  /** Bytes behind the current request: delivered, not consumed, not looked at. */
  #pending: ByteQueue | undefined;
  #decoder: BodyDecoder | undefined;
  #isTaking = false;
  #refusedAccept: string | undefined;

  /** Body of the current request; undefined when it has none. */
  body: BodyQueue | undefined;
  /** What is wrong with that body; nothing behind it can be understood. */
  failure: SallyError | undefined;
  /** The visitor ended its side. */
  hasEnded = false;

  constructor(duplex: Duplex, limits: Limits, owner: IntakeOwner) {
    this.#duplex = duplex;
    this.#owner = owner;
    this.#limits = limits;
    this.#parser = new RequestParser(limits);
  }

  /** True while bytes of the current body are still to come. */
  get isInBody(): boolean {
    return this.#mode === "body";
  }

  /** True when bytes of a further request are here. */
  get hasPending(): boolean {
    return this.#pending !== undefined && this.#pending.length > 0;
  }

  push(chunk: Uint8Array): void {
    if (this.hasPending) this.#pending!.push(chunk); // it has some
    else this.#take(chunk);
  }

  /** Opens the body that the head just announced; called from `requestHead`. */
  openBody(length: number | undefined): BodyQueue {
    this.#decoder = length === undefined ? new ChunkedDecoder(this.#limits, "BAD_REQUEST") : new LengthDecoder(length);
    this.#mode = "body";
    this.body = new BodyQueue(length, this);
    return this.body;
  }

  /** Goes on with the next request, from what waits. */
  resume(): void {
    this.body = undefined;
    this.#mode = "waiting";
    if (this.#isTaking) return; // called from within: the loop that runs goes on
    while (this.hasPending && (this.#mode === "waiting" || this.#mode === "body")) {
      this.#take(this.#pending!.shift()); // it has some
    }
  }

  /** Gives up on the current body: its reader gets the error, and nothing more is read. */
  breakBody(error: SallyError): void {
    if (this.#mode === "body") this.#mode = "paused";
    this.#decoder = undefined;
    this.body?.fail(error);
  }

  /** The rest of the body may never come, or nobody wants it and it is certain to be more than we drain. */
  isOverlong(awaitsContinue: boolean): boolean {
    const { body, isInBody } = this;
    if (!isInBody || body === undefined) return false;
    if (awaitsContinue && body.receivedBytes === 0) return true;
    if (!body.isCancelled || body.length === undefined) return false;
    return body.length - body.receivedBytes > this.#limits.drainedEarlyReplyBytes;
  }

  /** From now on everything that comes is dropped; who still reads the body gets an error. */
  drop(): void {
    this.#mode = "dropping";
    this.body?.discard(new SallyError("CANCELLED", "The rest of the request is not wanted."));
    this.#decoder = undefined;
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending !== undefined && pending.length > 0) this.#duplex.consume(pending.length);
  }

  /** What a visitor whose head was refused, or did not come to its end, would like to read. */
  get refusedAccept(): string | undefined {
    return this.#refusedAccept ?? this.#parser.acceptOfRefused();
  }

  /** What was delivered behind the current request and not consumed. */
  get pendingBytes(): Uint8Array {
    const pending = this.#pending;
    if (pending === undefined) return emptyBytes;
    const all = pending.shiftAll();
    pending.push(all);
    return all;
  }

  /** Somebody else owns the duplex and what waits; this object is done. */
  leave(): void {
    this.#mode = "gone";
    this.#decoder = undefined;
    this.#pending = undefined;
  }

  /** The connection is gone. */
  release(error: SallyError): void {
    this.leave();
    this.body?.fail(error);
  }

  bodyWanted(): void {
    this.#owner.bodyWanted();
  }

  bodyConsumed(byteCount: number): void {
    this.#duplex.consume(byteCount);
  }

  bodyCancelled(): void {
    // What still comes is dropped as it arrives; how much of it is settled when the reply is out.
  }

  #take(chunk: Uint8Array): void {
    this.#isTaking = true;
    try {
      this.#takeModes(chunk);
    } finally {
      this.#isTaking = false;
    }
  }

  /** Takes a chunk as far as the mode allows; the rest waits. */
  #takeModes(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#mode) {
        case "waiting":
          at = this.#takeHead(chunk, at);
          break;
        case "body":
          at = this.#takeBody(chunk, at, this.#decoder!); // body mode has a decoder
          break;
        case "paused":
          this.#pending ??= new ByteQueue();
          this.#pending.unshift(at === 0 ? chunk : chunk.subarray(at));
          return;
        case "dropping":
          this.#duplex.consume(chunk.length - at);
          return;
        case "gone":
          return;
      }
    }
  }

  #takeHead(chunk: Uint8Array, from: number): number {
    let request: ParsedRequest | undefined;
    try {
      request = this.#parser.push(chunk, from);
    } catch (thrown) {
      this.#mode = "dropping";
      this.#refusedAccept = this.#parser.acceptOfRefused(chunk.subarray(from));
      this.#duplex.consume(chunk.length - from);
      this.#owner.headRefused(toSallyError(thrown));
      return chunk.length;
    }
    if (request === undefined) {
      this.#duplex.consume(chunk.length - from);
      if (this.#parser.isStarted) this.#owner.headStarted();
      return chunk.length;
    }
    const { end } = this.#parser;
    this.#duplex.consume(end - from);
    this.#mode = "paused";
    return this.#owner.requestHead(request, chunk, end) ? chunk.length : end;
  }

  #takeBody(chunk: Uint8Array, from: number, decoder: BodyDecoder): number {
    const body = this.body!; // there is a decoder
    const before = body.receivedBytes;
    let end: number;
    try {
      end = decoder.push(chunk, from, body);
      if (body.receivedBytes > this.#limits.bodyBytes) throw new SallyError("BODY_TOO_LARGE"); // its length was unknown
    } catch (thrown) {
      // The queue answers for what was decoded of this chunk; the rest of it is worthless.
      this.#duplex.consume(chunk.length - from - (body.receivedBytes - before));
      this.failure = toSallyError(thrown, "BAD_REQUEST");
      this.breakBody(this.failure);
      this.#mode = "dropping";
      this.#owner.bodyBroken();
      return chunk.length;
    }
    const framingBytes = end - from - (body.receivedBytes - before);
    if (framingBytes > 0) this.#duplex.consume(framingBytes);
    this.#owner.bodyTaken(end - from);
    if (decoder.isDone && this.#decoder === decoder) {
      this.#decoder = undefined;
      this.#mode = "paused";
      body.finish(decoder.trailers);
      this.#owner.bodyComplete();
    }
    return end;
  }
}
