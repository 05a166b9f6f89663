/**
 * The one shape of a two-way byte pipe: a TCP or TLS socket, a lane's carrier (QUIC stream, WebSocket connection),
 * and a stream inside a lane all look like this. It keeps two rules: accepted bytes always arrive (end, then linger),
 * and unread bytes are bounded (the receiver says what it consumed; the sender is told to wait).
 */

import type { SallyError } from "./errors.ts";

export interface DuplexHandler {
  /**
   * Bytes from the peer. The receiver owns the chunk and must report it with `consume` once it is done with it. It may be
   * a small part of a large buffer: who keeps it while the peer goes on puts it into a `ByteQueue`.
   */
  onData(chunk: Uint8Array): void;
  /** The peer ended its direction cleanly; no `onData` follows. Ours stays open. */
  onEnd(): void;
  /** The queue that made `write` return false has emptied below its low mark. */
  onDrain(): void;
  /** The last call, exactly once unless we called `reset`: without an error after both directions ended cleanly. */
  onClose(error: SallyError | undefined): void;
}

export interface Duplex {
  /** Receives the events. Set synchronously by whoever obtains the pipe, before control returns to the event loop. */
  handler: DuplexHandler;
  /** Bytes that were written here and have not been handed on yet. */
  readonly queuedBytes: number;
  /**
   * Bytes of ours that the peer's system has not taken: those queued here and those in our system's buffers. For who waits
   * until everything has arrived; asking costs microseconds. Absent where only `queuedBytes` is known.
   */
  readonly undeliveredBytes?: number;
  /** Queues bytes; they are always accepted, and must not be changed afterwards. False: wait for `onDrain`. After close it is ignored. */
  write(chunk: Uint8Array): boolean;
  /**
   * Of what was written here, the bytes that surely had not reached the peer when it ended its direction; to be asked in
   * `onEnd`, before `end`. What is queued here counts. Absent where there is no way to tell more.
   */
  readonly unreceivedBytes?: number;
  /** Of these, the bytes that were dropped because the connection was gone when they were written. */
  readonly refusedBytes?: number;
  /** True where what `write` took was copied: once nothing is queued, the caller may use a chunk's buffer again. */
  readonly copiesWrites?: boolean;
  /** Bytes in front of a chunk that `writeOver` may use for framing of its own. */
  readonly headroomBytes?: number;
  /** Like `write` of `buffer[start..end)` for who needs the bytes no more: they, and the headroom, are overwritten. */
  writeOver?(buffer: Uint8Array, start: number, end: number): boolean;
  /** Ends our direction once everything queued is sent. Idempotent. */
  end(): void;
  /** Drops both directions at once; the peer sees an abort, never a clean end. No handler call follows. Idempotent. */
  reset(error: SallyError): void;
  /**
   * Gives the connection up where our end and everything before it has arrived; else it does nothing. Unlike a reset it
   * destroys nothing that the peer's program has not read yet. No handler call follows.
   */
  leave?(): void;
  /**
   * Says that `byteCount` bytes of those delivered are done with, so the peer may send as many more. What was delivered
   * counts as held after the end and after `reset`, too, until it is consumed.
   */
  consume(byteCount: number): void;
}

/** A stream to an origin, as the exit hands it out. */
export interface DialledStream extends Duplex {
  /**
   * Bytes of ours that reached the origin's socket, as the last FIN or RESET of the peer reported; undefined until
   * then. Zero means that nothing of the request was seen, so any method may be replayed.
   */
  readonly deliveredBytes: number | undefined;
  /** True once the agent said OPENED, or sent data. */
  readonly isOpened: boolean;
  /** True while there is no room for the stream: nothing of it has left. Absent where it is opened at once. */
  readonly isWaiting?: boolean;
  /** Bytes on the way in both directions of the lane that carries it; undefined where there are no lanes. */
  readonly laneLoadBytes?: number | undefined;
}

/** A handler that ignores everything, for the moment between two owners. */
export const idleHandler: DuplexHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} };
