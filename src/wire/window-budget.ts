/**
 * The receive windows of all streams of a process are drawn from one budget, so what peers may make us hold is bounded
 * whatever they do. A new stream that finds it empty waits its turn; growth stops earlier, so that it never starves
 * new streams.
 */

import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";

/** Growth leaves this share of the budget to new streams. */
const growthShare = 0.75;

interface Waiter {
  readonly bytes: number;
  readonly onGranted: () => void;
}

/** Bytes of a stream that is over and whose owner has not consumed them: they still take memory. */
export class HeldBytes {
  readonly #budget: WindowBudget;
  #bytes: number;

  constructor(budget: WindowBudget, bytes: number) {
    this.#budget = budget;
    this.#bytes = bytes;
  }

  release(byteCount = this.#bytes): void {
    const bytes = Math.min(byteCount, this.#bytes);
    if (bytes === 0) return;
    this.#bytes -= bytes;
    this.#budget.release(bytes);
  }
}

export class WindowBudget {
  readonly maxBytes: number;
  readonly waitersMax: number;
  #usedBytes = 0;
  readonly #waiters = new Set<Waiter>();
  /** An owner that drops its stream without a word holds nothing more. */
  readonly #forgotten = new FinalizationRegistry<HeldBytes>((held) => held.release());

  constructor(maxBytes: number, waitersMax: number = limits.openWaitersMax) {
    this.maxBytes = maxBytes;
    this.waitersMax = waitersMax;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get waiters(): number {
    return this.#waiters.size;
  }

  /** Takes `bytes` at once, or nothing: those who wait go first. */
  tryReserve(bytes: number): boolean {
    if (this.#waiters.size > 0 || this.#usedBytes + bytes > this.maxBytes) return false;
    this.#usedBytes += bytes;
    return true;
  }

  /** As `tryReserve`, but leaves a quarter of the budget to new streams. */
  tryGrow(bytes: number): boolean {
    if (this.#waiters.size > 0 || this.#usedBytes + bytes > this.maxBytes * growthShare) return false;
    this.#usedBytes += bytes;
    return true;
  }

  /**
   * Waits in line for `bytes`; `onGranted` is called once when they are taken. Returns the way to leave the line.
   * @throws SallyError OVERLOADED when the line is full
   */
  wait(bytes: number, onGranted: () => void): () => void {
    if (this.#waiters.size >= this.waitersMax) throw new SallyError("OVERLOADED");
    const waiter = { bytes, onGranted };
    this.#waiters.add(waiter);
    return () => {
      if (this.#waiters.delete(waiter)) this.#serve();
    };
  }

  release(bytes: number): void {
    this.#usedBytes -= bytes;
    if (this.#usedBytes < 0) throw new Error("assertion failed: released more window than was reserved");
    if (this.#waiters.size > 0) this.#serve();
  }

  /** `stream` gives up its window but for `heldBytes`, which come back as they are released, or with its collection. */
  retire(stream: object, windowBytes: number, heldBytes: number): HeldBytes | undefined {
    this.release(windowBytes - heldBytes);
    if (heldBytes === 0) return undefined;
    const held = new HeldBytes(this, heldBytes);
    this.#forgotten.register(stream, held);
    return held;
  }

  #serve(): void {
    for (const waiter of this.#waiters) {
      if (this.#usedBytes + waiter.bytes > this.maxBytes) return;
      this.#waiters.delete(waiter);
      this.#usedBytes += waiter.bytes;
      waiter.onGranted();
    }
  }
}
