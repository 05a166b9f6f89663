/** Shows an agent's events: JSON lines, plain lines, or the live screen on a terminal. */

import type { Agent } from "../agent/agent.ts";
import type { AgentEvent } from "../agent/events.ts";
import type { Clock } from "../core/clock.ts";
import type { SallyError } from "../core/errors.ts";
import { LiveStatus, type StatusModel, type StatusRequest } from "./live-status.ts";
import type { Output } from "./output.ts";

const lastRequestsMax = 10;

export class AgentView {
  readonly #output: Output;
  readonly #clock: Clock;
  readonly #requests: StatusRequest[] = [];
  #requestsTotal = 0;
  #rate = { sinceMs: 0, requests: 0, perSecond: 0 };
  #agent: Agent | undefined;
  #screen: LiveStatus | undefined;
  #stopListening: (() => void) | undefined;
  #hasLinked = false;
  /** Why there is no link. */
  #problem: string | undefined;
  /** The last refusal, which a fatal event repeats. */
  #refusal: SallyError | undefined;

  constructor(output: Output, clock: Clock) {
    this.#output = output;
    this.#clock = clock;
  }

  explainEmbedded({ http, tunnel, admin }: { http: string; tunnel: string; admin: string }): void {
    this.#output.event({ event: "embedded", http, tunnel, admin });
    this.#output.line(`No node is configured: an embedded one runs on this machine only (${http}).`);
    this.#output.line('To be reached from elsewhere, run "sally edge" on a server and pass --edge and --token-file.\n');
  }

  follow(agent: Agent): void {
    this.#agent = agent;
    if (!this.#output.isLive) return;
    this.#rate = { sinceMs: this.#clock.nowMs(), requests: 0, perSecond: 0 };
    this.#stopListening = agent.onRequest((request) => {
      this.#requestsTotal++;
      this.#requests.unshift(request);
      if (this.#requests.length > lastRequestsMax) this.#requests.pop();
    });
    this.#screen = new LiveStatus({
      clock: this.#clock,
      paint: this.#output.paint,
      read: () => this.#model(agent),
      size: () => ({ columns: process.stdout.columns || 80, rows: process.stdout.rows || 24 }),
      write: (text) => this.#output.raw(text),
    });
    this.#output.showAbove(this.#screen);
    this.#screen.start();
  }

  onEvent(event: AgentEvent): void {
    this.#output.event(toJson(event));
    if (event.event === "link" && event.state === "up") {
      this.#hasLinked = true;
      this.#problem = undefined;
    }
    if (event.event === "retry") this.#problem = event.error.message;
    if (event.event === "refused" || event.event === "fatal") this.#printRefusal(event.error);
    else if (this.#screen === undefined) this.#printLine(event);
  }

  close(): void {
    this.#stopListening?.();
    this.#screen?.close();
    this.#output.showAbove(undefined);
    this.#screen = undefined;
  }

  #printRefusal(error: SallyError): void {
    if (error.code === this.#refusal?.code && error.message === this.#refusal.message) return;
    this.#refusal = error;
    this.#output.problem(`${error.message} (${error.code})`);
  }

  #printLine(event: Exclude<AgentEvent, { event: "refused" | "fatal" }>): void {
    switch (event.event) {
      case "tunnel":
        return this.#output.line(`${event.url} -> ${this.#originOf(event.name)} (${event.transport})`);
      case "link":
        return this.#output.line(`link ${event.state}: ${event.node} over ${event.transport}`);
      case "origin":
        return this.#output.line(`origin ${event.state}: ${event.origin}`);
      case "retry":
        return this.#output.line(
          `no link: ${event.error.message}; next try in ${(event.delayMs / 1_000).toFixed(1)} s`,
        );
      case "probe-failed":
        return this.#output.line(`${event.name} does not answer yet: ${event.message}`);
      case "traffic":
        return;
    }
  }

  #originOf(name: string): string {
    return this.#agent?.status().tunnels.find((tunnel) => tunnel.name === name)?.origin ?? name;
  }

  #model(agent: Agent): StatusModel {
    const { link, tunnels, traffic } = agent.status();
    const nowMs = this.#clock.nowMs();
    const elapsedMs = nowMs - this.#rate.sinceMs;
    if (elapsedMs >= 1_000) {
      const perSecond = ((this.#requestsTotal - this.#rate.requests) * 1_000) / elapsedMs;
      this.#rate = { sinceMs: nowMs, requests: this.#requestsTotal, perSecond };
    }
    const linkState = this.#hasLinked ? "down" : "connecting";
    return {
      node: link?.node ?? "",
      linkState: link === undefined ? linkState : "up",
      problem: link === undefined ? this.#problem : undefined,
      transport: link?.transport,
      rttMs: link?.rttMs,
      tunnels: tunnels.map(({ name, url, origin, originState, refusal }) => ({
        name: name ?? origin,
        url,
        origin,
        originState,
        refusal: refusal?.message,
      })),
      requestsPerSecond: this.#rate.perSecond,
      requestsTotal: this.#requestsTotal,
      openStreams: traffic.openStreams,
      lastRequests: this.#requests,
    };
  }
}

/** Errors travel as code and message; everything else as it is. */
function toJson(event: AgentEvent): Record<string, unknown> {
  if (!("error" in event) || event.error === undefined) return { ...event };
  const { error, ...rest } = event;
  return { ...rest, code: error.code, message: error.message };
}
