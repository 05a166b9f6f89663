/** What a tunnel costs while nobody visits it. */

import { directName, type Case } from "../bench.ts";
import { interleave } from "../interleave.ts";
import { startFileOrigin } from "../origin.ts";
import { loopback } from "../place.ts";
import { readUsage } from "../usage.ts";
import { withCost } from "../tunnel.ts";

export const idleCase: Case = {
  name: "idle",
  group: "idle",
  title: "idle tunnel, no visitors",
  rateUnit: "",
  cpuUnit: "ms/s",
  run: (bench) =>
    interleave(bench, {
      contenders: bench.contenders.filter(({ name }) => name !== directName),
      startOrigin: () => startFileOrigin(bench.files.folder, { ...bench, place: loopback }),
      measure: async (tunnel) => {
        const { seconds } = bench.options;
        const { cpuMs } = await withCost(tunnel, () => Bun.sleep(seconds * 1000));
        const { residentMb } = readUsage(tunnel.processes.map((running) => running.pid));
        return { cpu: cpuMs / seconds, memoryMb: residentMb, errors: 0 };
      },
    }),
};
