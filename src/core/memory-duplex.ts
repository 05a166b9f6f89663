/**
 * A pair of pipes without sockets: what is written to one side arrives at the other. Tests decide how bytes are cut
 * into chunks, when they are delivered (`isHeld`) and when tasks run (`schedule`); the two rules of `Duplex` hold.
 */

import { concatBytes } from "./bytes.ts";
import { SallyError, type ErrorCode } from "./errors.ts";
import { idleHandler, type Duplex, type DuplexHandler } from "./duplex.ts";

export interface MemoryDuplexOptions {
  /** Cuts the stream: given the bytes that wait, how many arrive as the next chunk (at least 1). Default: as written. */
  readonly nextChunkBytes?: (waitingBytes: number) => number;
  /** Runs a delivery later. Default: `queueMicrotask`. */
  readonly schedule?: (task: () => void) => void;
  /** `write` returns false above this. Default 256 KiB. */
  readonly highBytes?: number;
  /** `onDrain` follows a false `write` at or below this. Default 64 KiB. */
  readonly lowBytes?: number;
  /** Delivery pauses while the receiver holds this many unconsumed bytes. Default 256 KiB. */
  readonly unconsumedBytes?: number;
  /** What the peer's `onClose` gets after a reset. Default LINK_LOST. */
  readonly resetCode?: ErrorCode;
}

/** One side of a pair made by `memoryDuplexPair`. */
export class MemoryDuplex implements Duplex {
  handler: DuplexHandler = idleHandler;
  /** Bytes written here since the start. */
  writtenBytes = 0;
  /** Calls of `write` since the start: how well a writer coalesces. */
  writeCount = 0;
  /** Bytes delivered to this side that it has not consumed. */
  unconsumedBytes = 0;
  /** The error that this side was reset with by its owner. */
  resetError: SallyError | undefined;
  readonly #options: MemoryDuplexOptions;
  #peer: MemoryDuplex | undefined;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #isHeld = false;
  #isScheduled = false;
  #wantsDrain = false;
  #hasEnded = false;
  #endDelivered = false;
  #isClosed = false;

  constructor(options: MemoryDuplexOptions) {
    this.#options = options;
  }

  /** Introduces the two sides. Called by `memoryDuplexPair` only. */
  join(peer: MemoryDuplex): void {
    this.#peer = peer;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** While true, nothing that was written here is delivered. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  set isHeld(value: boolean) {
    this.#isHeld = value;
    if (!value) this.#wake();
  }

  write(chunk: Uint8Array): boolean {
    if (this.#isClosed || this.#hasEnded) return true;
    this.writeCount++;
    this.writtenBytes += chunk.length;
    if (chunk.length > 0) this.#queue.push(chunk);
    this.#queuedBytes += chunk.length;
    this.#wake();
    if (this.#queuedBytes <= (this.#options.highBytes ?? 256 * 1024)) return true;
    this.#wantsDrain = true;
    return false;
  }

  end(): void {
    if (this.#isClosed || this.#hasEnded) return;
    this.#hasEnded = true;
    this.#wake();
  }

  reset(error: SallyError): void {
    if (this.#isClosed) return;
    this.resetError = error;
    this.#drop();
    const peer = this.#peer;
    peer?.fail(new SallyError(this.#options.resetCode ?? "LINK_LOST", undefined, { cause: error }));
  }

  /** Breaks this side as a network would: its handler sees `error` soon. */
  fail(error: SallyError): void {
    if (this.#isClosed) return;
    this.#drop();
    this.#schedule(() => this.handler.onClose(error));
  }

  consume(byteCount: number): void {
    if (byteCount > this.unconsumedBytes) throw new Error("assertion failed: consumed more than was delivered");
    this.unconsumedBytes -= byteCount;
    if (this.#peer !== undefined) this.#peer.#wake();
  }

  #drop(): void {
    this.#isClosed = true;
    this.#queue = [];
    this.#queuedBytes = 0;
  }

  #schedule(task: () => void): void {
    (this.#options.schedule ?? queueMicrotask)(task);
  }

  #wake(): void {
    if (this.#isScheduled || this.#isHeld || this.#isClosed) return;
    this.#isScheduled = true;
    this.#schedule(() => this.#deliver());
  }

  #deliver(): void {
    this.#isScheduled = false;
    const peer = this.#peer;
    if (this.#isClosed || this.#isHeld || peer === undefined || peer.#isClosed) return;
    if (this.#queuedBytes > 0) {
      if (peer.unconsumedBytes >= (this.#options.unconsumedBytes ?? 256 * 1024)) return;
      const chunk = this.#take();
      this.#queuedBytes -= chunk.length;
      peer.unconsumedBytes += chunk.length;
      this.#wake();
      peer.handler.onData(chunk);
      if (this.#wantsDrain && this.#queuedBytes <= (this.#options.lowBytes ?? 64 * 1024) && !this.#isClosed) {
        this.#wantsDrain = false;
        this.handler.onDrain();
      }
    } else if (this.#hasEnded && !this.#endDelivered) {
      this.#endDelivered = true;
      peer.handler.onEnd();
      if (peer.#endDelivered) {
        this.#closeCleanly();
        peer.#closeCleanly();
      }
      return;
    }
    if (this.#queuedBytes > 0 || (this.#hasEnded && !this.#endDelivered)) this.#wake();
  }

  #closeCleanly(): void {
    if (this.#isClosed) return;
    this.#drop();
    this.#schedule(() => this.handler.onClose(undefined));
  }

  #take(): Uint8Array {
    const first = this.#queue[0]!; // the caller checked that bytes wait
    const wanted = this.#options.nextChunkBytes?.(this.#queuedBytes) ?? first.length;
    const size = Math.max(1, Math.min(wanted, this.#queuedBytes));
    const parts: Uint8Array[] = [];
    let missing = size;
    let used = 0;
    while (missing > 0) {
      const chunk = this.#queue[used]!; // queuedBytes is the sum of the queue
      if (chunk.length > missing) {
        parts.push(chunk.subarray(0, missing));
        this.#queue[used] = chunk.subarray(missing);
        missing = 0;
      } else {
        parts.push(chunk);
        missing -= chunk.length;
        used++;
      }
    }
    this.#queue.splice(0, used);
    return concatBytes(parts);
  }
}

/** Two joined pipes; the second option set is for the second side when the two directions differ. */
export function memoryDuplexPair(
  options: MemoryDuplexOptions = {},
  backOptions: MemoryDuplexOptions = options,
): [MemoryDuplex, MemoryDuplex] {
  const left = new MemoryDuplex(options);
  const right = new MemoryDuplex(backOptions);
  left.join(right);
  right.join(left);
  return [left, right];
}
