/**
 * The status screen of `sally http` on a terminal: which address is served, over what, how it goes, what came last.
 * `renderStatus` is pure; `LiveStatus` redraws it in place a few times a second.
 */

import type { Clock, Timer } from "../core/clock.ts";
import { printable, type Paint, type Screen } from "./output.ts";

export interface StatusTunnel {
  readonly name: string;
  readonly url: string | undefined;
  readonly origin: string;
  readonly originState: "up" | "down" | "unknown";
  /** Why the node does not serve it. */
  readonly refusal: string | undefined;
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
  /** Why there is no link. */
  readonly problem: string | undefined;
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

function tunnelRow({ name, url, origin, originState, refusal }: StatusTunnel, paint: Paint): string {
  if (refusal !== undefined) return row("Refused", `${printable(name)}: ${paint.red(printable(refusal))}`);
  const left = url === undefined ? paint.dim(`${printable(name)}: not up yet`) : paint.cyan(printable(url));
  const right = originState === "down" ? paint.red(`${printable(origin)} is down`) : printable(origin);
  return row("Forwarding", `${left} -> ${right}`);
}

/** The screen as lines for a terminal `width` columns wide. What visitors and nodes sent cannot move the cursor. */
export function renderStatus(model: StatusModel, paint: Paint, width: number): string[] {
  const state = { connecting: paint.yellow("connecting"), up: paint.green("online"), down: paint.red("reconnecting") };
  const rtt = model.rttMs === undefined ? "" : `, ${model.rttMs.toFixed(1)} ms`;
  const transport = model.transport === undefined ? "" : paint.dim(` (${model.transport}${rtt})`);
  const lines = [
    `${paint.bold("sally")}${paint.dim("  Ctrl-C to stop")}`,
    "",
    row("Link", `${state[model.linkState]} ${clip(model.node, Math.max(20, width - 40))}${transport}`),
  ];
  if (model.problem !== undefined) lines.push(row("", paint.yellow(printable(model.problem))));
  lines.push(...model.tunnels.map((tunnel) => tunnelRow(tunnel, paint)));
  const rate = model.requestsPerSecond.toFixed(model.requestsPerSecond < 10 ? 1 : 0);
  lines.push(
    row(
      "Requests",
      `${rate}/s, ${model.requestsTotal} in all, ${model.openStreams} open stream${model.openStreams === 1 ? "" : "s"}`,
    ),
    "",
  );
  for (const request of model.lastRequests) {
    const time = request.durationMs === undefined ? "" : paint.dim(` ${request.durationMs.toFixed(0)} ms`);
    const line = `${clip(request.method, 8).padEnd(9)}${clip(request.target, Math.max(10, width - 30))}`;
    lines.push(`${line} ${paintStatus(request.status, paint)}${time}`);
  }
  return lines;
}

const redrawMs = 250;

export interface LiveStatusOptions {
  readonly clock: Clock;
  readonly paint: Paint;
  readonly read: () => StatusModel;
  /** Of the terminal as it is now. */
  readonly size: () => { readonly columns: number; readonly rows: number };
  readonly write: (text: string) => void;
}

/** Redraws the screen in place until closed; the last state stays on the terminal. */
export class LiveStatus implements Screen {
  readonly #options: LiveStatusOptions;
  #drawn: readonly string[] = [];
  #timer: Timer | undefined;

  constructor(options: LiveStatusOptions) {
    this.#options = options;
  }

  start(): void {
    this.draw();
    this.#timer = this.#options.clock.after(redrawMs, () => this.start());
  }

  close(): void {
    this.#timer?.cancel();
    this.draw();
  }

  /** Takes the screen off, with the cursor where it began. */
  clear(): void {
    if (this.#drawn.length > 0) this.#options.write(`\u001b[${this.#drawn.length}A\u001b[J`);
    this.#drawn = [];
  }

  draw(): void {
    const { paint, read, size, write } = this.#options;
    const { columns, rows } = size();
    // One row stays free for the cursor: what scrolled off the top could not be drawn over.
    const lines = renderStatus(read(), paint, columns).slice(0, Math.max(1, rows - 1));
    if (lines.length === this.#drawn.length && lines.every((line, i) => line === this.#drawn[i])) return;
    const back = this.#drawn.length > 0 ? `\u001b[${this.#drawn.length}A` : "";
    // Without wrapping a line that is too long stays one line, so that going up by lines stays right.
    write(`${back}\u001b[?7l${lines.map((line) => `${line}\u001b[K\n`).join("")}\u001b[J\u001b[?7h`);
    this.#drawn = lines;
  }
}
