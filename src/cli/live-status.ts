/**
 * The status screen of `sally http` on a terminal: which address is served, over what, how it goes, what came last.
 * `renderStatus` is pure; `LiveStatus` redraws it in place a few times a second.
 */

import type { Clock, Timer } from "../core/clock.ts";
import { printable, type Paint } from "./output.ts";

export interface StatusTunnel {
  readonly name: string;
  readonly url: string | undefined;
  readonly origin: string;
  readonly originState: "up" | "down" | "unknown";
}

export interface StatusRequest {
  readonly method: string;
  readonly target: string;
  readonly status: number | undefined;
  readonly durationMs: number | undefined;
}

export interface StatusModel {
  readonly node: string;
  readonly linkState: "connecting" | "up" | "down";
  readonly transport: string | undefined;
  readonly rttMs: number | undefined;
  readonly tunnels: readonly StatusTunnel[];
  readonly requestsPerSecond: number;
  readonly requestsTotal: number;
  readonly openStreams: number;
  readonly lastRequests: readonly StatusRequest[];
}

function paintStatus(status: number | undefined, paint: Paint): string {
  if (status === undefined) return paint.dim("...");
  if (status >= 500) return paint.red(String(status));
  if (status >= 400) return paint.yellow(String(status));
  return paint.green(String(status));
}

function row(name: string, value: string): string {
  return `${name.padEnd(14)}${value}`;
}

function clip(text: string, width: number): string {
  const clean = printable(text);
  return clean.length <= width ? clean : `${clean.slice(0, Math.max(0, width - 1))}…`;
}

/** The screen as lines that fit `width` columns. */
export function renderStatus(model: StatusModel, paint: Paint, width: number): string[] {
  const state = { connecting: paint.yellow("connecting"), up: paint.green("online"), down: paint.red("reconnecting") };
  const rtt = model.rttMs === undefined ? "" : `, ${model.rttMs.toFixed(1)} ms`;
  const transport = model.transport === undefined ? "" : paint.dim(` (${model.transport}${rtt})`);
  const lines = [
    `${paint.bold("sally")}${paint.dim("  Ctrl-C to stop")}`,
    "",
    row("Link", `${state[model.linkState]} ${clip(model.node, width - 40)}${transport}`),
  ];
  for (const tunnel of model.tunnels) {
    const url = tunnel.url === undefined ? paint.dim(`${tunnel.name}: not up yet`) : paint.cyan(tunnel.url);
    const origin = tunnel.originState === "down" ? paint.red(`${tunnel.origin} is down`) : tunnel.origin;
    lines.push(row("Forwarding", `${url} -> ${origin}`));
  }
  const rate = model.requestsPerSecond.toFixed(model.requestsPerSecond < 10 ? 1 : 0);
  lines.push(row("Requests", `${rate}/s, ${model.requestsTotal} in all, ${model.openStreams} open streams`), "");
  for (const request of model.lastRequests) {
    const time = request.durationMs === undefined ? "" : paint.dim(` ${request.durationMs.toFixed(0)} ms`);
    const line = `${clip(request.method, 8).padEnd(8)}${clip(request.target, Math.max(10, width - 30))}`;
    lines.push(`${line} ${paintStatus(request.status, paint)}${time}`);
  }
  return lines;
}

const redrawMs = 250;

/** Redraws the screen in place until closed; the last state stays on the terminal. */
export class LiveStatus {
  readonly #options: {
    clock: Clock;
    paint: Paint;
    read: () => StatusModel;
    columns: () => number;
    write: (text: string) => void;
  };
  #drawn = 0;
  #timer: Timer | undefined;

  constructor(options: {
    clock: Clock;
    paint: Paint;
    read(): StatusModel;
    columns(): number;
    write(text: string): void;
  }) {
    this.#options = options;
  }

  start(): void {
    this.#draw();
    this.#timer = this.#options.clock.after(redrawMs, () => this.start());
  }

  close(): void {
    this.#timer?.cancel();
    this.#draw();
  }

  #draw(): void {
    const { paint, read, columns, write } = this.#options;
    const lines = renderStatus(read(), paint, columns());
    const back = this.#drawn > 0 ? `\u001b[${this.#drawn}A` : "";
    write(`${back}${lines.map((line) => `${line}\u001b[K`).join("\n")}\n\u001b[J`);
    this.#drawn = lines.length;
  }
}
