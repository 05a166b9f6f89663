/** Shows an agent's events: JSON lines, plain lines, or the live screen on a terminal. */

import type { Agent } from "../agent/agent.ts";
import type { AgentEvent } from "../agent/events.ts";
import type { Clock } from "../core/clock.ts";
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

  constructor(output: Output, clock: Clock) {
    this.#output = output;
    this.#clock = clock;
  }

  explainEmbedded(http: string): void {
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
      columns: () => process.stdout.columns ?? 80,
      write: (text) => void process.stdout.write(text),
    });
    this.#screen.start();
  }

  onEvent(event: AgentEvent): void {
    this.#output.event(toJson(event));
    if (!this.#output.isLive) this.#printLine(event);
    else if (event.event === "fatal" || event.event === "refused") process.stderr.write(`${event.error.message}\n`);
  }

  close(): void {
    this.#stopListening?.();
    this.#screen?.close();
    this.#screen = undefined;
  }

  #printLine(event: AgentEvent): void {
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
      case "refused":
      case "fatal":
        if (!this.#output.isJson) process.stderr.write(`sally: ${event.error.message} (${event.error.code})\n`);
        return;
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
    return {
      node: link?.node ?? "",
      linkState: link === undefined ? "down" : "up",
      transport: link?.transport,
      rttMs: link?.rttMs,
      tunnels: tunnels.map(({ name, url, origin, originState, refusal }) => ({
        name: refusal === undefined ? (name ?? origin) : `${name ?? origin} (${refusal.code})`,
        url,
        origin,
        originState,
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
