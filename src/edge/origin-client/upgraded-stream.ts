/**
 * The pipe behind a 101: first the bytes that came with the head, then whatever the stream brings. Between the reply
 * and the moment the listener takes the pipe over nothing is lost: events wait here.
 */

import { ByteQueue } from "../../core/byte-queue.ts";
import type { DialledStream, Duplex, DuplexHandler } from "../../core/duplex.ts";
import { idleHandler } from "../../core/duplex.ts";
import type { SallyError } from "../../core/errors.ts";

export class UpgradedStream implements Duplex, DuplexHandler {
  readonly #stream: DialledStream;
  #handler: DuplexHandler = idleHandler;
  #isTaken = false;
  /** What came before anybody took the pipe over. */
  #waiting: ByteQueue | undefined;
  #hasEnded = false;
  #hasClosed = false;
  #closeError: SallyError | undefined;

  constructor(stream: DialledStream, rest: Uint8Array) {
    this.#stream = stream;
    if (rest.length > 0) this.onData(rest);
    stream.handler = this;
  }

  /** Whether somebody took the pipe over. */
  get isTaken(): boolean {
    return this.#isTaken;
  }

  get handler(): DuplexHandler {
    return this.#handler;
  }

  /** The first handler gets what waited, soon but not at once: it may still be joining the other side. */
  set handler(handler: DuplexHandler) {
    this.#handler = handler;
    if (this.#isTaken) {
      if (this.#stream.handler !== this) this.#stream.handler = handler;
      return;
    }
    this.#isTaken = true;
    queueMicrotask(() => this.#handOver());
  }

  get queuedBytes(): number {
    return this.#stream.queuedBytes;
  }

  write(chunk: Uint8Array): boolean {
    return this.#stream.write(chunk);
  }

  end(): void {
    this.#stream.end();
  }

  reset(error: SallyError): void {
    const dropped = this.#waiting?.length ?? 0;
    this.#waiting?.clear();
    if (dropped > 0) this.#stream.consume(dropped);
    this.#hasEnded = this.#hasClosed = false;
    this.#handler = idleHandler;
    this.#stream.handler = idleHandler;
    this.#stream.reset(error);
  }

  consume(byteCount: number): void {
    this.#stream.consume(byteCount);
  }

  onData(chunk: Uint8Array): void {
    this.#waiting ??= new ByteQueue();
    this.#waiting.push(chunk);
  }

  onEnd(): void {
    this.#hasEnded = true;
  }

  onDrain(): void {
    this.#handler.onDrain();
  }

  onClose(error: SallyError | undefined): void {
    this.#hasClosed = true;
    this.#closeError = error;
  }

  #handOver(): void {
    if (!this.#hasClosed) this.#stream.handler = this.#handler;
    const waiting = this.#waiting ?? new ByteQueue(); // `reset` empties it
    while (waiting.length > 0) this.#handler.onData(waiting.shift());
    this.#waiting = undefined;
    if (this.#hasEnded) this.#handler.onEnd();
    if (this.#hasClosed) this.#handler.onClose(this.#closeError);
  }
}
