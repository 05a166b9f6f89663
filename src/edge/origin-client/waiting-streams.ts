/**
 * Streams that were dialled and wait, since their link is full or their owner has its share of memory, and who makes room
 * for them. For each that waits an idle stream is given up, the oldest first, of whatever tunnel; and a stream that becomes
 * free takes over the request of one that waits for the same tunnel. Rule kept: first come, first served.
 */

import type { OriginStream } from "./origin-stream.ts";

type Test = (stream: OriginStream) => boolean;

/** The streams that may be given up. */
export interface IdleStreams {
  /** The one of those meant that would retire first. */
  oldestIdle(isMeant: Test): OriginStream | undefined;
  /** It is idle no more. */
  unlist(stream: OriginStream): void;
}

export class WaitingStreams {
  readonly #idle: IdleStreams;
  /** In the order in which they came. One whose OPEN has left stays until somebody looks. */
  readonly #waiting = new Set<OriginStream>();
  /** Streams on their way out: each frees its place and its window once the far side has closed it, too. */
  readonly #closing = new Set<OriginStream>();

  constructor(idle: IdleStreams) {
    this.#idle = idle;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Whether a stream of a full link is about to go, for one more that waits. */
  makeRoom(linkId: string): boolean {
    const isOfLink: Test = (stream) => stream.linkId === linkId;
    return this.#giveUp(isOfLink) || this.#unserved(isOfLink) < 0;
  }

  /** The stream was just dialled, and waits. */
  add(stream: OriginStream): void {
    this.#waiting.add(stream);
    this.#makeRoomFor(stream.owner);
  }

  /** The stream may serve anybody now. It is looked at later in this turn: whoever freed it is not done with it yet. */
  offer(stream: OriginStream): void {
    queueMicrotask(() => this.#give(stream));
  }

  onClosing(stream: OriginStream): void {
    this.#closing.add(stream);
  }

  onGone(stream: OriginStream): void {
    this.#waiting.delete(stream);
    if (this.#closing.delete(stream) && this.#waiting.size > 0) this.#makeRoomFor(stream.owner);
  }

  /** To the first that waits for its tunnel; but if it is the turn of another tunnel's, it makes room for that one. */
  #give(stream: OriginStream): void {
    if (!stream.isIdle || !stream.claim.isCurrent) return;
    let closing = 0;
    for (const other of this.#closing) if (other.owner === stream.owner) closing++;
    for (const waiter of this.#waiting) {
      if (waiter.owner !== stream.owner || !this.#waits(waiter)) continue;
      if (waiter.tunnel === stream.tunnel && waiter.canMove) {
        this.#idle.unlist(stream);
        return waiter.moveTo(stream);
      }
      if (closing-- <= 0) return stream.giveUp();
    }
  }

  #makeRoomFor(owner: string): void {
    const isOwners: Test = (stream) => stream.owner === owner;
    for (let unserved = this.#unserved(isOwners); unserved > 0; unserved--) if (!this.#giveUp(isOwners)) return;
  }

  /** How many more wait than are on their way out. */
  #unserved(isMeant: Test): number {
    let count = 0;
    for (const stream of this.#waiting) if (isMeant(stream) && this.#waits(stream)) count++;
    for (const stream of this.#closing) if (isMeant(stream)) count--;
    return count;
  }

  #waits(stream: OriginStream): boolean {
    if (!stream.isWaiting) this.#waiting.delete(stream);
    return stream.isWaiting;
  }

  #giveUp(isMeant: Test): boolean {
    const oldest = this.#idle.oldestIdle(isMeant);
    oldest?.giveUp();
    return oldest !== undefined;
  }
}
