/**
 * A Bun TCP, TLS or unix socket as a `Duplex`. It hides Bun's partial writes, its pause and resume, and which of its
 * events mean a clean end. One small object per connection and one shared handler table: this is the hot path of
 * everything. Rule kept: accepted bytes arrive (shutdown after the queue is empty, never Bun's `end()`, which drops
 * bytes while the peer is sending; see docs/runtime-facts.md), and unread bytes are bounded by pausing the socket.
 */

import { ByteQueue } from "../core/byte-queue.ts";
import { idleHandler, type Duplex, type DuplexHandler } from "../core/duplex.ts";
import { SallyError, type ErrorCode } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { unacknowledgedBytes } from "./unacknowledged.ts";

/** What is used of Bun's socket; tests stand in for it. */
export interface RawSocket {
  /** The system's descriptor; negative once closed. Absent: the system is not asked. */
  readonly fd?: number;
  write(chunk: Uint8Array, offset?: number, length?: number): number;
  flush(): void;
  shutdown(): void;
  close(): void;
  terminate(): void;
  pause(): void;
  resume(): void;
}

/** With TLS, what the system has sent says nothing about what was written. */
export type Carrier = "tcp" | "unix" | "tls";

/** Events that came before anybody set a handler. */
interface Early {
  readonly chunks: Uint8Array[];
  ended: boolean;
  closed: { readonly error: SallyError | undefined } | undefined;
}

const coalescedBytes = 64 * 1024;

export class SocketDuplex implements Duplex {
  readonly copiesWrites = true;
  readonly #closeCode: ErrorCode;
  readonly #carrier: Carrier;
  #socket: RawSocket | undefined;
  #handler: DuplexHandler = idleHandler;
  #early: Early | undefined = { chunks: [], ended: false, closed: undefined };
  /** What the socket would not take; most sockets never have one. */
  #queue: ByteQueue | undefined;
  /** What the socket did not take because the connection was gone. */
  #refusedBytes = 0;
  #unreadBytes = 0;
  #isPaused = false;
  #wantsDrain = false;
  #isEnding = false;
  #isShutDown = false;
  #hasPeerEnded = false;
  #isClosed = false;

  /**
   * `closeCode` is the code of the error that `onClose` reports when the connection is lost; `carrier` matters only to
   * who asks how much arrived.
   */
  constructor(socket: RawSocket | undefined, closeCode: ErrorCode = "LINK_LOST", carrier: Carrier = "tls") {
    this.#socket = socket;
    this.#closeCode = closeCode;
    this.#carrier = carrier;
  }

  get handler(): DuplexHandler {
    return this.#handler;
  }

  set handler(handler: DuplexHandler) {
    this.#handler = handler;
    const early = this.#early;
    if (early === undefined) return;
    if (early.chunks.length === 0 && !early.ended && early.closed === undefined) this.#early = undefined;
    else queueMicrotask(() => this.#deliverEarly());
  }

  get queuedBytes(): number {
    return this.#queue === undefined ? 0 : this.#queue.length;
  }

  get refusedBytes(): number {
    return this.#refusedBytes;
  }

  /**
   * The system is asked only while no write has failed: one that did has taken the error of a reset with it, and what is
   * then reported as the peer's end may be none. A reset, unlike a FIN, does not acknowledge what had arrived.
   */
  get unreceivedBytes(): number {
    const fd = this.#socket?.fd;
    const mayAsk = this.#carrier === "tcp" && this.#refusedBytes === 0 && !this.#isShutDown && !this.#isClosed;
    if (fd === undefined || !mayAsk) return this.queuedBytes + this.#refusedBytes;
    return this.queuedBytes + (unacknowledgedBytes(fd) ?? 0);
  }

  get undeliveredBytes(): number {
    const fd = this.#socket?.fd;
    if (fd === undefined || this.#isClosed) return this.queuedBytes;
    return this.queuedBytes + (unacknowledgedBytes(fd) ?? 0);
  }

  // hot: bench/micro/sockets.ts. Straight to the socket when nothing is queued; no closure, no copy.
  write(chunk: Uint8Array): boolean {
    const length = chunk.length;
    if (length === 0 || this.#isClosed || this.#isEnding) return true;
    let taken = 0;
    if (this.queuedBytes === 0 && this.#socket !== undefined) {
      taken = this.#socket.write(chunk);
      if (taken === length) return true;
      if (taken < 0) {
        this.#noteRefused(length);
        return true; // Closing: Bun's close event follows.
      }
    }
    const queue = (this.#queue ??= new ByteQueue());
    queue.push(taken === 0 ? chunk : chunk.subarray(taken));
    if (queue.length <= limits.socketQueueHighBytes) return true;
    this.#wantsDrain = true;
    return false;
  }

  end(): void {
    if (this.#isEnding || this.#isClosed) return;
    this.#isEnding = true;
    if (this.queuedBytes === 0) this.#shutDown();
  }

  reset(_error: SallyError): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#early = undefined;
    this.#dropQueue();
    this.#handler = idleHandler;
    this.#socket?.terminate(); // SO_LINGER 0: the peer sees RST, measured.
  }

  leave(): void {
    if (this.#isClosed || !this.#isShutDown || this.undeliveredBytes > 0) return;
    this.#isClosed = true;
    this.#early = undefined;
    this.#handler = idleHandler;
    this.#socket?.close();
  }

  consume(byteCount: number): void {
    this.#unreadBytes -= byteCount;
    if (this.#isPaused && this.#unreadBytes < limits.socketReadHighBytes / 2 && !this.#isClosed) {
      this.#isPaused = false;
      this.#socket?.resume();
    }
  }

  /** Drops the connection for a reason of its keeper; unlike after `reset`, the handler is told: INTERNAL for a bug. */
  abort(cause: Error, isExpected = true): void {
    if (this.#isClosed) return;
    this.#closed(cause, isExpected ? this.#closeCode : "INTERNAL");
    this.#socket?.terminate();
  }

  /** Gives the socket away, to start TLS on it; this duplex is over and reports nothing more. */
  detach(): RawSocket | undefined {
    this.#isClosed = true;
    this.#early = undefined;
    this.#handler = idleHandler;
    this.#dropQueue();
    return this.#socket;
  }

  #shutDown(): void {
    const socket = this.#socket;
    if (socket === undefined || this.#isShutDown) return;
    this.#isShutDown = true;
    socket.flush();
    socket.shutdown();
  }

  /** Of TLS, parts may have been sent. */
  #noteRefused(byteCount: number): void {
    if (this.#carrier !== "tls") this.#refusedBytes += byteCount;
  }

  #dropQueue(): void {
    this.#queue = undefined;
  }

  /** Writes queued bytes until the socket refuses; small pieces travel together. */
  #flushQueue(): void {
    const socket = this.#socket;
    const queue = this.#queue;
    if (socket === undefined || queue === undefined) return;
    while (queue.length > 0) {
      const chunk = queue.peek(coalescedBytes);
      const taken = socket.write(chunk);
      if (taken < 0) {
        this.#noteRefused(queue.length);
        return this.#dropQueue();
      }
      queue.drop(taken);
      if (taken < chunk.length) break;
    }
    if (queue.length === 0 && this.#isEnding) this.#shutDown();
    if (this.#wantsDrain && queue.length <= limits.socketQueueLowBytes && !this.#isEnding) {
      this.#wantsDrain = false;
      this.#handler.onDrain();
    }
  }

  #opened(socket: RawSocket): void {
    this.#socket = socket;
    if (this.#isClosed) return socket.terminate();
    if (this.queuedBytes > 0) this.#flushQueue();
    else if (this.#isEnding) this.#shutDown();
  }

  // hot: bench/micro/sockets.ts.
  #received(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    this.#unreadBytes += chunk.length;
    if (this.#early === undefined) this.#handler.onData(chunk);
    else this.#early.chunks.push(chunk);
    if (this.#unreadBytes > limits.socketReadHighBytes && !this.#isPaused && !this.#isClosed) {
      this.#isPaused = true;
      this.#socket?.pause();
    }
  }

  #peerEnded(): void {
    if (this.#isClosed || this.#hasPeerEnded) return;
    this.#hasPeerEnded = true;
    if (this.#early === undefined) this.#handler.onEnd();
    else this.#early.ended = true;
  }

  #closed(error: Error | undefined, code = this.#closeCode): void {
    if (this.#isClosed) return;
    // After our FIN, Bun reports the peer's on a plain socket as a close without an `end` event.
    const isClean = error === undefined && this.#isShutDown;
    if (isClean) this.#peerEnded();
    if (this.#isClosed) return; // The handler reset us in onEnd.
    this.#isClosed = true;
    this.#dropQueue();
    const reason = isClean ? undefined : closeError(code, error);
    if (this.#early !== undefined) {
      this.#early.closed = { error: reason };
      return;
    }
    const handler = this.#handler;
    this.#handler = idleHandler;
    handler.onClose(reason);
  }

  #deliverEarly(): void {
    const early = this.#early;
    if (early === undefined) return;
    this.#early = undefined;
    const handler = this.#handler;
    for (const chunk of early.chunks) {
      if (this.#handler === idleHandler) return; // Reset meanwhile.
      this.#handler.onData(chunk);
    }
    if (early.ended && this.#handler !== idleHandler) this.#handler.onEnd();
    if (early.closed === undefined || this.#handler === idleHandler) return;
    this.#handler = idleHandler;
    handler.onClose(early.closed.error);
  }

  /** The one handler table; Bun passes the duplex as `socket.data`. */
  static readonly events = {
    binaryType: "uint8array",
    open: (socket: RawSocket & { readonly data: SocketDuplex }): void => socket.data.#opened(socket),
    data: (socket: { readonly data: SocketDuplex }, chunk: Uint8Array): void => socket.data.#received(chunk),
    drain: (socket: { readonly data: SocketDuplex }): void => {
      if (socket.data.queuedBytes > 0) socket.data.#flushQueue();
    },
    end: (socket: { readonly data: SocketDuplex }): void => socket.data.#peerEnded(),
    close: (socket: { readonly data: SocketDuplex }, error?: Error): void => socket.data.#closed(error),
    // A handler of ours threw (a bug), or an established TLS session broke: neither may look like a clean end.
    error: (socket: { readonly data: SocketDuplex }, error: Error): void => socket.data.abort(error, isOfTls(error)),
  } as const;
}

/** Bun reports both through one event; what BoringSSL says names it, or carries a code. */
function isOfTls(error: Error): boolean {
  return error.message.includes("OpenSSL") || error.message.includes("OPENSSL") || "code" in error;
}

function closeError(code: ErrorCode, cause: Error | undefined): SallyError {
  if (cause === undefined) return new SallyError(code, "the connection was closed before both sides had ended");
  return new SallyError(code, `the connection was lost: ${cause.message}`, { cause });
}
