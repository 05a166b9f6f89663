/** Finds visitors who hold a connection without using it: looked at about once a second, no timers of their own. */

import type { Duplex } from "../core/duplex.ts";
import type { Limits } from "../core/limits.ts";

/** What is known of the body at a sweep. */
export interface BodyProgress {
  readonly receivedBytes: number;
  /** A reader waits for bytes that have not come. */
  readonly isAwaited: boolean;
}

/**
 * A visitor who owes body bytes that somebody waits for: none for too long, or too few over a window. A slow reader on
 * our side never counts against the visitor.
 */
export class BodyRate {
  #seenBytes = 0;
  #windowBytes = 0;
  #windowMs = 0;
  #stallMs = 0;

  /** Called at each sweep; true when the visitor is too slow. */
  isTooSlow({ receivedBytes, isAwaited }: BodyProgress, elapsedMs: number, limits: Limits): boolean {
    const { bodyStallMs, bodyMinRateBytesPerSecond } = limits;
    const arrived = receivedBytes - this.#seenBytes;
    this.#seenBytes = receivedBytes;
    this.#stallMs = arrived > 0 || !isAwaited ? 0 : this.#stallMs + elapsedMs;
    this.#windowBytes += arrived;
    if (isAwaited) this.#windowMs += elapsedMs;
    if (this.#stallMs > bodyStallMs) return true;
    if (this.#windowMs <= bodyStallMs) return false;
    const isSlow = this.#windowBytes < (bodyMinRateBytesPerSecond * this.#windowMs) / 1_000;
    this.#windowMs = 0;
    this.#windowBytes = 0;
    return isSlow;
  }
}

type Outgoing = Pick<Duplex, "queuedBytes" | "undeliveredBytes">;

/**
 * A connection that we have ended: over when the visitor has everything and does not close its side, or when nothing
 * leaves for too long. A reset throws away what our system still holds, so a slow reader gets its time.
 */
export class LingerWatch {
  #leftBytes = Infinity;
  #sinceMs = 0;

  /** Asked at each sweep once the visitor has had its time to close. */
  isOver(
    { queuedBytes, undeliveredBytes: leftBytes = queuedBytes }: Outgoing,
    nowMs: number,
    stallMs: number,
  ): boolean {
    if (leftBytes === 0) return true;
    if (leftBytes >= this.#leftBytes) return nowMs - this.#sinceMs >= stallMs;
    this.#leftBytes = leftBytes;
    this.#sinceMs = nowMs;
    return false;
  }
}

/** What is known of the queue at a sweep. */
export interface QueueProgress {
  readonly queuedBytes: number;
  /** Asked only while bytes are queued. */
  readonly undeliveredBytes: number;
  /** Put into the queue since the start of the connection. */
  readonly writtenBytes: number;
}

/**
 * A visitor who does not read: nothing reaches its system for too long, whether more comes in or not. Our queue alone does
 * not tell: the system asks for more only when a third of its megabytes has left, which takes a slow reader minutes.
 */
export class QueueWatch {
  /** Bytes that had left at the last sweep; undefined when nothing waited. Over TLS less what the system's part has grown. */
  #leftBytes: number | undefined;
  #stuckSinceMs = 0;

  isStuck(progress: QueueProgress, nowMs: number, stallMs: number): boolean {
    const leftBytes = progress.queuedBytes === 0 ? undefined : progress.writtenBytes - progress.undeliveredBytes;
    if (leftBytes !== undefined && leftBytes === this.#leftBytes) return nowMs - this.#stuckSinceMs >= stallMs;
    this.#leftBytes = leftBytes;
    this.#stuckSinceMs = nowMs;
    return false;
  }
}
