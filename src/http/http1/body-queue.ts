/**
 * A Body that a connection feeds. What waits in it is bounded by the pipe: bytes count as consumed when they are read
 * here, and the sender is only granted what was consumed.
 */

import { ByteQueue } from "../../core/byte-queue.ts";
import type { SallyError } from "../../core/errors.ts";
import type { Body } from "../body.ts";
import type { HeaderList } from "../header-list.ts";
import type { BodySink } from "./body-decoder.ts";

/** The connection behind a body. One object instead of three closures for each message. */
export interface BodyOwner {
  /** Somebody waits for bytes and none are here. */
  bodyWanted(): void;
  /** So many body bytes were read, or dropped after a cancel. */
  bodyConsumed(byteCount: number): void;
  /** The reader lost interest before the end. */
  bodyCancelled(error: SallyError): void;
}

/** Copying so much costs less than a second write to a socket. */
const joinBytes = 64 * 1024;

interface Waiter {
  readonly resolve: (piece: Uint8Array | null) => void;
  readonly reject: (error: SallyError) => void;
}

export class BodyQueue implements Body, BodySink {
  readonly length: number | undefined;
  trailers: HeaderList | undefined;
  readonly #owner: BodyOwner;
  /** Made when the first piece has to wait. */
  #waiting: ByteQueue | undefined;
  #waiter: Waiter | undefined;
  #isEnded = false;
  #isCancelled = false;
  #error: SallyError | undefined;

  /** Body bytes that arrived since the start. */
  receivedBytes = 0;

  constructor(length: number | undefined, owner: BodyOwner) {
    this.length = length;
    this.#owner = owner;
  }

  /** Bytes that arrived and were not read. */
  get queuedBytes(): number {
    return this.#waiting === undefined ? 0 : this.#waiting.length;
  }

  /** True once every byte and the end have arrived, read or not. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  get isCancelled(): boolean {
    return this.#isCancelled;
  }

  /** True while a reader waits for bytes that have not come. */
  get isAwaited(): boolean {
    return this.#waiter !== undefined;
  }

  read(): Uint8Array | null | Promise<Uint8Array | null> {
    if (this.queuedBytes > 0) return this.#take();
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#isEnded) return null;
    this.#owner.bodyWanted();
    // The owner may have fed, ended or failed the body meanwhile.
    if (this.queuedBytes > 0 || this.#isEnded || this.#error !== undefined) return this.read();
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  cancel(error: SallyError): void {
    if (this.#isCancelled) return;
    const wasOpen = !this.#isEnded && this.#error === undefined;
    this.discard(error);
    if (wasOpen) this.#owner.bodyCancelled(error);
  }

  /** For the owner: drops what waits and what still comes. A reader that still reads gets the error, never an end. */
  discard(error: SallyError): void {
    this.#isCancelled = true;
    this.#error ??= error;
    this.#release()?.reject(error);
    const dropped = this.queuedBytes;
    this.#waiting = undefined;
    if (dropped > 0) this.#owner.bodyConsumed(dropped);
  }

  onBody(piece: Uint8Array): void {
    this.receivedBytes += piece.length;
    if (this.#isCancelled) {
      this.#owner.bodyConsumed(piece.length);
      return;
    }
    const waiter = this.#release();
    if (waiter === undefined) {
      this.#waiting ??= new ByteQueue();
      this.#waiting.push(piece);
      return;
    }
    waiter.resolve(piece);
    this.#owner.bodyConsumed(piece.length);
  }

  /** The body is complete. */
  finish(trailers: HeaderList | undefined): void {
    this.trailers = trailers;
    this.#isEnded = true;
    this.#release()?.resolve(null);
  }

  /** The sender broke off: what arrived can still be read, then reading rejects. */
  fail(error: SallyError): void {
    if (this.#isEnded || this.#error !== undefined) return;
    this.#error = error;
    this.#release()?.reject(error);
  }

  /** What waits is joined up to a size that is worth a write of its own. */
  #take(): Uint8Array {
    const waiting = this.#waiting!; // the caller checked
    const piece = waiting.peek(joinBytes);
    waiting.drop(piece.length);
    this.#owner.bodyConsumed(piece.length);
    return piece;
  }

  #release(): Waiter | undefined {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    return waiter;
  }
}
