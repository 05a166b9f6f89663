/**
 * Notices that a link, or one of its lanes, is dead. Only complete frames count as signs of life, so a peer that
 * dribbles bytes is dead too. A link may also be dead in one direction only: a PING that stays without an answer is said
 * again, which tells a peer whose answers are lost that it is not heard. One timer per link; an idle link costs one PING
 * every two seconds.
 */

import type { Clock, Timer } from "../core/clock.ts";
import type { Limits } from "../core/limits.ts";

/** The round trip is measured although the link is not silent: the windows of its streams follow it. */
const measureFirstMs = 1_000;
const measureEveryMs = 4_000;
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
  /** The lanes are streams of one connection: one that is silent alone most likely waits for its turn. */
  readonly lanesShareLine: boolean;
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
  #measureNextMs = measureFirstMs;
  #suspectedMs: number | undefined;
  /** No sign of life for so long is death. */
  #deadAfterMs: number;
  /** When a silent link was last asked. */
  #askedMs = Number.NEGATIVE_INFINITY;
  #peerAsked: { readonly lane: WatchedLane; readonly atMs: number } | undefined;
  /** Where and since when a PONG is awaited because the peer seemed not to hear us. */
  #unheard: { readonly lane: WatchedLane; readonly atMs: number } | undefined;
  /** When that was last asked. */
  #wonderedMs = Number.NEGATIVE_INFINITY;
  isInDoubt = false;
  /** Smoothed round trip. */
  rttMs: number | undefined;

  constructor(options: LivenessOptions) {
    this.#options = options;
    this.#measuredMs = Number.NEGATIVE_INFINITY;
    this.#deadAfterMs = options.limits.linkDeadAfterMs;
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

  /** The peer is known to live: asks at once whether this way is open, and gives it longer than usual to open again. */
  bear(): void {
    if (this.#timer === undefined) return;
    this.#timer.cancel();
    this.#deadAfterMs = Math.max(this.#deadAfterMs, this.#options.limits.retiredDeadAfterMs);
    const nowMs = this.#options.clock.nowMs();
    const first = this.#options.lanes()[0];
    if (first !== undefined && first.pingedMs === undefined) this.#ping(first, nowMs);
    this.#tick();
  }

  /** The peer sent PING. It says so again only when it has heard nothing in between: is our way to it open? */
  onPeerPing(lane: WatchedLane): void {
    const atMs = this.#options.clock.nowMs();
    const { pingAfterMs } = this.#options.limits;
    const isAgain = this.#peerAsked?.lane === lane && atMs - this.#peerAsked.atMs < pingAfterMs;
    this.#peerAsked = { lane, atMs };
    // The peer may wonder about our PING in turn: both ask only now and then.
    if (!isAgain || this.#unheard !== undefined || atMs - this.#wonderedMs < pingAfterMs) return;
    this.#unheard = { lane, atMs };
    this.#wonderedMs = atMs;
    lane.ping(atMs);
  }

  /**
   * A PONG: the peer hears us. Smoothed; what is shorter than expected counts more: the first samples are taken while the
   * link is being set up, and one after a cut lasts as long as the cut.
   */
  onRoundTrip(sampleMs: number): void {
    this.#unheard = undefined;
    if (sampleMs < 0 || sampleMs >= this.#options.limits.linkDeadAfterMs) return;
    const weight = this.rttMs === undefined ? 1 : sampleMs < this.rttMs ? 0.5 : 0.25;
    this.rttMs = (this.rttMs ?? 0) * (1 - weight) + sampleMs * weight;
  }

  #tick(): void {
    const { clock, limits, lanes, onLaneDead, onLinkDead, onDoubt } = this.#options;
    const nowMs = clock.nowMs();
    let heardMs = Number.NEGATIVE_INFINITY;
    for (const lane of lanes()) heardMs = Math.max(heardMs, lane.heardMs);
    // A PING that was lost with its lane has no answer; a peer that does not hear us says so on another.
    if (this.#unheard !== undefined && !lanes().includes(this.#unheard.lane)) this.#unheard = undefined;
    const deadMs = this.#deadMs(heardMs);
    if (nowMs >= deadMs) return onLinkDead();
    let nextMs = Math.min(nowMs + tickMs, deadMs);
    const dead: WatchedLane[] = [];
    for (const [at, lane] of lanes().entries()) {
      lane.nudge();
      this.#probe(lane, { nowMs, isFirst: at === 0, isLinkSilent: nowMs - heardMs >= limits.pingAfterMs });
      if (lane.pingedMs === undefined) continue;
      const deadlineMs = this.#laneDeadMs(lane.heardMs, lane.pingedMs);
      if (nowMs >= deadlineMs) dead.push(lane);
      else nextMs = Math.min(nextMs, deadlineMs);
    }
    const doubtMs = this.#doubtMs(heardMs);
    if (nowMs < doubtMs) nextMs = Math.min(nextMs, doubtMs);
    this.#timer = clock.after(Math.max(1, nextMs - nowMs), () => this.#tick());
    for (const lane of dead) onLaneDead(lane);
    const wasInDoubt = this.isInDoubt;
    this.isInDoubt = nowMs >= doubtMs;
    if (this.isInDoubt && !wasInDoubt) onDoubt();
  }

  /** When the link is in doubt: counted from the first PING since anything was heard. */
  #doubtMs(heardMs: number): number {
    let askedMs = Number.POSITIVE_INFINITY;
    for (const { pingedMs } of this.#options.lanes()) {
      if (pingedMs !== undefined && pingedMs >= heardMs) askedMs = Math.min(askedMs, pingedMs);
    }
    const sinceMs = Math.min(askedMs, this.#unheard?.atMs ?? Number.POSITIVE_INFINITY);
    return sinceMs + Math.max(this.#options.limits.doubtAfterMs, doubtAfterRoundTrips * (this.rttMs ?? 0));
  }

  /** When a lane is dead, unless it is heard: on a slow line its answer may wait behind much else. */
  #laneDeadMs(heardMs: number, pingedMs: number): number {
    const { limits, lanesShareLine } = this.#options;
    const deadAfterMs = lanesShareLine ? limits.sharedLaneDeadAfterMs : this.#deadAfterMs;
    const patienceMs = Math.max(deadAfterMs / 2, doubtAfterRoundTrips * (this.rttMs ?? 0));
    return Math.max(heardMs + deadAfterMs, pingedMs + patienceMs);
  }

  /** When the link is dead, unless it is heard. */
  #deadMs(heardMs: number): number {
    if (this.#suspectedMs !== undefined && heardMs > this.#suspectedMs) this.#suspectedMs = undefined;
    const deadMs = heardMs + this.#deadAfterMs;
    if (this.#suspectedMs === undefined) return deadMs;
    return Math.min(deadMs, this.#suspectedMs + this.#options.limits.suspectDeadAfterMs);
  }

  /** Asks for a sign of life where one is missing: on the first lane for the link, on any other that is in use. */
  #probe(lane: WatchedLane, { nowMs, isFirst, isLinkSilent }: ProbeReason): void {
    const { pingAfterMs, doubtAfterMs } = this.#options.limits;
    const isSilent = nowMs - lane.heardMs >= pingAfterMs;
    const isMissing = isSilent && (lane.awaitsPeer || (isFirst && isLinkSilent));
    const wantsSample = isFirst && nowMs - this.#measuredMs >= this.#measureNextMs;
    // Two in short order say that the link is silent, so nothing else may look like that.
    const wantsAgain = isFirst && isLinkSilent && nowMs - this.#askedMs >= doubtAfterMs;
    const wasAsked = lane.pingedMs !== undefined || (isFirst && nowMs - this.#askedMs < pingAfterMs);
    if (!wantsAgain && (wasAsked || !(wantsSample || isMissing))) return;
    if (isFirst) this.#measuredMs = this.#askedMs = nowMs;
    if (wantsSample) this.#measureNextMs = Math.min(2 * this.#measureNextMs, measureEveryMs);
    this.#ping(lane, nowMs);
  }

  #ping(lane: WatchedLane, nowMs: number): void {
    lane.pingedMs ??= nowMs;
    lane.ping(nowMs);
  }
}

interface ProbeReason {
  readonly nowMs: number;
  readonly isFirst: boolean;
  readonly isLinkSilent: boolean;
}
