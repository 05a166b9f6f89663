/**
 * The exit node's half of a tunnel: it accepts agents' links, holds which of them serves which name, and dials origins
 * through them. Above it there are only `Dialer` and `TunnelDirectory`; below it only `Session`. Who may have a name,
 * what was revoked and how a probe travels is injected.
 */

import { sleep, type Clock } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import { FairSlots } from "../core/fair-slots.ts";
import type { LinkAuth, PeerIdentity } from "../core/identity.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { Scope } from "../core/scope.ts";
import type { Dialer } from "../ports/dialer.ts";
import type { Session } from "../ports/session.ts";
import type { TunnelDirectory, TunnelEntry } from "../ports/tunnel-directory.ts";
import { acceptLink, type Link, type LinkOptions } from "../wire/link.ts";
import type { ControlMessage } from "../wire/messages.ts";
import type { WindowBudget } from "../wire/window-budget.ts";
import type { ClaimPolicy } from "./claims.ts";
import { createLinkDialer } from "./link-dialer.ts";
import { describeLink, type ExitEvent, type LinkInfo } from "./link-info.ts";
import { LinkRequests, type ProbeResult, requestCost } from "./link-requests.ts";
import { PendingLinks } from "./pending-links.ts";
import { TunnelTable, type LinkState } from "./tunnel-table.ts";

export interface ExitOptions {
  readonly auth: LinkAuth;
  readonly claims: ClaimPolicy;
  readonly publicUrl: (name: string) => string;
  /** The offline entry of a name that is reserved but not served; undefined when nobody has it. */
  readonly findReserved: (name: string) => TunnelEntry | undefined | Promise<TunnelEntry | undefined>;
  readonly isRevoked: (peer: PeerIdentity) => boolean | Promise<boolean>;
  /** Sends one request for the tunnel through the public listener. */
  readonly probe: (name: string) => Promise<ProbeResult>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  readonly budget: WindowBudget;
  /** Passed on to the links: how the frames of one turn of the event loop are gathered. */
  readonly schedule?: (task: () => void) => void;
  readonly onEvent?: (event: ExitEvent) => void;
  readonly random?: () => number;
  /** Default one hour. */
  readonly certificateGraceMs?: number;
  /** Tests replace the handshake. */
  readonly accept?: typeof acceptLink;
}

export interface Exit {
  readonly dialer: Dialer;
  readonly directory: TunnelDirectory;
  /** Takes a transport's new connection; what goes wrong with it ends it, and is an event. */
  acceptSession(session: Session): void;
  links(): LinkInfo[];
  /** Ends at once the links, with their streams, whose peer matches. Returns how many. */
  revoke(matches: (peer: PeerIdentity) => boolean): number;
  /** Takes a name off every link that serves it; its agents are told that they were replaced. False when none does. */
  closeTunnel(name: string): boolean;
  /** Tells the agents to link elsewhere; nothing new is accepted, but streams may still be opened. */
  announceDrain(graceMs: number): void;
  /** Announces, opens no new streams, waits for the running ones up to the grace, then closes. */
  drain(graceMs: number): Promise<void>;
  close(): Promise<void>;
}

/** Served names have their leases extended this often. */
const touchEveryMs = 10 * 60_000;

export function createExit(options: ExitOptions): Exit {
  return new ExitNode(options);
}

class ExitNode implements Exit {
  readonly dialer: Dialer;
  readonly directory: TunnelDirectory;
  readonly #options: ExitOptions;
  readonly #certificateGraceMs: number;
  readonly #table = new TunnelTable();
  readonly #links = new Map<Link, LinkState>();
  /** Links that closed before their handshake's promise was seen. */
  readonly #closed = new WeakSet<Link>();
  readonly #requests: LinkRequests;
  readonly #scope: Scope;
  readonly #pending: PendingLinks;
  /** Who has many links has none at the cost of others. */
  readonly #places: FairSlots;
  #sequence = 0;
  #isDraining = false;
  #whenEmpty: (() => void)[] = [];

  constructor(options: ExitOptions) {
    this.#options = options;
    const { clock, log, limits, publicUrl } = options;
    this.#certificateGraceMs = options.certificateGraceMs ?? 60 * 60_000;
    this.#pending = new PendingLinks(limits.pendingHandshakes);
    this.#places = new FairSlots(limits.links, "newest");
    this.#scope = new Scope(log);
    this.dialer = createLinkDialer({
      table: this.#table,
      clock,
      certificateGraceMs: this.#certificateGraceMs,
      isNodeDraining: () => this.#isDraining,
      isRevoked: (peer) => options.isRevoked(peer),
      random: options.random ?? Math.random,
    });
    this.directory = { lookup: (name) => this.#table.entry(name) ?? options.findReserved(name) };
    this.#requests = new LinkRequests({
      claims: {
        policy: options.claims,
        table: this.#table,
        limits,
        publicUrl,
        isAccepting: (state) => !this.#isDraining && this.#links.has(state.link),
        onClaimed: ({ name, state }) => this.#emit({ event: "claimed", name, link: this.#info(state) }),
        onRefused: (state, refused) => this.#emit({ event: "refused", refused, link: this.#info(state) }),
        onReplaced: ({ name, state }) => this.#emit({ event: "replaced", name, link: this.#info(state) }),
        onDraining: (state) => this.#emit({ event: "link-draining", link: this.#info(state) }),
        onSilent: (state) => this.#emit({ event: "link-silent", link: this.#info(state) }),
      },
      probe: options.probe,
      onReleased: (state, name) => this.#emit({ event: "released", name, link: this.#info(state) }),
      clock,
      limits,
      scope: this.#scope,
      schedule: options.schedule ?? queueMicrotask,
    });
    this.#scope.run("the check of live links", (signal) => this.#watch(signal));
    this.#scope.run("the extension of leases", (signal) => this.#touch(signal));
  }

  acceptSession(session: Session): void {
    if (this.#isDraining || this.#scope.isClosed) return session.close(new SallyError("DRAINING"));
    const leave = this.#pending.take(session);
    if (leave === undefined) return;
    this.#scope.run("accepting a link", async (signal) => {
      try {
        const link = await this.#handshake(session, signal);
        this.#stateOf(link);
      } catch (thrown) {
        const error = toSallyError(thrown);
        this.#emit({ event: "handshake-failed", remote: session.remote, error });
        session.close(error);
      } finally {
        leave();
      }
    });
  }

  links(): LinkInfo[] {
    return [...this.#links.values()].map((state) => this.#info(state));
  }

  revoke(matches: (peer: PeerIdentity) => boolean): number {
    const hit = [...this.#links.values()].filter((state) => matches(state.link.peer));
    for (const state of hit) this.#revokeLink(state);
    return hit.length;
  }

  closeTunnel(name: string): boolean {
    const members = [...(this.#table.members(name) ?? [])];
    for (const { state } of members) {
      this.#requests.release(state, [name]);
      state.link.send({ type: "replaced", names: [name] });
    }
    return members.length > 0;
  }

  announceDrain(graceMs: number): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    for (const { link } of this.#links.values()) link.send({ type: "drain", graceMs });
  }

  async drain(graceMs: number): Promise<void> {
    this.announceDrain(graceMs);
    for (const { link } of this.#links.values()) link.drain();
    if (this.#links.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = this.#options.clock.after(graceMs, resolve);
        this.#whenEmpty.push(() => {
          timer.cancel();
          resolve();
        });
      });
    }
    await this.close();
  }

  async close(): Promise<void> {
    this.#isDraining = true;
    const closing = this.#scope.close();
    for (const { link } of this.#links.values()) link.close(new SallyError("DRAINING"));
    await closing;
  }

  #handshake(session: Session, signal: AbortSignal): Promise<Link> {
    const { accept = acceptLink, auth, clock, log, limits, budget, schedule } = this.#options;
    const callbacks: LinkOptions = {
      clock,
      log,
      budget,
      limits,
      onStream: (stream, link) => {
        stream.refuse(new SallyError("FORBIDDEN", "An agent opens no streams."));
        this.#requests.charge(link, requestCost.stream);
      },
      onMessage: (message, link) => this.#onMessage(message, link),
      onDoubt: (link) => this.#onDoubt(link),
      onDrain: (link) => this.#onDrain(link),
      onClose: (error, link) => this.#onClose(error, link),
      ...(schedule === undefined ? {} : { schedule }),
    };
    return accept(session, auth, callbacks, signal);
  }

  /** Registers a link when it is first seen: a message may arrive before the handshake's promise does. */
  #stateOf(link: Link): LinkState | undefined {
    const known = this.#links.get(link);
    if (known !== undefined) return known;
    if (this.#closed.has(link)) return undefined;
    const state: LinkState = {
      link,
      sequence: ++this.#sequence,
      connectedMs: this.#options.clock.nowMs(),
      headroom: 1,
      isDraining: false,
      isSuperseded: false,
      memberships: new Map(),
      leavePlace: () => {},
    };
    this.#links.set(link, state);
    this.#emit({ event: "link-up", link: this.#info(state) });
    this.#takePlace(state);
    if (this.#scope.isClosed) link.close(new SallyError("DRAINING"));
    else if (this.#isDraining) {
      link.send({ type: "drain", graceMs: 0 });
      link.drain();
    }
    return state;
  }

  /** By identity. Who loses a place gives up an older link of the same laptop instead, if that is of no more use. */
  #takePlace(state: LinkState): void {
    const { peer } = state.link;
    let isIn = true;
    const leave = this.#places.take(peer.identity, () => {
      isIn = false;
      const error = new SallyError("OVERLOADED", "This node holds as many links as it may.");
      const older = this.#olderOf(state);
      if (older === undefined) return state.link.close(error);
      older.link.close(error);
      this.#takePlace(state);
    });
    if (isIn) state.leavePlace = leave;
  }

  #olderOf({ link, sequence }: LinkState): LinkState | undefined {
    for (const other of this.#links.values()) {
      const isSame = other.link.peer.keyFingerprint === link.peer.keyFingerprint && other.sequence < sequence;
      // Of the same process it will be replaced; one of another, which may be a sibling, has to be silent.
      const isReplaced = other.link.peerProcess === link.peerProcess && other.link.streamCount === 0;
      if (isSame && (isReplaced || other.link.isInDoubt) && !other.link.isClosed) return other;
    }
    return undefined;
  }

  #onDoubt(link: Link): void {
    const state = this.#links.get(link);
    if (state?.isSuperseded === true && link.streamCount > 0)
      this.#emit({ event: "link-silent", link: this.#info(state) });
  }

  #onDrain(link: Link): void {
    const state = this.#links.get(link);
    if (state !== undefined) this.#emit({ event: "link-draining", link: this.#info(state) });
  }

  #onClose(error: SallyError | undefined, link: Link): void {
    this.#closed.add(link);
    const state = this.#links.get(link);
    if (state === undefined) return;
    const info = this.#info(state);
    state.isDraining = true;
    state.leavePlace();
    this.#links.delete(link);
    this.#table.removeLink(state);
    this.#emit({ event: "link-down", link: info, error });
    if (this.#links.size > 0) return;
    for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }

  #onMessage(message: ControlMessage, link: Link): void {
    const state = this.#stateOf(link);
    if (state === undefined) return;
    this.#requests.charge(link, requestCost.message);
    if (link.isClosed) return;
    switch (message.type) {
      case "claim":
        return this.#requests.claim(state, message);
      case "release":
        return this.#requests.release(state, message.names);
      case "headroom":
        state.headroom = message.value;
        return;
      case "origin":
        return this.#setOrigin(state, message.name, message.state);
      case "probe":
        return this.#requests.probe(state, message);
      case "claimed":
      case "probed":
      case "drain":
      case "replaced":
      case "revoked":
        return link.close(new SallyError("PROTOCOL_VIOLATION", `An agent does not send "${message.type}".`));
    }
  }

  #setOrigin(state: LinkState, name: string, origin: "up" | "down"): void {
    const membership = state.memberships.get(name);
    if (membership === undefined || membership.isOriginUp === (origin === "up")) return;
    membership.isOriginUp = origin === "up";
    this.#emit({ event: "origin", name, state: origin, link: this.#info(state) });
  }

  #revokeLink(state: LinkState): void {
    if (!this.#links.has(state.link)) return;
    this.#emit({ event: "revoked", link: this.#info(state) });
    state.isDraining = true;
    const error = new SallyError("CERTIFICATE_REVOKED");
    state.link.send({ type: "revoked", message: error.message });
    state.link.close(error);
  }

  /** Ends links whose certificate was revoked, or expired without a renewal, while they were up. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { clock, limits, log } = this.#options;
    for (;;) {
      await sleepUntilAborted(clock, limits.revocationPollMs, signal);
      if (signal.aborted) return;
      try {
        for (const state of this.#links.values()) await this.#check(state);
      } catch (error) {
        log.error("revocations could not be read: live links are kept until they can", { error: String(error) });
      }
    }
  }

  async #check(state: LinkState): Promise<void> {
    const { link } = state;
    const expiredMs = this.#options.clock.wallMs() - this.#certificateGraceMs;
    if (expiredMs > link.peer.notAfterMs && expiredMs > this.#provenUntilMs(link.peer)) {
      state.isDraining = true;
      link.close(new SallyError("CERTIFICATE_INVALID", "The certificate expired: renew it and link again."));
    } else if (await this.#options.isRevoked(link.peer)) this.#revokeLink(state);
  }

  /** A download that outlasts its link's certificate goes on while the agent renews it: a newer link proves the same key. */
  #provenUntilMs({ keyFingerprint, notAfterMs }: PeerIdentity): number {
    let untilMs = notAfterMs;
    for (const { link } of this.#links.values()) {
      if (link.peer.keyFingerprint === keyFingerprint) untilMs = Math.max(untilMs, link.peer.notAfterMs);
    }
    return untilMs;
  }

  async #touch(signal: AbortSignal): Promise<void> {
    for (;;) {
      await sleepUntilAborted(this.#options.clock, touchEveryMs, signal);
      if (signal.aborted) return;
      const names = [...this.#table.liveNames()];
      if (names.length > 0) await this.#options.claims.touch(names);
    }
  }

  #emit(event: ExitEvent): void {
    this.#options.onEvent?.(event);
  }

  #info(state: LinkState): LinkInfo {
    return describeLink(state, this.#options.clock.nowMs());
  }
}

/** Unlike `sleep`, being aborted is not an error: the caller looks at the signal. */
async function sleepUntilAborted(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(clock, delayMs, signal);
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
  }
}
