/** Many small exchanges: 1 KB kept alive, a new connection per request, and 64 KB replies. */

import { directName, type Bench, type Case, type Row, type Sample } from "../bench.ts";
import { interleave } from "../interleave.ts";
import type { LoadOptions } from "../load/wrk.ts";
import { startFileOrigin } from "../origin.ts";
import { loopback } from "../place.ts";
import { withCost, type Places, type Tunnel } from "../tunnel.ts";

interface RequestCase {
  readonly name: string;
  readonly group: string;
  readonly title: string;
  readonly load: Omit<LoadOptions, "seconds">;
}

const plans: readonly RequestCase[] = [
  {
    name: "small-64",
    group: "small",
    title: "1 KB, kept alive, c=64",
    load: { connections: 64, path: "/1k", isKeptAlive: true },
  },
  {
    name: "small-512",
    group: "small",
    title: "1 KB, kept alive, c=512",
    load: { connections: 512, path: "/1k", isKeptAlive: true },
  },
  {
    name: "connections",
    group: "connections",
    title: "1 KB, new connection per request, c=64",
    load: { connections: 64, path: "/1k", isKeptAlive: false },
  },
  {
    name: "replies-64k",
    group: "replies",
    title: "64 KB replies, kept alive, c=64",
    load: { connections: 64, path: "/64k", isKeptAlive: true },
  },
];

export const requestCases: readonly Case[] = plans.map(({ name, group, title, load }) => ({
  name,
  group,
  title,
  rateUnit: "req/s",
  cpuUnit: "µs/req",
  run: (bench: Bench): Promise<readonly Row[]> => {
    const { keeper, tools, scratch, files } = bench;
    return interleave(bench, {
      startOrigin: () => startFileOrigin(files.folder, { keeper, tools, scratch, place: loopback }),
      warmUp: (tunnel) => measureRequests(bench, tunnel, { ...load, seconds: 1 }),
      measure: (tunnel) => measureRequests(bench, tunnel, { ...load, seconds: bench.options.seconds }),
    });
  },
}));

/** One run of the load generator, with what it cost the tunnel. */
export async function measureRequests(
  bench: Bench,
  tunnel: Tunnel,
  load: LoadOptions,
  places: Places = { server: loopback, client: loopback },
): Promise<Sample> {
  const { result, cpuMs, peakMb } = await withCost(tunnel, () => bench.wrk.load(tunnel.visitor, places.server, load));
  if (result.requests === 0) throw new Error("not one request was answered");
  const { requestsPerSecond: rate, p50Ms, p99Ms, errors } = result;
  if (tunnel.contender.name === directName) return { rate, p50Ms, p99Ms, errors };
  return { rate, p50Ms, p99Ms, errors, cpu: (cpuMs * 1000) / result.requests, memoryMb: peakMb };
}
