/** Ends of a byte pipe for tests: one that remembers what it is told, and a sender that waits when it is told to. */

import type { Duplex, DuplexHandler } from "../../src/core/duplex.ts";
import type { SallyError } from "../../src/core/errors.ts";

/** A handler that hashes what arrives, and can stop consuming. */
export class Ear implements DuplexHandler {
  readonly duplex: Duplex;
  receivedBytes = 0;
  heldBytes = 0;
  text = "";
  ended = false;
  drains = 0;
  readonly closes: (SallyError | undefined)[] = [];
  readonly order: string[] = [];
  holds = false;
  #hash = new Bun.CryptoHasher("sha256");
  #waiters: { readonly test: () => boolean; readonly resolve: () => void }[] = [];

  constructor(duplex: Duplex) {
    this.duplex = duplex;
    duplex.handler = this;
  }

  onData(chunk: Uint8Array): void {
    this.receivedBytes += chunk.length;
    this.#hash.update(chunk);
    if (this.receivedBytes < 4096) this.text += Buffer.from(chunk).toString("latin1");
    this.#note("data");
    if (this.holds) this.heldBytes += chunk.length;
    else this.duplex.consume(chunk.length);
  }

  onEnd(): void {
    this.ended = true;
    this.#note("end");
  }

  onDrain(): void {
    this.drains++;
    this.#note("drain");
  }

  onClose(error: SallyError | undefined): void {
    this.closes.push(error);
    this.#note("close");
  }

  get isClosed(): boolean {
    return this.closes.length > 0;
  }

  sha256(): string {
    return this.#hash.digest("hex");
  }

  /** Consumes what was held and goes on consuming. */
  release(): void {
    this.holds = false;
    const bytes = this.heldBytes;
    this.heldBytes = 0;
    if (bytes > 0) this.duplex.consume(bytes);
  }

  /** Resolves when `test` holds after an event. */
  when(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ test, resolve }));
  }

  #note(event: string): void {
    if (this.order.at(-1) !== event) this.order.push(event);
    const ready = this.#waiters.filter((waiter) => waiter.test());
    if (ready.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => !ready.includes(waiter));
    for (const waiter of ready) waiter.resolve();
  }
}

/** Bytes that repeat only after their length, so a lost or swapped piece shows. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

export function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/**
 * Writes from one buffer that is scrambled whenever the pipe says it is done with it, as a lane does. Returns how often
 * the buffer could be used again.
 */
export async function sendFromOneBuffer(ear: Ear, bytes: Uint8Array): Promise<number> {
  const { duplex } = ear;
  const headroom = duplex.headroomBytes ?? 0;
  let buffer = new Uint8Array(headroom + 70_001);
  let reuses = 0;
  for (let at = 0, size = 1; at < bytes.length; size = (size * 7 + 13) % 70_001) {
    const piece = bytes.subarray(at, at + size);
    buffer.set(piece, headroom);
    at += size;
    const drains = ear.drains;
    const end = headroom + piece.length;
    const isRoom = duplex.writeOver?.(buffer, headroom, end) ?? duplex.write(buffer.subarray(headroom, end));
    if (duplex.copiesWrites === true && duplex.queuedBytes === 0) {
      buffer.fill(0xee);
      reuses++;
    } else buffer = new Uint8Array(buffer.length);
    if (!isRoom) await ear.when(() => ear.drains > drains || ear.isClosed);
  }
  return reuses;
}

/** Writes in pieces of uneven sizes, waits for drain when told to, then ends. Returns the largest queue seen. */
export async function send(ear: Ear, bytes: Uint8Array, ends = true): Promise<number> {
  const { duplex } = ear;
  let at = 0;
  let size = 1;
  let largestQueue = 0;
  while (at < bytes.length && !ear.isClosed) {
    const drains = ear.drains;
    const isRoom = duplex.write(bytes.subarray(at, at + size));
    at += size;
    size = (size * 7 + 13) % 70_001;
    largestQueue = Math.max(largestQueue, duplex.queuedBytes);
    if (!isRoom) await ear.when(() => ear.drains > drains || ear.isClosed);
  }
  if (ends) duplex.end();
  return largestQueue;
}
