/** Runs wrk (no Lua script) and reads its report. */

import type { Place, Visitor } from "../place.ts";
import { run } from "../processes.ts";
import type { Tools } from "../tools.ts";

export interface LoadResult {
  readonly requests: number;
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Socket errors, time-outs and replies other than 2xx and 3xx. */
  readonly errors: number;
}

export interface LoadOptions {
  readonly connections: number;
  readonly seconds: number;
  readonly path: string;
  readonly isKeptAlive: boolean;
}

export class Wrk {
  readonly #program: string;

  constructor(tools: Tools) {
    this.#program = tools.need("wrk");
  }

  async load(visitor: Visitor, place: Place, options: LoadOptions): Promise<LoadResult> {
    const argv = [this.#program, "-t1", `-c${options.connections}`, `-d${options.seconds}s`, "--latency"];
    argv.push("--timeout", "10s", "-H", `Host: ${visitor.hostHeader}`);
    if (!options.isKeptAlive) argv.push("-H", "Connection: close");
    argv.push(`http://${visitor.host}:${visitor.port}${options.path}`);
    return parseWrk(await run(place.command(argv), { timeoutMs: (options.seconds + 30) * 1000 }));
  }
}

export function parseWrk(report: string): LoadResult {
  const number = (pattern: RegExp): number => Number(pattern.exec(report)?.[1] ?? 0);
  const percentile = (name: string): number => {
    const match = new RegExp(`^\\s+${name}%\\s+([\\d.]+)(us|ms|s|m)\\s*$`, "m").exec(report);
    const unit = { us: 0.001, ms: 1, s: 1000, m: 60_000 }[match?.[2] ?? "ms"] ?? 1;
    return Number(match?.[1] ?? NaN) * unit;
  };
  const sockets = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(report);
  const socketErrors = (sockets ?? []).slice(1).reduce((sum, count) => sum + Number(count), 0);
  return {
    requests: number(/(\d+) requests in/),
    requestsPerSecond: number(/Requests\/sec:\s+([\d.]+)/),
    p50Ms: percentile("50"),
    p99Ms: percentile("99"),
    errors: socketErrors + number(/Non-2xx or 3xx responses: (\d+)/),
  };
}
