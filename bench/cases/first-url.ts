/** How long it takes from the start of the client to the first visitor's reply, with a server already running. */

import { directName, medianSample, type Bench, type Case, type Contender, type Row, type Sample } from "../bench.ts";
import { startFileOrigin, type Origin } from "../origin.ts";
import { loopback } from "../place.ts";
import { startServer, waitUntilServing } from "../tunnel.ts";

const places = { server: loopback, client: loopback };
const settleMs = 1_000;
const pollMs = 5;

export const firstUrlCase: Case = {
  name: "first-url",
  group: "first-url",
  title: "client's start to the first visitor's reply, server running",
  rateUnit: "",
  cpuUnit: "",
  run: async (bench) => {
    const origin = await startFileOrigin(bench.files.folder, { ...bench, place: loopback });
    const rows: Row[] = [];
    try {
      for (const contender of bench.contenders) {
        if (contender.name !== directName) rows.push(await measureStarts(bench, contender, origin));
      }
    } finally {
      await bench.keeper.stopAll();
    }
    return rows;
  },
};

async function measureStarts(bench: Bench, contender: Contender, origin: Origin): Promise<Row> {
  const samples: Sample[] = [];
  const announced: number[] = [];
  try {
    const server = await startServer(bench, contender, places);
    await Bun.sleep(settleMs);
    for (let round = 0; round < Math.max(3, bench.options.rounds); round++) {
      const startedMs = performance.now();
      const client = await server.startClient(origin.port);
      await waitUntilServing(client.visitor, loopback, client.processes, pollMs);
      samples.push({ p50Ms: performance.now() - startedMs, errors: 0 });
      if (client.readyMs !== undefined) announced.push(client.readyMs);
      await bench.keeper.stop(client.processes);
      await Bun.sleep(settleMs);
    }
    await bench.keeper.stop(server.processes);
  } catch (error) {
    const failure = error instanceof Error ? error.message : String(error);
    bench.progress(`${contender.name}: ${failure}`);
    return { contender: contender.name, sample: undefined, failure };
  }
  const middle = announced.sort((a, b) => a - b)[Math.floor(announced.length / 2)];
  const note = middle === undefined ? {} : { note: `said so itself after ${middle.toFixed(0)} ms` };
  return { contender: contender.name, sample: medianSample(samples), ...note };
}
