/**
 * What an agent asks a node for on each new link: its names, and the proof that they work. A tunnel counts as up only
 * after a probe went through the node's public listener, the link and back.
 */

import { sleep, type Clock } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Link } from "../wire/link.ts";
import type { ClaimResult, ControlMessage } from "../wire/messages.ts";
import type { AgentEvent } from "./events.ts";
import { classifyFailure } from "./failures.ts";
import { GiveUp } from "./link-keeper.ts";
import { PendingRequests } from "./pending-requests.ts";
import { requestFor, type ServedTunnel, type TunnelSet } from "./tunnel-set.ts";

type Claimed = Extract<ControlMessage, { readonly type: "claimed" }>;
type Probed = Extract<ControlMessage, { readonly type: "probed" }>;

export interface ClaimSessionOptions {
  readonly tunnels: TunnelSet;
  /** Names this process in claims. */
  readonly process: () => string;
  /** The links that this process holds. */
  readonly links: () => readonly Link[];
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  readonly onEvent: (event: AgentEvent) => void;
}

export class ClaimSession {
  readonly #options: ClaimSessionOptions;
  readonly #claims: PendingRequests<Claimed>;
  readonly #probes: PendingRequests<Probed>;
  /** The claims of single tunnels that wait for each other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ClaimSessionOptions) {
    this.#options = options;
    this.#claims = new PendingRequests(options.clock);
    this.#probes = new PendingRequests(options.clock);
  }

  claimed(link: Link, message: Claimed): void {
    this.#claims.answer(link, message.requestId, message);
  }

  probed(link: Link, message: Probed): void {
    this.#probes.answer(link, message.requestId, message);
  }

  linkClosed(link: Link, error: SallyError): void {
    this.#claims.linkClosed(link, error);
    this.#probes.linkClosed(link, error);
  }

  /**
   * Claims every tunnel on the link. @throws GiveUp when the node wants to serve none of them, SallyError when it
   * cannot just now
   */
  async claim(link: Link, signal: AbortSignal): Promise<void> {
    const { tunnels } = this.#options;
    const missing = await this.#ask(link, tunnels.active, signal);
    const { active } = tunnels;
    const refusal = tunnels.all.findLast((tunnel) => tunnel.refusal !== undefined)?.refusal;
    if (active.length === 0) throw new GiveUp(refusal ?? new SallyError("USAGE", "There is no tunnel to serve."));
    const [first] = missing;
    if (first !== undefined && missing.length === active.length) throw first.error;
  }

  /** Probes the tunnels until each has worked once, and asks again for those that are missing, while the link lives. */
  async prove(link: Link, signal: AbortSignal): Promise<void> {
    await Promise.all(this.#options.tunnels.active.map((tunnel) => this.#proveOne(link, tunnel, signal)));
  }

  async #proveOne(link: Link, tunnel: ServedTunnel, signal: AbortSignal): Promise<void> {
    const { clock, limits, onEvent } = this.#options;
    let delayMs: number = limits.probeRetryMinMs;
    while (!link.isClosed && !link.isDraining && !signal.aborted && tunnel.refusal === undefined) {
      const { name, url } = tunnel;
      if (name === undefined || url === undefined) {
        await sleep(clock, limits.claimRetryMs, signal);
        await this.#askInTurn(link, tunnel, signal);
        continue;
      }
      const outcome = await this.#probe(link, name);
      if (link.isClosed || signal.aborted) return;
      if (outcome === undefined) return onEvent({ event: "tunnel", name, url, transport: link.transport });
      onEvent({ event: "probe-failed", name, code: outcome.code, message: outcome.message });
      await sleep(clock, delayMs, signal);
      delayMs = Math.min(delayMs * 2, limits.probeRetryMaxMs);
    }
  }

  /** Undefined when the probe came back. */
  async #probe(link: Link, name: string): Promise<SallyError | undefined> {
    const { limits } = this.#options;
    try {
      const timeoutMs = limits.probeMs * 2;
      const { ok, code, message } = await this.#probes.ask(link, timeoutMs, (requestId) =>
        link.send({ type: "probe", requestId, name }),
      );
      return ok ? undefined : new SallyError(code ?? "INTERNAL", message);
    } catch (thrown) {
      return toSallyError(thrown);
    }
  }

  /** One claim after the other: a node lets only a few wait. What fails is asked for again in the next round. */
  #askInTurn(link: Link, tunnel: ServedTunnel, signal: AbortSignal): Promise<unknown> {
    const ask = (): Promise<unknown> | undefined =>
      link.isClosed || signal.aborted ? undefined : this.#ask(link, [tunnel], signal).catch(() => {});
    this.#turn = this.#turn.then(ask);
    return this.#turn;
  }

  /** Claims these tunnels; returns those that the node could not give just now. */
  async #ask(
    link: Link,
    wanted: readonly ServedTunnel[],
    signal: AbortSignal,
  ): Promise<{ readonly tunnel: ServedTunnel; readonly error: SallyError }[]> {
    const { tunnels, limits, process, links } = this.#options;
    const missing: { readonly tunnel: ServedTunnel; readonly error: SallyError }[] = [];
    if (wanted.length === 0) return missing;
    tunnels.claimStarted();
    try {
      for (const part of partsOf(wanted, limits)) {
        const requests = part.map(({ config }) => requestFor(config));
        const others = links().flatMap(({ id }) => (id === link.id ? [] : [id]));
        const answer = await this.#claims.ask(link, limits.handshakeMs, (requestId) =>
          link.send({ type: "claim", requestId, process: process(), tunnels: requests, links: others.slice(0, 100) }),
        );
        signal.throwIfAborted();
        missing.push(...part.flatMap((tunnel, index) => this.#settle(tunnel, answer.results[index])));
      }
      return missing;
    } finally {
      tunnels.claimEnded();
    }
  }

  #settle(
    tunnel: ServedTunnel,
    result: ClaimResult | undefined,
  ): { readonly tunnel: ServedTunnel; readonly error: SallyError }[] {
    const { tunnels, onEvent, log } = this.#options;
    if (result?.ok === true) {
      tunnels.named(tunnel, result);
      return [];
    }
    const error =
      result === undefined
        ? new SallyError("PROTOCOL_VIOLATION", "The node answered a claim incompletely.")
        : new SallyError(result.code, result.message);
    if (classifyFailure(error, true) === "fatal") {
      tunnels.drop(tunnel, error);
      onEvent({ event: "refused", name: tunnel.name, error });
      return [];
    }
    tunnel.url = undefined;
    log.warn("a tunnel could not be claimed yet", { name: tunnel.name, code: error.code, reason: error.message });
    return [{ tunnel, error }];
  }
}

/** So many at once that a claim, and what the node answers to it, are no larger than a control message may be. */
function partsOf(wanted: readonly ServedTunnel[], limits: Limits): ServedTunnel[][] {
  const parts: ServedTunnel[][] = [];
  let part: ServedTunnel[] = [];
  let bytes = 0;
  for (const tunnel of wanted) {
    const size = JSON.stringify(requestFor(tunnel.config)).length; // requests are ASCII
    if (part.length > 0 && (part.length >= limits.claimTunnels || bytes + size > limits.controlMessageBytes / 2)) {
      parts.push(part);
      part = [];
      bytes = 0;
    }
    part.push(tunnel);
    bytes += size;
  }
  return part.length === 0 ? parts : [...parts, part];
}
