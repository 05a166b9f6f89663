/**
 * Lines as they are between cities. One loses packets: 50 ms round trip, 2 % loss each way, 64 visitors at once with small
 * requests. One is long: 200 ms round trip, nothing lost but what its queue cannot hold, one visitor with a large file.
 */

import { Skipped, type Bench, type Case, type Contender, type Row } from "../bench.ts";
import { interleave } from "../interleave.ts";
import { startFileOrigin } from "../origin.ts";
import { createLossyLink, missingForLink, type LinkOptions, type LossyLink } from "../rig/rig.ts";
import { measureBulk } from "./bulk.ts";
import { measureRequests } from "./requests.ts";

const lossyLink = { delayMs: 25, lossPercent: 2, rateMbit: 100, queueKb: 1_000, seed: 1 };
/** The queue holds half of what is on the way. */
const longLink = { delayMs: 100, lossPercent: 0, rateMbit: 100, queueKb: 1_250, seed: 1 };
/** localtunnel takes visitors only on the address that its clients dial, and bore is not encrypted: both stay out. */
const leftOut = new Set(["localtunnel", "bore"]);

type Work = (places: LossyLink, contenders: readonly Contender[]) => Promise<readonly Row[]>;

async function overLink(bench: Bench, link: LinkOptions, work: Work): Promise<readonly Row[]> {
  const missing = missingForLink(bench.tools);
  if (missing !== undefined) throw new Skipped(missing);
  const places = await createLossyLink(link, bench);
  bench.cleanups.add(places.close);
  try {
    return await work(
      places,
      bench.contenders.filter(({ name }) => !leftOut.has(name)),
    );
  } finally {
    bench.cleanups.delete(places.close);
    await places.close();
  }
}

export const lossyCase: Case = {
  name: "lossy",
  group: "lossy",
  title: "1 KB, kept alive, c=64, link with 50 ms RTT and 2 % loss",
  rateUnit: "req/s",
  cpuUnit: "µs/req",
  run: (bench) =>
    overLink(bench, lossyLink, (places, contenders) => {
      const load = { connections: 64, path: "/1k", isKeptAlive: true };
      return interleave(bench, {
        places,
        contenders,
        startOrigin: () => startFileOrigin(bench.files.folder, { ...bench, place: places.client }),
        warmUp: (tunnel) => measureRequests(bench, tunnel, { ...load, seconds: 2 }, places),
        measure: (tunnel) => measureRequests(bench, tunnel, { ...load, seconds: bench.options.seconds }, places),
      });
    }),
};

export const longCase: Case = {
  name: "long",
  group: "long",
  title: "48 MiB down, SHA-256 checked, link with 200 ms RTT and 100 Mbit/s",
  rateUnit: "MB/s",
  cpuUnit: "s/GB",
  run: (bench) =>
    overLink(bench, longLink, (places, contenders) =>
      interleave(bench, {
        places,
        contenders,
        startOrigin: () => startFileOrigin(bench.files.folder, { ...bench, place: places.client }),
        measure: (tunnel) => measureBulk(tunnel, { mode: "down", file: bench.files.far, places }),
      }),
    ),
};
