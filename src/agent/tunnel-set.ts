/**
 * The tunnels of an agent: their names on the node, their origins, and which origin a stream belongs to. A stream for
 * a name that is not ours is refused; while a claim waits for its answer, names that only the node knows yet are held.
 */

import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { OriginTarget } from "../config/origin-target.ts";
import type { HostHeaderPolicy } from "../ports/tunnel-directory.ts";
import type { IncomingStream } from "../wire/link.ts";
import type { ClaimResult, TunnelRequest } from "../wire/messages.ts";
import { Origin, type DialOrigin } from "./origin.ts";
import { OriginStream, type TrafficCounters } from "./origin-stream.ts";
import { answerProbe } from "./probe-reply.ts";
import { StreamTap, type TappedRequest } from "./tap.ts";
import { TurnEnd } from "./turn-end.ts";

/** One tunnel as configured. */
export interface AgentTunnel {
  /** Absent: the node derives a stable name from `stableKey`. */
  readonly name?: string | undefined;
  readonly stableKey?: string | undefined;
  readonly target: OriginTarget;
  readonly hostHeader: HostHeaderPolicy;
  readonly isShared: boolean;
}

export interface ServedTunnel {
  readonly config: AgentTunnel;
  readonly origin: Origin;
  /** As the node calls it; until the first claim as configured. */
  name: string | undefined;
  url: string | undefined;
  /** Why it is no longer asked for. */
  refusal: SallyError | undefined;
}

export interface TunnelSetOptions {
  readonly tunnels: readonly AgentTunnel[];
  readonly clock: Clock;
  readonly limits: Limits;
  readonly dialOrigin?: DialOrigin | undefined;
  /** Runs a task at the end of a turn of the event loop. Default: of a microtask. */
  readonly schedule?: ((task: () => void) => void) | undefined;
  readonly onOrigin: (tunnel: ServedTunnel, state: "up" | "down", error: SallyError | undefined) => void;
}

export class TunnelSet {
  readonly counters: TrafficCounters = { streams: 0, openStreams: 0, bytesToOrigin: 0, bytesFromOrigin: 0 };
  readonly all: readonly ServedTunnel[];
  /** Set while somebody wants to see requests. */
  onRequest: ((request: TappedRequest) => void) | undefined;
  readonly #options: TunnelSetOptions;
  readonly #turnEnd: TurnEnd;
  readonly #byName = new Map<string, ServedTunnel>();
  readonly #held = new Set<OriginStream>();
  readonly #isServed = (name: string): boolean => this.#byName.has(name);
  #claimsWaiting = 0;

  constructor(options: TunnelSetOptions) {
    this.#options = options;
    this.#turnEnd = new TurnEnd(options.schedule ?? queueMicrotask);
    this.all = options.tunnels.map((config) => this.#serve(config));
  }

  /** Those that are still asked for. */
  get active(): ServedTunnel[] {
    return this.all.filter((tunnel) => tunnel.refusal === undefined);
  }

  find(name: string): ServedTunnel | undefined {
    return this.#byName.get(name);
  }

  /** Looks once at every origin. */
  async check(): Promise<void> {
    await Promise.all(this.all.map(({ origin }) => origin.check()));
  }

  /** A claim was sent: until `claimEnded`, streams for unknown names are held. */
  claimStarted(): void {
    this.#claimsWaiting++;
  }

  claimEnded(): void {
    this.#claimsWaiting--;
    if (this.#claimsWaiting > 0) return;
    for (const joint of this.#held) this.#dispatch(joint);
    this.#held.clear();
  }

  named(tunnel: ServedTunnel, { name, url }: Extract<ClaimResult, { ok: true }>): void {
    if (tunnel.name !== undefined) this.#byName.delete(tunnel.name);
    tunnel.name = name;
    tunnel.url = url;
    this.#byName.set(name, tunnel);
  }

  /** The tunnel is no longer asked for. New streams for it are refused, open ones take no further request. */
  drop(tunnel: ServedTunnel, error: SallyError): void {
    tunnel.refusal = error;
    if (tunnel.name !== undefined && this.#byName.get(tunnel.name) === tunnel) this.#byName.delete(tunnel.name);
    tunnel.origin.close();
  }

  /** A stream that the node opened. */
  accept(stream: IncomingStream): void {
    const { tunnel, protocol } = stream.preamble;
    if (protocol === "probe") {
      if (this.#byName.has(tunnel)) answerProbe(stream);
      else stream.refuse(unknownTunnel(tunnel));
      return;
    }
    const { clock, limits } = this.#options;
    const { onRequest } = this;
    const tap = onRequest === undefined ? undefined : new StreamTap(tunnel, clock, onRequest);
    const joint = new OriginStream({
      stream,
      counters: this.counters,
      tap,
      clock,
      limits,
      turnEnd: this.#turnEnd,
      isServed: this.#isServed,
    });
    const isHeld = this.#claimsWaiting > 0 && !this.#byName.has(tunnel) && this.#held.size < limits.openWaitersMax;
    if (isHeld) this.#held.add(joint);
    else this.#dispatch(joint);
  }

  close(): void {
    for (const { origin } of this.all) origin.close();
  }

  #dispatch(joint: OriginStream): void {
    const served = this.#byName.get(joint.tunnel);
    if (served === undefined) joint.refuse(unknownTunnel(joint.tunnel));
    else void served.origin.serve(joint); // never rejects: a failure refuses the stream
  }

  #serve(config: AgentTunnel): ServedTunnel {
    const { clock, limits, dialOrigin, onOrigin } = this.#options;
    const origin = new Origin({
      target: config.target,
      clock,
      limits,
      onState: (state, error) => onOrigin(tunnel, state, error),
      ...(dialOrigin === undefined ? {} : { dial: dialOrigin }),
    });
    const tunnel: ServedTunnel = { config, origin, name: config.name, url: undefined, refusal: undefined };
    if (config.name !== undefined && !this.#byName.has(config.name)) this.#byName.set(config.name, tunnel);
    return tunnel;
  }
}

/** What the agent asks the node for. */
export function requestFor({ name, stableKey, target, hostHeader, isShared }: AgentTunnel): TunnelRequest {
  return {
    ...(name === undefined ? {} : { name }),
    ...(stableKey === undefined ? {} : { stableKey }),
    originLabel: target.label,
    hostHeader,
    pathPrefix: target.pathPrefix,
    shared: isShared,
  };
}

function unknownTunnel(name: string): SallyError {
  return new SallyError("TUNNEL_UNKNOWN", `This agent does not serve "${name}".`);
}
