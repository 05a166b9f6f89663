/** What a node tells about itself: Prometheus text and the admin API's view of links and tunnels. */

import type { NodeView } from "../control/admin-handler.ts";
import { formatAddress } from "../core/address.ts";
import type { Clock } from "../core/clock.ts";
import type { Exit } from "../exit/exit.ts";
import type { LinkInfo } from "../exit/link-info.ts";
import type { WindowBudget } from "../wire/window-budget.ts";
import { version } from "./version.ts";

export interface NodeCounters {
  requests: number;
  handshakesFailed: number;
  linksOpened: number;
}

export interface NodeViewOptions {
  /** Asked for late: the exit is made after the control that shows this. */
  readonly exit: () => Exit;
  readonly clock: Clock;
  readonly domain: string;
  readonly budget: WindowBudget;
  readonly counters: NodeCounters;
  readonly publicUrl: (name: string) => string;
  readonly connectionCount: () => number;
  readonly isReady: () => boolean;
  readonly closeTunnel: (name: string) => boolean;
}

interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly value: number;
}

function formatMetrics(metrics: readonly Metric[]): string {
  return metrics
    .map(({ name, type, help, value }) => `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${name} ${value}\n`)
    .join("");
}

export function createNodeView(options: NodeViewOptions): NodeView {
  const { exit, clock, domain, publicUrl, isReady, closeTunnel } = options;
  const startedMs = clock.wallMs();
  return {
    isReady,
    closeTunnel,
    status: () => ({ version, domain, startedMs, isReady: isReady(), ...totalsOf(exit().links()) }),
    links: () =>
      exit()
        .links()
        .map(({ id, identity, installation, transport, remote, names, streams, connectedForMs, rttMs }) => ({
          id,
          identity,
          installation,
          transport,
          remote: formatAddress(remote),
          names: [...names],
          streams,
          sinceMs: Math.round(clock.wallMs() - connectedForMs),
          ...(rttMs === undefined ? {} : { rttMs }),
        })),
    liveTunnel(name) {
      const entry = exit().directory.lookup(name);
      if (entry === undefined || entry instanceof Promise || entry.state !== "live") return undefined;
      const agents = exit()
        .links()
        .filter((link) => link.names.includes(name)).length;
      return { url: publicUrl(name), origin: entry.originLabel, agents };
    },
    metrics: () => formatMetrics(nodeMetrics(options, startedMs)),
  };
}

function totalsOf(links: readonly LinkInfo[]): { links: number; tunnels: number; streams: number } {
  return {
    links: links.length,
    tunnels: new Set(links.flatMap((link) => link.names)).size,
    streams: links.reduce((total, link) => total + link.streams, 0),
  };
}

function nodeMetrics({ exit, clock, budget, counters, connectionCount }: NodeViewOptions, startedMs: number): Metric[] {
  const { links, tunnels, streams } = totalsOf(exit().links());
  return [
    gauge("sally_up_seconds", "Seconds since the node started.", (clock.wallMs() - startedMs) / 1_000),
    counter("sally_requests_total", "Requests that reached the edge.", counters.requests),
    gauge("sally_visitor_connections", "Open connections of visitors.", connectionCount()),
    gauge("sally_links", "Links of agents.", links),
    counter("sally_links_opened_total", "Links that were accepted.", counters.linksOpened),
    counter("sally_handshakes_failed_total", "Links that were refused.", counters.handshakesFailed),
    gauge("sally_tunnels", "Names that are served now.", tunnels),
    gauge("sally_streams", "Open streams to origins.", streams),
    gauge("sally_window_bytes", "Memory granted to credit windows.", budget.usedBytes),
    gauge("process_resident_memory_bytes", "Resident memory.", process.memoryUsage.rss()),
    counter("process_cpu_seconds_total", "User and system CPU time.", cpuSeconds()),
  ];
}

function gauge(name: string, help: string, value: number): Metric {
  return { name, type: "gauge", help, value };
}

function counter(name: string, help: string, value: number): Metric {
  return { name, type: "counter", help, value };
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
