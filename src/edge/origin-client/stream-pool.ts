/**
 * The streams that wait for another request, by tunnel. Of those on the least loaded lane the one used last goes first,
 * so the others grow old and retire; a stream that authenticated its visitor waits apart and serves that visitor's connection only.
 * Rule kept: no stream takes a request once its link's claim on the tunnel is over, whoever told or did not tell the pool.
 */

import type { Clock } from "../../core/clock.ts";
import type { Limits } from "../../core/limits.ts";
import type { VisitorConnection } from "../../http/exchange.ts";
import type { TunnelEntry } from "../../ports/tunnel-directory.ts";
import type { Deadlines } from "./deadlines.ts";
import { idleTimeMs } from "./keep-alive.ts";
import type { OriginStream, StreamKeeper } from "./origin-stream.ts";
import { type IdleStreams, WaitingStreams } from "./waiting-streams.ts";

export interface StreamPoolOptions {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly deadlines: Deadlines<OriginStream>;
  /** Which link is to carry the next request, where there are several. */
  readonly choose: (tunnel: string) => string | undefined;
}

/** Idle streams that are compared by the load of their lanes. */
const streamsLookedAt = 64;
/** A lane with more on the way than this carries bulk. */
const bulkLoadBytes = 32 * 1024;
/** With so many idle streams behind bulk, one of them is taken all the same. */
const idleBehindBulkMax = 64;

/** The stream that is looked for. */
interface Wanted {
  readonly tunnel: TunnelEntry;
  readonly nowMs: number;
  /** Undefined: any link. */
  readonly linkId: string | undefined;
}

export class StreamPool implements StreamKeeper, IdleStreams {
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #deadlines: Deadlines<OriginStream>;
  readonly #choose: (tunnel: string) => string | undefined;
  readonly #idle = new Map<string, OriginStream[]>();
  readonly #pins = new Map<VisitorConnection, OriginStream[]>();
  readonly #retiredLinks = new Set<string>();
  readonly #waiting = new WaitingStreams(this);
  #isClosed = false;

  constructor({ clock, limits, deadlines, choose }: StreamPoolOptions) {
    this.#choose = choose;
    this.#clock = clock;
    this.#limits = limits;
    this.#deadlines = deadlines;
  }

  /** Streams that idle for a tunnel and may serve anybody. */
  idleCount(tunnel: string): number {
    return this.#idle.get(tunnel)?.length ?? 0;
  }

  /** A stream that may serve this visitor now, or undefined. */
  take(tunnel: TunnelEntry, connection: VisitorConnection, nowMs: number): OriginStream | undefined {
    if (this.#pins.size > 0) {
      const pinned = this.#pop(this.#pins.get(connection), { tunnel, nowMs, linkId: undefined });
      if (pinned !== undefined) return pinned;
    }
    const idle = this.#idle.get(tunnel.name);
    return idle === undefined ? undefined : this.#pop(idle, { tunnel, nowMs, linkId: this.#choose(tunnel.name) });
  }

  /** Watches a stream that was just dialled. */
  add(stream: OriginStream): void {
    this.#deadlines.watch(stream);
  }

  /** The stream was just dialled, and there is no room for it yet. */
  wait(stream: OriginStream): void {
    this.#waiting.add(stream);
  }

  /** Gives up an idle stream of a link that is full. False when none is on its way out. */
  makeRoom(linkId: string): boolean {
    return this.#waiting.makeRoom(linkId);
  }

  /** From now on the stream serves this visitor's connection only. */
  pin(stream: OriginStream, connection: VisitorConnection): void {
    if (stream.pinnedTo !== undefined) return;
    stream.pinnedTo = connection;
    if (this.#pins.has(connection)) return;
    const idle: OriginStream[] = [];
    this.#pins.set(connection, idle);
    connection.onClose(() => {
      this.#pins.delete(connection);
      for (const stream of idle) stream.retire();
    });
  }

  /** Nothing new goes over this link: it drains, or lost the right to serve. */
  retireLink(linkId: string): void {
    this.#retiredLinks.add(linkId);
    if (this.#retiredLinks.size > this.#limits.retiredLinks) {
      for (const oldest of this.#retiredLinks) {
        this.#retiredLinks.delete(oldest);
        break;
      }
    }
    this.#retire((stream) => stream.linkId === linkId);
  }

  /** What the link owes may be had from another. */
  forsakeLink(linkId: string): void {
    for (const stream of this.#deadlines.watched) if (stream.linkId === linkId) stream.forsake();
  }

  /** A link lost its claim on the tunnel: its idle streams go now. */
  retireTunnel(name: string): void {
    this.#retire((stream) => stream.tunnel === name && !stream.claim.isCurrent);
  }

  /** Idle streams go now, busy ones when they are done. */
  close(): void {
    this.#isClosed = true;
    this.#retire(() => true);
  }

  onFree(stream: OriginStream): void {
    const { keepAliveMs, roundTripMs, pinnedTo } = stream;
    const idleMs = idleTimeMs({ keepAliveMs, roundTripMs, isPinned: pinnedTo !== undefined }, this.#limits);
    const home = this.#homeOf(stream);
    if (idleMs <= 0 || home === undefined || home.length >= this.#limits.pooledIdlePerTunnel) return stream.retire();
    stream.dueMs = this.#clock.nowMs() + idleMs;
    home.push(stream);
    if (this.#waiting.size > 0 && pinnedTo === undefined) this.#waiting.offer(stream);
  }

  onRetired(stream: OriginStream): void {
    this.unlist(stream);
    this.#waiting.onClosing(stream);
  }

  onGone(stream: OriginStream): void {
    this.unlist(stream);
    this.#deadlines.unwatch(stream);
    this.#waiting.onGone(stream);
  }

  /** Streams that are pinned are left to their visitors, who would have to authenticate again. */
  oldestIdle(isMeant: (stream: OriginStream) => boolean): OriginStream | undefined {
    let oldest: OriginStream | undefined;
    for (const idle of this.#idle.values()) {
      const first = idle.find(isMeant);
      if (first !== undefined && (oldest === undefined || first.dueMs < oldest.dueMs)) oldest = first;
    }
    return oldest;
  }

  unlist(stream: OriginStream): void {
    const idle = stream.pinnedTo === undefined ? this.#idle.get(stream.tunnel) : this.#pins.get(stream.pinnedTo);
    if (idle === undefined) return;
    const at = idle.indexOf(stream);
    if (at >= 0) idle.splice(at, 1);
    if (idle.length === 0 && stream.pinnedTo === undefined) this.#idle.delete(stream.tunnel);
  }

  #homeOf(stream: OriginStream): OriginStream[] | undefined {
    if (this.#isClosed || !stream.claim.isCurrent || this.#retiredLinks.has(stream.linkId)) return undefined;
    if (stream.pinnedTo !== undefined) return this.#pins.get(stream.pinnedTo);
    let idle = this.#idle.get(stream.tunnel);
    if (idle === undefined) {
      idle = [];
      this.#idle.set(stream.tunnel, idle);
    }
    return idle;
  }

  #pop(idle: OriginStream[] | undefined, { tunnel, nowMs, linkId }: Wanted): OriginStream | undefined {
    if (idle === undefined) return undefined;
    let best: OriginStream | undefined;
    let bestAt = -1;
    let bestLoad = Infinity;
    let looks = streamsLookedAt;
    for (let i = idle.length - 1; i >= 0 && looks > 0; i--) {
      const stream = idle[i]!; // i is in range: retiring removes this one only
      if (stream.tunnel !== tunnel.name) continue; // a visitor's own streams may be for several tunnels
      if (stream.dueMs <= nowMs || !stream.claim.isCurrent) {
        stream.retire();
        if (best !== undefined) bestAt--; // it stood behind the one that went
        continue;
      }
      if (linkId !== undefined && stream.linkId !== linkId) continue;
      looks--;
      const load = stream.laneLoadBytes;
      if (load >= bestLoad) continue;
      best = stream;
      bestAt = i;
      bestLoad = load;
      if (load === 0) break;
    }
    if (best === undefined || this.#isWorthDialling(bestLoad, idle)) return undefined;
    if (bestAt === idle.length - 1) idle.pop();
    else idle.splice(bestAt, 1);
    return best;
  }

  /** Every idle stream looked at is behind bulk: a new one may open on a lane that is not. */
  #isWorthDialling(bestLoad: number, idle: readonly OriginStream[]): boolean {
    return bestLoad > bulkLoadBytes && idle.length < idleBehindBulkMax;
  }

  #retire(isUnwanted: (stream: OriginStream) => boolean): void {
    const lists = [...this.#idle.values(), ...this.#pins.values()];
    for (const stream of lists.flat()) if (isUnwanted(stream)) stream.retire();
  }
}
