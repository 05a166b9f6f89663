/** Small requests over a slow link that loses packets: 50 ms round trip, 2 % loss each way, 64 visitors at once. */

import { Skipped, type Case } from "../bench.ts";
import { interleave } from "../interleave.ts";
import { startFileOrigin } from "../origin.ts";
import { createLossyLink, missingForLink } from "../rig/rig.ts";
import { measureRequests } from "./requests.ts";

const link = { delayMs: 25, lossPercent: 2, rateMbit: 100, queueKb: 1_000, seed: 1 };
/** localtunnel takes visitors only on the address that its clients dial, and bore is not encrypted: both stay out. */
const leftOut = new Set(["localtunnel", "bore"]);

export const lossyCase: Case = {
  name: "lossy",
  group: "lossy",
  title: "1 KB, kept alive, c=64, link with 50 ms RTT and 2 % loss",
  rateUnit: "req/s",
  cpuUnit: "µs/req",
  run: async (bench) => {
    const missing = missingForLink(bench.tools);
    if (missing !== undefined) throw new Skipped(missing);
    const places = await createLossyLink(link, bench);
    bench.cleanups.add(places.close);
    const load = { connections: 64, path: "/1k", isKeptAlive: true };
    try {
      return await interleave(bench, {
        places,
        contenders: bench.contenders.filter(({ name }) => !leftOut.has(name)),
        startOrigin: () => startFileOrigin(bench.files.folder, { ...bench, place: places.client }),
        warmUp: (tunnel) => measureRequests(bench, tunnel, { ...load, seconds: 2 }, places),
        measure: (tunnel) => measureRequests(bench, tunnel, { ...load, seconds: bench.options.seconds }, places),
      });
    } finally {
      bench.cleanups.delete(places.close);
      await places.close();
    }
  },
};
