/**
 * The tunnel daemon beside an origin: keeps a link to a node, claims its tunnels there, and joins the streams that the
 * node opens with connections to the configured origins. It listens nowhere and dials nothing else.
 */

import type { Clock, Timer } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { LinkAuth } from "../core/identity.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { Scope } from "../core/scope.ts";
import type { Connector, Session, TransportKind } from "../ports/session.ts";
import { connectLink, type ConnectLinkOptions, type Link } from "../wire/link.ts";
import type { ControlMessage } from "../wire/messages.ts";
import type { WindowBudget } from "../wire/window-budget.ts";
import { CertificateUpkeep, type Validity } from "./certificate-upkeep.ts";
import { ClaimSession } from "./claim-session.ts";
import { watchClock } from "./clock-watch.ts";
import type { AgentEvent } from "./events.ts";
import { classifyFailure } from "./failures.ts";
import { reportHeadroom, type LoadReading } from "./headroom.ts";
import { GiveUp, LinkKeeper, type AgentNode } from "./link-keeper.ts";
import type { DialOrigin, OriginState } from "./origin.ts";
import type { TrafficCounters } from "./origin-stream.ts";
import type { TappedRequest } from "./tap.ts";
import { TunnelSet, type AgentTunnel, type ServedTunnel } from "./tunnel-set.ts";

export interface AgentOptions {
  /** Tried in turn; at least one. */
  readonly nodes: readonly AgentNode[];
  readonly tunnels: readonly AgentTunnel[];
  /** Our proof as it is now; asked for at each try. */
  readonly auth: () => LinkAuth;
  /** Certificates are renewed at half life, after their expiry, and when the node finds ours invalid. */
  readonly certificate?: {
    readonly validity: () => Validity;
    readonly renew: (signal: AbortSignal) => Promise<void>;
  };
  readonly agentVersion: string;
  /** Default limits.lanesPerLink. */
  readonly lanes?: number;
  readonly readLoad: () => LoadReading;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  readonly budget: WindowBudget;
  readonly onEvent: (event: AgentEvent) => void;
  /** Runs a task at the end of a turn of the event loop: what links and streams gather until then. */
  readonly schedule?: (task: () => void) => void;
  readonly random?: () => number;
  /** Tests replace the dialling of origins and the handshake. */
  readonly dialOrigin?: DialOrigin;
  readonly connectLink?: typeof connectLink;
}

export interface TunnelStatus {
  readonly name: string | undefined;
  readonly url: string | undefined;
  readonly origin: string;
  readonly originState: OriginState;
  readonly refusal: SallyError | undefined;
}

export interface AgentStatus {
  readonly link:
    | {
        readonly node: string;
        readonly transport: TransportKind;
        readonly rttMs: number | undefined;
        readonly streams: number;
      }
    | undefined;
  readonly tunnels: readonly TunnelStatus[];
  readonly traffic: TrafficCounters;
}

export interface Agent {
  start(): void;
  status(): AgentStatus;
  /** Shows each request that is answered; without a listener nothing is looked at. Returns the way to stop. */
  onRequest(listener: (request: TappedRequest) => void): () => void;
  /** Takes no new streams, waits for the running ones up to `graceMs` (default 0), then closes. */
  close(graceMs?: number): Promise<void>;
}

const trafficEveryMs = 1_000;

export function createAgent(options: AgentOptions): Agent {
  return new AgentDaemon(options);
}

class AgentDaemon implements Agent {
  readonly #options: AgentOptions;
  readonly #scope: Scope;
  readonly #tunnels: TunnelSet;
  readonly #keeper: LinkKeeper;
  readonly #claims: ClaimSession;
  readonly #certificates: CertificateUpkeep | undefined;
  readonly #listeners = new Set<(request: TappedRequest) => void>();
  /** Connections that have not ended, also those whose link is over. */
  readonly #sessions = new Set<Session>();
  #wasLinked = false;
  #isStarted = false;
  #hasFailed = false;
  #whenUnlinked: (() => void) | undefined;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { clock, log, limits, onEvent, nodes, certificate } = options;
    this.#scope = new Scope(log);
    this.#tunnels = new TunnelSet({
      tunnels: options.tunnels,
      clock,
      limits,
      dialOrigin: options.dialOrigin,
      schedule: options.schedule,
      onOrigin: (tunnel, state, error) => this.#onOrigin(tunnel, state, error),
    });
    this.#claims = new ClaimSession({
      tunnels: this.#tunnels,
      process: () => options.auth().process,
      links: () => this.#keeper.links,
      clock,
      log,
      limits,
      onEvent,
    });
    if (certificate !== undefined) {
      this.#certificates = new CertificateUpkeep({
        ...certificate,
        clock,
        log,
        onRenewed: () => this.#keeper.refresh(),
      });
    }
    this.#keeper = new LinkKeeper({
      nodes,
      clock,
      log,
      limits,
      random: options.random ?? Math.random,
      prepare: async (signal) => this.#certificates?.prepare(signal),
      connect: (connector, signal) => this.#connect(connector, signal),
      adopt: (link, signal) => this.#claims.claim(link, signal),
      recover: (error, signal) => this.#recover(error, signal),
      onUp: (link, node) => this.#onUp(link, node),
      onDown: (link, node, error) =>
        onEvent({ event: "link", state: "down", transport: link.transport, node: node.label, error }),
      onRetry: (node, error, delayMs) => onEvent({ event: "retry", node: node.label, error, delayMs }),
    });
  }

  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    const { clock, readLoad } = this.#options;
    this.#run("keeping the link", (signal) => this.#keeper.run(signal));
    this.#run("the first look at the origins", () => this.#tunnels.check());
    const certificates = this.#certificates;
    if (certificates !== undefined) this.#run("certificate renewal", (signal) => certificates.run(signal));
    this.#scope.onClose(watchClock(clock, (sleptMs) => this.#onSleep(sleptMs)));
    const send = (value: number): void => this.#keeper.current?.send({ type: "headroom", value });
    this.#scope.onClose(reportHeadroom({ clock, readLoad, send }));
    this.#scope.onClose(this.#reportTraffic());
  }

  status(): AgentStatus {
    const link = this.#keeper.current;
    const node = this.#keeper.currentNode;
    const isLinked = link !== undefined && node !== undefined;
    return {
      link: isLinked
        ? { node: node.label, transport: link.transport, rttMs: link.rttMs, streams: link.streamCount }
        : undefined,
      tunnels: this.#tunnels.all.map(({ name, url, origin, refusal }) => ({
        name,
        url,
        origin: origin.target.label,
        originState: origin.state,
        refusal,
      })),
      traffic: { ...this.#tunnels.counters },
    };
  }

  onRequest(listener: (request: TappedRequest) => void): () => void {
    this.#listeners.add(listener);
    this.#tunnels.onRequest = (request) => {
      for (const each of this.#listeners) each(request);
    };
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#tunnels.onRequest = undefined;
    };
  }

  async close(graceMs = 0): Promise<void> {
    const { clock, limits } = this.#options;
    const untilMs = clock.nowMs() + graceMs;
    const closing = this.#scope.close();
    const links = this.#keeper.links.filter((link) => !link.isClosed);
    const isBusy = links.some((link) => link.streamCount > 0);
    for (const link of links) link.drain();
    if (graceMs > 0 && links.some((link) => !link.isClosed)) {
      await new Promise<void>((resolve) => {
        const timer = clock.after(graceMs, resolve);
        this.#whenUnlinked = () => {
          timer.cancel();
          resolve();
        };
      });
    }
    for (const link of this.#keeper.links) link.close();
    // What its streams said last may still be on its way over a slow line.
    await this.#lastWords(Math.max(limits.agentLastWordsMs, isBusy ? untilMs - clock.nowMs() : 0));
    this.#tunnels.close();
    await closing;
  }

  /** The node hears why its links end, if it still listens: whoever ends the process after `close` may do so at once. */
  async #lastWords(waitMs: number): Promise<void> {
    if (this.#sessions.size === 0) return;
    const patience = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(waitMs, patience.resolve);
    await Promise.race([patience.promise, Promise.all([...this.#sessions].map((session) => session.closed))]);
    timer.cancel();
  }

  /** Background work; a failure that trying again does not cure ends the agent. */
  #run(what: string, work: (signal: AbortSignal) => Promise<void>): void {
    this.#scope.run(what, async (signal) => {
      try {
        await work(signal);
      } catch (thrown) {
        if (signal.aborted) return;
        this.#fail(thrown instanceof GiveUp ? thrown.reason : toSallyError(thrown));
      }
    });
  }

  #fail(error: SallyError): void {
    if (this.#hasFailed || this.#scope.isClosed) return;
    this.#hasFailed = true;
    void this.close(); // not awaited: `close` waits for the work that calls this; links are down at once
    this.#options.onEvent({ event: "fatal", error, exitCode: error.row.exit });
  }

  async #connect(connector: Connector, signal: AbortSignal): Promise<Link> {
    // HELLO leaves before the node has answered, where the transport allows it; the session that wins is kept.
    const begun = new Map<Session, Promise<Link>>();
    const session = await connector.connect(signal, (candidate) => {
      const link = this.#shakeHands(candidate, signal);
      link.catch(() => {}); // told below, if it is the one
      begun.set(candidate, link);
    });
    return begun.get(session) ?? this.#shakeHands(session, signal);
  }

  async #shakeHands(session: Session, signal: AbortSignal): Promise<Link> {
    const { clock, log, limits, budget, auth, lanes, agentVersion, schedule } = this.#options;
    this.#sessions.add(session);
    void session.closed.then(() => this.#sessions.delete(session));
    const options: ConnectLinkOptions = {
      clock,
      log,
      limits,
      budget,
      lanes: lanes ?? limits.lanesPerLink,
      agentVersion,
      onStream: (stream) => this.#tunnels.accept(stream),
      onMessage: (message, link) => this.#onMessage(message, link),
      onDoubt: (link) => this.#keeper.doubt(link),
      onClose: (error, link) => this.#onClose(error, link),
      ...(schedule === undefined ? {} : { schedule }),
    };
    try {
      return await (this.#options.connectLink ?? connectLink)(session, auth(), options, signal);
    } catch (thrown) {
      session.close(toSallyError(thrown));
      throw thrown;
    }
  }

  /** True to try again at once. @throws GiveUp */
  async #recover(error: SallyError, signal: AbortSignal): Promise<boolean> {
    const kind = classifyFailure(error, this.#wasLinked);
    if (kind === "retry") return false;
    if (kind === "fatal") throw new GiveUp(error);
    const isNew = await this.#certificates?.replace(signal);
    if (isNew === undefined || (!isNew && !this.#wasLinked)) throw new GiveUp(error);
    return isNew;
  }

  #onUp(link: Link, node: AgentNode): void {
    this.#wasLinked = true;
    this.#options.onEvent({ event: "link", state: "up", transport: link.transport, node: node.label });
    for (const { origin, name } of this.#tunnels.active) {
      if (origin.state === "down" && name !== undefined) sendOrigin(link, name, "down", origin.lastError);
    }
    this.#run("probing the tunnels", (signal) => this.#claims.prove(link, signal));
  }

  #onClose(error: SallyError | undefined, link: Link): void {
    this.#claims.linkClosed(link, error ?? new SallyError("DRAINING"));
    this.#keeper.linkClosed(link, error);
    if (this.#keeper.links.length === 0) this.#whenUnlinked?.();
  }

  #onMessage(message: ControlMessage, link: Link): void {
    switch (message.type) {
      case "claimed":
        return this.#claims.claimed(link, message);
      case "probed":
        return this.#claims.probed(link, message);
      case "drain":
        return this.#keeper.leave(link, message.graceMs);
      case "replaced":
        return this.#onReplaced(message.names);
      case "revoked":
        return this.#fail(new SallyError("CERTIFICATE_REVOKED"));
      case "claim":
      case "release":
      case "headroom":
      case "origin":
      case "probe":
        return link.close(new SallyError("PROTOCOL_VIOLATION", `A node does not send "${message.type}".`));
    }
  }

  #onReplaced(names: readonly string[]): void {
    const error = new SallyError("REPLACED");
    for (const name of names) {
      const tunnel = this.#tunnels.find(name);
      if (tunnel === undefined) continue;
      this.#tunnels.drop(tunnel, error);
      this.#options.onEvent({ event: "refused", name, error });
    }
    if (this.#tunnels.active.length === 0) this.#fail(error);
  }

  #onOrigin(tunnel: ServedTunnel, state: "up" | "down", error: SallyError | undefined): void {
    const { name, origin } = tunnel;
    this.#options.onEvent({ event: "origin", state, name, origin: origin.target.label, error });
    const link = this.#keeper.current;
    if (link !== undefined && name !== undefined) sendOrigin(link, name, state, error);
  }

  #onSleep(sleptMs: number): void {
    this.#options.log.info("the machine slept: linking anew", { sleptMs: Math.round(sleptMs) });
    this.#keeper.refresh();
  }

  #reportTraffic(): () => void {
    const { clock, onEvent } = this.#options;
    const { counters } = this.#tunnels;
    let timer: Timer;
    let last = "";
    const tick = (): void => {
      timer = clock.after(trafficEveryMs, tick);
      const now = JSON.stringify(counters);
      if (now !== last && last !== "") onEvent({ event: "traffic", ...counters });
      last = now;
    };
    tick();
    return () => timer.cancel();
  }
}

function sendOrigin(link: Link, name: string, state: "up" | "down", error: SallyError | undefined): void {
  if (error === undefined) link.send({ type: "origin", name, state });
  else link.send({ type: "origin", name, state, cause: error.code, message: error.message });
}
