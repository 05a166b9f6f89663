/**
 * Measures all contenders in turns: every round measures each one once, starting with another one each time, so that a
 * machine that slows down in the middle slows all of them alike. All tunnels are up for the whole case.
 */

import { medianSample, type Bench, type Contender, type Row, type Sample } from "./bench.ts";
import type { Origin } from "./origin.ts";
import { loopback } from "./place.ts";
import { startTunnel, type Places, type Tunnel } from "./tunnel.ts";

export interface Interleaving {
  startOrigin(): Promise<Origin>;
  readonly places?: Places;
  readonly contenders?: readonly Contender[];
  /** Brings compilers and pools to temperature; not counted. */
  warmUp?(tunnel: Tunnel): Promise<unknown>;
  measure(tunnel: Tunnel): Promise<Sample>;
}

export async function interleave(bench: Bench, plan: Interleaving): Promise<Row[]> {
  const contenders = plan.contenders ?? bench.contenders;
  const places = plan.places ?? { server: loopback, client: loopback };
  const failures = new Map<string, string>();
  const samples = new Map<string, Sample[]>(contenders.map(({ name }) => [name, []]));
  const attempt = async <T>(name: string, work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      failures.set(name, error instanceof Error ? error.message : String(error));
      bench.progress(`${name}: ${failures.get(name)}`);
      return undefined;
    }
  };
  try {
    const origin = await plan.startOrigin();
    const tunnels: Tunnel[] = [];
    for (const contender of contenders) {
      const tunnel = await attempt(contender.name, () => startTunnel(bench, contender, { origin, places }));
      if (tunnel !== undefined) tunnels.push(tunnel);
    }
    for (const tunnel of tunnels) await attempt(tunnel.contender.name, async () => plan.warmUp?.(tunnel));
    for (let round = 0; round < bench.options.rounds; round++) {
      const turn = tunnels.length === 0 ? 0 : round % tunnels.length;
      for (const tunnel of [...tunnels.slice(turn), ...tunnels.slice(0, turn)]) {
        const { name } = tunnel.contender;
        if (failures.has(name)) continue;
        const sample = await attempt(name, () => plan.measure(tunnel));
        if (sample !== undefined) samples.get(name)?.push(sample);
      }
      bench.progress(`round ${round + 1} of ${bench.options.rounds} done`);
    }
  } finally {
    await bench.keeper.stopAll();
  }
  return contenders.map(({ name }) => {
    const failure = failures.get(name);
    const sample = medianSample(samples.get(name) ?? []);
    return { contender: name, sample, ...(failure === undefined ? {} : { failure }) };
  });
}
