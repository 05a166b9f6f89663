/**
 * Keeps one link to a node alive for ever: tries with backoff, replaces a lost link, moves to another node when this
 * one drains, and returns from WebSocket to QUIC. One loop does all of it, so two attempts never race each other, and
 * a new link takes over only after its tunnels were claimed; the old one then finishes its streams.
 */

import type { Clock, Timer } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Connector } from "../ports/session.ts";
import type { Link } from "../wire/link.ts";
import { Backoff } from "./backoff.ts";
import { Wakeup } from "./wakeup.ts";

/** One node that the agent may link to. */
export interface AgentNode {
  /** How people know it: the URL of its tunnel port. */
  readonly label: string;
  /** Resolves names anew at each try; in mode auto it races QUIC and WebSocket. */
  readonly connector: Connector;
  /** Mode auto only: tried now and then while the link runs over WebSocket. */
  readonly quicConnector?: Connector;
}

export interface LinkKeeperOptions {
  /** Tried in turn; at least one. */
  readonly nodes: readonly AgentNode[];
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  readonly random: () => number;
  /** Before each try: a fresh certificate, if ours expired. */
  readonly prepare: (signal: AbortSignal) => Promise<void>;
  readonly connect: (connector: Connector, signal: AbortSignal) => Promise<Link>;
  /** Claims the tunnels on a new link, before it takes over. */
  readonly adopt: (link: Link, signal: AbortSignal) => Promise<void>;
  /** After a failure: true to try again at once. Rejects when trying again is of no use. */
  readonly recover: (error: SallyError, signal: AbortSignal) => Promise<boolean>;
  readonly onUp: (link: Link, node: AgentNode) => void;
  readonly onDown: (link: Link, node: AgentNode, error: SallyError | undefined) => void;
  readonly onRetry: (node: AgentNode, error: SallyError, delayMs: number) => void;
}

interface Live {
  readonly link: Link;
  readonly node: AgentNode;
  readonly sinceMs: number;
  /** Aborted when the link is lost. */
  readonly lost: AbortController;
}

/** A link that held this long was good: its loss is tried again without the delays that came before. */
const stableAfterMs = 10_000;
/** What a new link may need: to connect, to prove itself, and one packet lost. */
const tryRoundTrips = 8;
/** A QUIC link that died earlier makes the next return wait twice as long. */
const quicTrustedAfterMs = 60_000;

export class LinkKeeper {
  readonly #options: LinkKeeperOptions;
  readonly #wakeup: Wakeup;
  readonly #backoff: Backoff;
  /** Links that were taken over, with the moment when we stop taking their streams. */
  readonly #retiring = new Map<Link, Timer>();
  #current: Live | undefined;
  #lossError: SallyError | undefined;
  #nodeIndex = 0;
  #wantsNew = false;
  /** Another link stands, and the node is asked for the names over it. */
  #isAdopting = false;
  #hurryUntilMs = 0;
  /** Ends the try to have another link: a return to QUIC, or one made in doubt. */
  #interrupt = new AbortController();
  #quicPatience = 1;
  /** Tries since the present link is in doubt. */
  #doubtTries = 0;

  constructor(options: LinkKeeperOptions) {
    this.#options = options;
    this.#wakeup = new Wakeup(options.clock);
    const { reconnectBackoffMinMs, reconnectBackoffMaxMs } = options.limits;
    this.#backoff = new Backoff({
      minMs: reconnectBackoffMinMs,
      maxMs: reconnectBackoffMaxMs,
      random: options.random,
    });
  }

  /** The link that is up; undefined while there is none. */
  get current(): Link | undefined {
    return this.#current?.link;
  }

  get currentNode(): AgentNode | undefined {
    return this.#current?.node;
  }

  /** The current link and those that finish their streams. */
  get links(): readonly Link[] {
    return this.#current === undefined ? [...this.#retiring.keys()] : [this.#current.link, ...this.#retiring.keys()];
  }

  /** Runs until the signal aborts. @throws SallyError when trying again is of no use */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const live = await this.#obtain(signal);
      if (live === undefined) return;
      this.#takeOver(live);
      await this.#upkeep(live, signal);
    }
  }

  /** Replaces the link although it seems up: after a sleep, or with a new certificate. Also ends a backoff. */
  refresh(): void {
    this.#backoff.reset();
    this.#wantAnother();
  }

  /** The node of this link shuts down: connects elsewhere, or to its successor. */
  leave(link: Link, graceMs: number): void {
    const live = this.#current;
    if (live?.link !== link) return;
    const nowMs = this.#options.clock.nowMs();
    this.#nodeIndex++;
    this.#hurryUntilMs = nowMs + graceMs + this.#options.limits.hurryAfterGraceMs;
    // A node that accepts links only to send them away is not asked in a tight loop.
    if (nowMs - live.sinceMs < stableAfterMs) this.#lossError = new SallyError("DRAINING");
    this.#wantAnother();
  }

  /** The link answers nothing: another is tried before it is given up, since UDP may be blocked or the network another. */
  doubt(link: Link): void {
    if (this.#current?.link !== link) return;
    this.#interrupt.abort(new SallyError("CANCELLED"));
    this.#wakeup.wake();
  }

  linkClosed(link: Link, error: SallyError | undefined): void {
    this.#retiring.get(link)?.cancel();
    this.#retiring.delete(link);
    const live = this.#current;
    if (live?.link !== link) return;
    // The node gave the names to the link that is being set up, and had nothing more for this one: that is no loss.
    if (error !== undefined || !this.#isAdopting) this.#lose(live, error);
  }

  #lose(live: Live, error: SallyError | undefined): void {
    this.#current = undefined;
    this.#lossError = error ?? new SallyError("DRAINING"); // the node said GOAWAY, and every stream was done
    if (this.#options.clock.nowMs() - live.sinceMs >= stableAfterMs) this.#backoff.reset();
    this.#noteQuicEnd(live);
    live.lost.abort(new SallyError("LINK_LOST"));
    this.#options.onDown(live.link, live.node, error);
    this.#wakeup.wake();
  }

  #wantAnother(): void {
    this.#wantsNew = true;
    this.#interrupt.abort(new SallyError("CANCELLED"));
    this.#wakeup.wake();
  }

  #noteQuicEnd({ link, sinceMs }: Live): void {
    if (link.transport !== "quic") return;
    const { clock, limits } = this.#options;
    const isTrusted = clock.nowMs() - sinceMs >= quicTrustedAfterMs;
    this.#quicPatience = isTrusted ? 1 : Math.min(this.#quicPatience * 2, limits.quicPatienceMax);
  }

  async #obtain(signal: AbortSignal): Promise<Live | undefined> {
    const { nodes, prepare, recover } = this.#options;
    let failure = this.#lossError;
    this.#lossError = undefined;
    this.#wantsNew = false;
    this.#wakeup.clear();
    for (;;) {
      const node = nodes[this.#nodeIndex % nodes.length]!; // at least one
      try {
        if (failure !== undefined && !(await recover(failure, signal))) await this.#pause(node, failure, signal);
        if (signal.aborted) return undefined;
        await prepare(signal);
        return await this.#establish(nodes[this.#nodeIndex % nodes.length]!, undefined, signal); // at least one
      } catch (thrown) {
        if (signal.aborted) return undefined;
        if (thrown instanceof GiveUp) throw thrown.reason;
        failure = toSallyError(thrown, "CONNECT_FAILED");
        this.#nodeIndex++;
      }
    }
  }

  async #pause(node: AgentNode, error: SallyError, signal: AbortSignal): Promise<void> {
    const { clock, limits, onRetry } = this.#options;
    const isHurried = clock.nowMs() < this.#hurryUntilMs;
    const delayMs = this.#backoff.nextMs(isHurried ? limits.hurriedRetryMs : undefined);
    onRetry(node, error, delayMs);
    await this.#wakeup.wait(delayMs, signal);
  }

  async #establish(node: AgentNode, connector: Connector | undefined, signal: AbortSignal): Promise<Live> {
    return this.#adopt(await this.#options.connect(connector ?? node.connector, signal), node, signal);
  }

  async #adopt(link: Link, node: AgentNode, signal: AbortSignal): Promise<Live> {
    const { adopt, clock } = this.#options;
    const onAbort = (): void => link.close(toSallyError(signal.reason, "CANCELLED"));
    signal.addEventListener("abort", onAbort, { once: true });
    this.#isAdopting = true;
    try {
      signal.throwIfAborted();
      await adopt(link, signal);
      if (link.isClosed) throw link.closeError ?? new SallyError("LINK_LOST");
    } catch (thrown) {
      link.close(thrown instanceof GiveUp ? thrown.reason : toSallyError(thrown));
      if (this.#current?.link.isClosed === true) this.#lose(this.#current, undefined);
      throw thrown;
    } finally {
      this.#isAdopting = false;
      signal.removeEventListener("abort", onAbort);
    }
    return { link, node, sinceMs: clock.nowMs(), lost: new AbortController() };
  }

  #takeOver(live: Live): void {
    const old = this.#current?.link;
    this.#current = live;
    this.#doubtTries = 0;
    this.#options.onUp(live.link, live.node);
    old?.bear(); // which may find that it is dead
    if (old === undefined || old.isClosed) return;
    // The node drains it as soon as it saw the claim; streams that it opened just before are still on their way.
    const timer = this.#options.clock.after(this.#options.limits.linkRetireMs, () => old.drain());
    this.#retiring.set(old, timer);
  }

  /** Returns when another link is wanted. */
  async #upkeep(first: Live, signal: AbortSignal): Promise<void> {
    let live = first;
    for (;;) {
      const wasInDoubt = live.link.isInDoubt;
      const how = await this.#wakeup.wait(this.#restMs(live), signal);
      if (signal.aborted || this.#wantsNew || live.link.isClosed) return;
      const isInDoubt = live.link.isInDoubt;
      if (!isInDoubt) this.#doubtTries = 0;
      if (!isInDoubt && (wasInDoubt || how === "woken")) continue;
      const connector = isInDoubt ? live.node.connector : live.node.quicConnector;
      if (connector === undefined) continue;
      const next = await this.#tryAnother(live, connector, signal);
      if (next === undefined) continue;
      if (next.link.transport === "websocket") this.#noteQuicEnd(live);
      this.#takeOver(next);
      live = next;
    }
  }

  /** Until another link is tried while this one is up. */
  #restMs({ link, node }: Live): number {
    const { limits } = this.#options;
    // Jitter, since a node that is slow for a moment puts all its agents in doubt at once.
    if (link.isInDoubt) return limits.reconnectBackoffMinMs * (0.5 + this.#options.random()) * this.#doubtTries;
    if (link.transport === "quic" || node.quicConnector === undefined) return Infinity;
    return limits.quicReturnEveryMs * this.#quicPatience;
  }

  /**
   * Another link to the same node, while the present one lasts. What was sent into a cut is sent again after pauses that
   * double: while the present link is in doubt, no try to connect lasts long, so that the next asks soon after the cut,
   * but each lasts longer than the one before, for the sake of slow nodes.
   * Once the node was asked for the names it may have taken them off the present link, which cannot stay then.
   */
  async #tryAnother(live: Live, connector: Connector, signal: AbortSignal): Promise<Live | undefined> {
    const { clock, limits } = this.#options;
    const interrupt = (this.#interrupt = new AbortController());
    const attempt = AbortSignal.any([signal, live.lost.signal, interrupt.signal]);
    const giveUp = (): void => interrupt.abort(new SallyError("CONNECT_TIMEOUT"));
    const { isInDoubt, rttMs = 0 } = live.link;
    if (isInDoubt) this.#doubtTries++;
    const patienceMs = Math.max(limits.doubtTryMs, tryRoundTrips * rttMs) * this.#doubtTries;
    const timer = isInDoubt ? clock.after(patienceMs, giveUp) : undefined;
    let link: Link | undefined;
    try {
      link = await this.#options.connect(connector, attempt);
      timer?.cancel();
      return await this.#adopt(link, live.node, attempt);
    } catch (thrown) {
      if (thrown instanceof GiveUp) throw thrown.reason;
      if (link !== undefined) this.#wantAnother();
      this.#options.log.debug("another link could not be had yet", { reason: String(thrown) });
      return undefined;
    } finally {
      timer?.cancel();
    }
  }
}

/** Thrown by `adopt` and `recover` when trying again is of no use. */
export class GiveUp extends Error {
  readonly reason: SallyError;

  constructor(reason: SallyError) {
    super(reason.message, { cause: reason });
    this.reason = reason;
  }
}
