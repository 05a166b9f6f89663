/**
 * Joins two pipes until both directions have ended: upgraded connections and raw streams. Half-close is kept, a reset
 * on one side resets the other, and a chunk is consumed only when the other side's queue has room.
 */

import type { Duplex, DuplexHandler } from "./duplex.ts";
import type { SallyError } from "./errors.ts";

/** Relays bytes both ways; `onDone` is called once with the error that ended it, if any. */
export function relay(left: Duplex, right: Duplex, onDone: (error: SallyError | undefined) => void): void {
  const shared: Shared = { openSides: 2, onDone };
  const fromLeft = new Side(left, right, shared);
  const fromRight = new Side(right, left, shared);
  fromLeft.back = fromRight;
  fromRight.back = fromLeft;
  left.handler = fromLeft;
  right.handler = fromRight;
}

interface Shared {
  openSides: number;
  onDone: ((error: SallyError | undefined) => void) | undefined;
}

/** One direction. Objects instead of closures: connections that idle for hours cost a third of the memory. */
class Side implements DuplexHandler {
  readonly #source: Duplex;
  readonly #sink: Duplex;
  readonly #shared: Shared;
  /** The other direction; set before anything can happen. */
  back: Side | undefined;
  /** Bytes of the source that wait in the sink's queue, above its mark. */
  #owedBytes = 0;

  constructor(source: Duplex, sink: Duplex, shared: Shared) {
    this.#source = source;
    this.#sink = sink;
    this.#shared = shared;
  }

  onData(chunk: Uint8Array): void {
    if (this.#sink.write(chunk)) this.#source.consume(chunk.length);
    else this.#owedBytes += chunk.length;
  }

  onEnd(): void {
    this.#sink.end();
  }

  /** The source's queue has emptied: what the other direction put there is done with. */
  onDrain(): void {
    this.back?.settle();
  }

  onClose(error: SallyError | undefined): void {
    this.#shared.openSides--;
    this.back?.settle(); // the queue that held it is gone
    if (error !== undefined) {
      this.#sink.reset(error);
      this.settle();
    }
    if (error !== undefined || this.#shared.openSides === 0) this.#finish(error);
  }

  settle(): void {
    const bytes = this.#owedBytes;
    this.#owedBytes = 0;
    if (bytes > 0) this.#source.consume(bytes);
  }

  #finish(error: SallyError | undefined): void {
    const { onDone } = this.#shared;
    this.#shared.onDone = undefined;
    onDone?.(error);
  }
}
