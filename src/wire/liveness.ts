/**
 * Notices that a link, or one of its lanes, is dead. Only complete frames count as signs of life, so a peer that
 * dribbles bytes is dead too. One timer per link; an idle link costs one PING every two seconds.
 */

import type { Clock, Timer } from "../core/clock.ts";
import type { Limits } from "../core/limits.ts";

/** How often the round trip is measured although the link is not silent. */
const measureEveryMs = 10_000;
const tickMs = 500;
/** A PING puts the link in doubt only when it has waited for several round trips, too. */
const doubtAfterRoundTrips = 4;

/** A lane as liveness sees it. */
export interface WatchedLane {
  /** When the last complete frame arrived. */
  readonly heardMs: number;
  /** When we asked and have heard nothing since; undefined otherwise. */
  pingedMs: number | undefined;
  /** Something of ours is on the way, so the peer has a reason to answer. */
  readonly awaitsPeer: boolean;
  ping(stampMs: number): void;
  /** Says what is owed. */
  nudge(): void;
}

export interface LivenessOptions {
  readonly clock: Clock;
  readonly limits: Limits;
  /** Live lanes, the one that carries control first. */
  readonly lanes: () => readonly WatchedLane[];
  readonly onLaneDead: (lane: WatchedLane) => void;
  readonly onLinkDead: () => void;
  /** A PING stays without an answer; the link may still recover. Once for each silence. */
  readonly onDoubt: () => void;
}

export class Liveness {
  readonly #options: LivenessOptions;
  #timer: Timer | undefined;
  #measuredMs: number;
  #suspectedMs: number | undefined;
  #isInDoubt = false;
  /** Smoothed round trip. */
  rttMs: number | undefined;

  constructor(options: LivenessOptions) {
    this.#options = options;
    this.#measuredMs = Number.NEGATIVE_INFINITY;
  }

  start(): void {
    this.#tick();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Somebody else speaks for the peer now: asks at once whether it is still there, and waits less long than usual. */
  suspect(): void {
    if (this.#timer === undefined) return;
    this.#timer.cancel();
    const nowMs = this.#options.clock.nowMs();
    this.#suspectedMs ??= nowMs;
    this.#options.lanes()[0]?.ping(nowMs);
    this.#tick();
  }

  /** RFC 6298's smoothing. */
  onRoundTrip(sampleMs: number): void {
    this.rttMs = this.rttMs === undefined ? sampleMs : this.rttMs * 0.875 + sampleMs * 0.125;
  }

  #tick(): void {
    const { clock, limits, lanes, onLaneDead, onLinkDead, onDoubt } = this.#options;
    const nowMs = clock.nowMs();
    let heardMs = Number.NEGATIVE_INFINITY;
    for (const lane of lanes()) heardMs = Math.max(heardMs, lane.heardMs);
    const deadMs = this.#deadMs(heardMs);
    if (nowMs >= deadMs) return onLinkDead();
    let nextMs = Math.min(nowMs + tickMs, deadMs);
    const dead: WatchedLane[] = [];
    for (const [at, lane] of lanes().entries()) {
      lane.nudge();
      this.#probe(lane, { nowMs, isFirst: at === 0, isLinkSilent: nowMs - heardMs >= limits.pingAfterMs });
      if (lane.pingedMs === undefined) continue;
      const deadlineMs = Math.max(lane.heardMs + limits.linkDeadAfterMs, lane.pingedMs + limits.linkDeadAfterMs / 2);
      if (nowMs >= deadlineMs) dead.push(lane);
      else nextMs = Math.min(nextMs, deadlineMs);
    }
    const doubtMs = this.#doubtMs(heardMs);
    if (nowMs < doubtMs) nextMs = Math.min(nextMs, doubtMs);
    this.#timer = clock.after(Math.max(1, nextMs - nowMs), () => this.#tick());
    for (const lane of dead) onLaneDead(lane);
    const wasInDoubt = this.#isInDoubt;
    this.#isInDoubt = nowMs >= doubtMs;
    if (this.#isInDoubt && !wasInDoubt) onDoubt();
  }

  /** When the link is in doubt: counted from the first PING since anything was heard. */
  #doubtMs(heardMs: number): number {
    let askedMs = Number.POSITIVE_INFINITY;
    for (const { pingedMs } of this.#options.lanes()) {
      if (pingedMs !== undefined && pingedMs >= heardMs) askedMs = Math.min(askedMs, pingedMs);
    }
    return askedMs + Math.max(this.#options.limits.doubtAfterMs, doubtAfterRoundTrips * (this.rttMs ?? 0));
  }

  /** When the link is dead, unless it is heard. */
  #deadMs(heardMs: number): number {
    if (this.#suspectedMs !== undefined && heardMs > this.#suspectedMs) this.#suspectedMs = undefined;
    const { linkDeadAfterMs, suspectDeadAfterMs } = this.#options.limits;
    const deadMs = heardMs + linkDeadAfterMs;
    return this.#suspectedMs === undefined ? deadMs : Math.min(deadMs, this.#suspectedMs + suspectDeadAfterMs);
  }

  /** Asks for a sign of life where one is missing: on the first lane for the link, on any other that is in use. */
  #probe(lane: WatchedLane, { nowMs, isFirst, isLinkSilent }: ProbeReason): void {
    const isSilent = nowMs - lane.heardMs >= this.#options.limits.pingAfterMs;
    const isMissing = isSilent && (lane.awaitsPeer || (isFirst && isLinkSilent));
    const wantsSample = isFirst && nowMs - this.#measuredMs >= measureEveryMs;
    if (!wantsSample && (!isMissing || lane.pingedMs !== undefined)) return;
    lane.pingedMs ??= nowMs;
    if (isFirst) this.#measuredMs = nowMs;
    lane.ping(nowMs);
  }
}

interface ProbeReason {
  readonly nowMs: number;
  readonly isFirst: boolean;
  readonly isLinkSilent: boolean;
}
