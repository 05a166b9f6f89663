/**
 * Joins two pipes until both directions have ended: upgraded connections and raw streams. Half-close is kept, a reset
 * on one side resets the other, and a chunk is consumed only when the other side's queue has room.
 */

import type { Duplex, DuplexHandler } from "./duplex.ts";
import type { SallyError } from "./errors.ts";

/** Relays bytes both ways; `onDone` is called once with the error that ended it, if any. */
export function relay(left: Duplex, right: Duplex, onDone: (error: SallyError | undefined) => void): void {
  let openSides = 2;
  let finished = false;
  const finish = (error: SallyError | undefined): void => {
    if (finished) return;
    finished = true;
    onDone(error);
  };
  const from = (source: Duplex, sink: Duplex, owed: { bytes: number }, sinkOwed: { bytes: number }): DuplexHandler => ({
    onData(chunk) {
      if (sink.write(chunk)) source.consume(chunk.length);
      else owed.bytes += chunk.length;
    },
    onEnd: () => sink.end(),
    onDrain() {
      // Our queue towards `source` emptied: what the other side delivered meanwhile is consumed now.
      take(sink, sinkOwed);
    },
    onClose(error) {
      openSides--;
      take(sink, sinkOwed); // the queue that held it is gone
      if (error !== undefined) {
        sink.reset(error);
        take(source, owed);
        finish(error);
      } else if (openSides === 0) finish(undefined);
    },
  });
  const take = (pipe: Duplex, delivered: { bytes: number }): void => {
    const { bytes } = delivered;
    delivered.bytes = 0;
    if (bytes > 0) pipe.consume(bytes);
  };
  const leftOwed = { bytes: 0 };
  const rightOwed = { bytes: 0 };
  left.handler = from(left, right, leftOwed, rightOwed);
  right.handler = from(right, left, rightOwed, leftOwed);
}
