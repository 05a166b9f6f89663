/**
 * Shares one QUIC connection between its lanes. The library under node:quic serves the stream that was opened first for
 * as long as that has anything to send: one busy lane would starve all later ones for ever, their PINGs included. So a
 * lane hands its bytes on only while no other lane's have waited for too long; then those are the only ones left to send.
 * And all lanes together hand on no more than leaves in a moment: on a slow line everything else waits for that.
 * The library keeps what is less than a packet, says that it was sent, and sends it when no stream before it has anything:
 * so once a moment it is left to run dry.
 */

import type { Clock } from "../../core/clock.ts";
import { LineRate } from "./line-rate.ts";

/** A lane as this file sees it. */
export interface TurnTaker {
  /** Bytes that node:quic took from the lane and has not sent yet. */
  readonly unsentBytes: number;
  /** The lower, the sooner the library serves it. */
  readonly order: number;
  /** The lane may write now. */
  onTurn(): void;
}

/** So many bytes of others may overtake what a lane has handed on, fewer on a slow line. */
const overtakeBytes = 128 * 1024;
/** What may be handed on and not sent yet: as much as the connection sends in so long, or a few packets' worth. */
const aheadMs = 50;
const aheadLeastBytes = 16 * 1024;
/** More than all lanes have to hand on. */
const aheadPlentyBytes = 2 * 1024 * 1024;
/** Less is not worth a turn. */
const turnLeastBytes = 8 * 1024;
/** What the library may keep of a lane's last write, and for how long at most it is left to send nothing else. */
const endBytes = 1_500;
const endsMostMs = 500;
/** After that, others have the connection for so many times as long: downloads keep most of a slow line. */
const restTimes = 3;
/** With no more than a packet of each lane and this unsent, or a part of a moment's worth, the library is soon dry. */
const dryMostBytes = 4 * 1024;
/** Writes up to this, behind no more than this, wait for nobody: control frames and small requests. */
const smallBytes = 4 * 1024;
/** node:quic does not tell when a small write has been sent, so waiting lanes look; ever less often while nothing moves. */
const lookLeastMs = 1;
const lookMostMs = 16;
const looksPerPause = 64;

export class SendTurns {
  readonly #clock: Clock;
  #handedBytes = 0;
  /** Lanes with unsent bytes, those that have waited longest first, with what had been handed on before them. */
  readonly #unsent = new Map<TurnTaker, number>();
  /** Lanes that have nothing more, whose last bytes may not have left, with what had been handed on before those. */
  readonly #ends = new Map<TurnTaker, number>();
  /** Those for which the library has run dry once, which is not certain to have been enough. */
  readonly #triedEnds = new Set<TurnTaker>();
  /** Lanes that may not write now, in the order in which they asked. */
  readonly #waiting = new Set<TurnTaker>();
  /** The lane whose turn it is. */
  #next: TurnTaker | undefined;
  #isLooking = false;
  /** When a lane last handed bytes on, or had sent some. */
  #movedMs: number;
  #aheadBytes = aheadLeastBytes;
  readonly #rate: LineRate;
  /** Running dry: since when, with how much to go, down to what. */
  #drying: { readonly sinceMs: number; readonly unsentBytes: number; readonly soonDryBytes: number } | undefined;
  /** Until when the library is left with nothing but the ends of writes. */
  #dryUntilMs: number | undefined;
  #dryForMs = 0;
  #restUntilMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#movedMs = clock.nowMs();
    this.#rate = new LineRate(this.#movedMs);
  }

  /** How many of `byteCount` bytes the lane may hand on now; 0: none, and `onTurn` is called later. */
  take(lane: TurnTaker, byteCount: number): number {
    const isSmall = byteCount <= smallBytes && lane.unsentBytes <= smallBytes;
    if (isSmall && !this.#waiting.has(lane)) return this.#takeAll(lane, byteCount);
    if (this.#waiting.size === 0) this.#drying = undefined; // nobody has looked how that went
    if (this.#waiting.size === 0 || this.#next === lane) {
      const roomBytes = this.#roomBytes(lane);
      if (roomBytes >= byteCount) return this.#takeAll(lane, byteCount);
      if (roomBytes > 0) {
        this.#forgetEnd(lane);
        return roomBytes;
      }
    }
    this.#forgetEnd(lane);
    this.#waiting.add(lane);
    this.#lookLater();
    return 0;
  }

  /** node:quic took so many bytes of the lane. */
  wrote(lane: TurnTaker, byteCount: number): void {
    this.#movedMs = this.#clock.nowMs();
    this.#handedBytes += byteCount;
    if (!this.#unsent.has(lane)) this.#unsent.set(lane, this.#handedBytes);
  }

  /** The lane has less unsent than before: what is left of it was handed on lately. */
  progressed(lane: TurnTaker): void {
    this.#movedMs = this.#clock.nowMs();
    this.#unsent.delete(lane);
    if (lane.unsentBytes > 0) this.#unsent.set(lane, this.#handedBytes);
    this.#serve();
  }

  /** The lane is over. */
  leave(lane: TurnTaker): void {
    this.#forgetEnd(lane);
    this.#unsent.delete(lane);
    this.#waiting.delete(lane);
    this.#serve();
  }

  /** The lane has nothing more, so nothing may push the end of this out. */
  #takeAll(lane: TurnTaker, byteCount: number): number {
    if (byteCount > smallBytes) this.#ends.delete(lane);
    if (!this.#ends.has(lane)) this.#ends.set(lane, this.#handedBytes);
    this.#triedEnds.delete(lane);
    return byteCount;
  }

  /** What the lane still has pushes it out, or it has left. */
  #forgetEnd(lane: TurnTaker): void {
    this.#ends.delete(lane);
    this.#triedEnds.delete(lane);
  }

  /** What the lane whose turn it is may hand on. hot: bench/quic.ts; asking a lane is a call into the library. */
  #roomBytes(lane: TurnTaker): number {
    const nowMs = this.#clock.nowMs();
    const isOvertaken = this.#overtakenBytes() >= Math.min(overtakeBytes, this.#aheadBytes);
    const mustRunDry = nowMs >= this.#restUntilMs && this.#mustRunDry(lane);
    if (!mustRunDry && !this.#rate.isDue(nowMs)) {
      if (isOvertaken) return 0;
      if (this.#aheadBytes >= aheadPlentyBytes) return aheadPlentyBytes;
    }
    let unsentBytes = 0;
    for (const other of this.#unsent.keys()) unsentBytes += other.unsentBytes;
    if (this.#dryUntilMs === undefined) this.#observe(nowMs, unsentBytes);
    if (!mustRunDry) this.#drying = undefined;
    else if (!this.#hasRunDry(nowMs, unsentBytes)) return 0;
    const roomBytes = isOvertaken ? 0 : this.#aheadBytes - unsentBytes;
    return roomBytes < turnLeastBytes ? 0 : roomBytes;
  }

  #observe(nowMs: number, unsentBytes: number): void {
    this.#rate.observe(nowMs, this.#handedBytes - unsentBytes, unsentBytes);
    this.#aheadBytes = Math.max(aheadLeastBytes, Math.floor((this.#rate.bytesPerMs ?? 0) * aheadMs));
  }

  /** By how much the lane that has waited longest was overtaken. */
  #overtakenBytes(): number {
    for (const [lane, handedBefore] of this.#unsent) {
      if (lane.unsentBytes > 0) return this.#handedBytes - handedBefore;
      this.#unsent.delete(lane);
    }
    return 0;
  }

  /** The end of a write was overtaken by a moment's worth of others, and this lane or one that waits goes first. */
  #mustRunDry(lane: TurnTaker): boolean {
    if (this.#dryUntilMs !== undefined) return true;
    for (const [ended, handedBefore] of this.#ends) {
      if (this.#handedBytes - handedBefore < this.#aheadBytes) return false;
      if (ended.order > lane.order) return true;
      for (const waiting of this.#waiting) if (ended.order > waiting.order) return true;
      this.#forgetEnd(ended); // nobody kept it from leaving
    }
    return false;
  }

  /**
   * The ends of all writes have left: the library was dry for as long as it takes to send them. How long that is shows
   * in how fast the last of the rest left; so with little of that, more is handed on first.
   */
  #hasRunDry(nowMs: number, unsentBytes: number): boolean {
    if (this.#dryUntilMs === undefined) {
      const packetsBytes = endBytes * Math.max(1, this.#unsent.size);
      const soonDryBytes = packetsBytes + Math.min(dryMostBytes, this.#aheadBytes / 16);
      if (this.#drying === undefined && unsentBytes < 2 * soonDryBytes) return true;
      const drying = (this.#drying ??= { sinceMs: nowMs, unsentBytes, soonDryBytes });
      if (unsentBytes > drying.soonDryBytes) return false;
      const bytesPerMs = (drying.unsentBytes - unsentBytes) / (nowMs - drying.sinceMs);
      const leftBytes = unsentBytes + (this.#ends.size + this.#waiting.size) * endBytes;
      this.#dryForMs = Math.min((leftBytes / bytesPerMs) * (this.#triedEnds.size > 0 ? 2 : 1), endsMostMs);
      this.#dryUntilMs = nowMs + this.#dryForMs;
      this.#drying = undefined;
      this.#markTried();
    }
    if (nowMs < this.#dryUntilMs) return false;
    this.#dryUntilMs = undefined;
    this.#restUntilMs = nowMs + restTimes * this.#dryForMs;
    this.#rate.skip(this.#dryForMs);
    return true;
  }

  /** Each end gets two tries. */
  #markTried(): void {
    const ends = [...this.#ends.keys()];
    this.#ends.clear();
    for (const lane of ends) {
      if (this.#triedEnds.delete(lane)) continue;
      this.#triedEnds.add(lane);
      this.#ends.set(lane, this.#handedBytes);
    }
  }

  #serve(): void {
    for (let next = this.#first(); next !== undefined && this.#roomBytes(next) > 0; next = this.#first()) {
      this.#waiting.delete(next);
      this.#next = next;
      next.onTurn();
      this.#next = undefined;
    }
  }

  #first(): TurnTaker | undefined {
    for (const lane of this.#waiting) return lane;
    return undefined;
  }

  #lookLater(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const pauseMs = (this.#clock.nowMs() - this.#movedMs) / looksPerPause;
    this.#clock.after(Math.min(Math.max(pauseMs, lookLeastMs), lookMostMs), () => {
      this.#isLooking = false;
      this.#serve();
      if (this.#waiting.size > 0) this.#lookLater();
    });
  }
}
