/** What every case of the benchmark is given, and the two words it speaks in: contenders go in, rows come out. */

import type { Certificate } from "./certificate.ts";
import type { Wrk } from "./load/wrk.ts";
import type { Options } from "./options.ts";
import type { Files } from "./origin.ts";
import type { Peer } from "./peers/peer.ts";
import type { ProcessKeeper } from "./processes.ts";
import type { Tools } from "./tools.ts";

export interface Bench {
  readonly options: Options;
  readonly keeper: ProcessKeeper;
  readonly tools: Tools;
  readonly scratch: string;
  readonly certificate: Certificate;
  readonly files: Files;
  readonly wrk: Wrk;
  readonly contenders: readonly Contender[];
  /** What has to be undone even when the run is broken off; whoever adds a thing removes it when it has undone it. */
  readonly cleanups: Set<() => Promise<void>>;
  /** Tells whoever watches what is being done. */
  progress(text: string): void;
}

/** A tunnel that is measured, or the origin itself where `peer` is undefined. */
export interface Contender {
  readonly name: string;
  readonly setup: string;
  readonly version: string;
  readonly peer: Peer | undefined;
}

export const directName = "direct";

/** What one measurement found; what does not apply is left out. */
export interface Sample {
  readonly rate?: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly cpu?: number;
  readonly memoryMb?: number;
  readonly errors: number;
}

export interface Row {
  readonly contender: string;
  /** Medians over the rounds; undefined when nothing was measured. */
  readonly sample: Sample | undefined;
  readonly note?: string;
  readonly failure?: string;
}

export interface Case {
  readonly name: string;
  /** What `--only` selects. */
  readonly group: string;
  readonly title: string;
  readonly rateUnit: string;
  readonly cpuUnit: string;
  run(bench: Bench): Promise<readonly Row[]>;
}

/** A case that cannot run here, with the reason. */
export class Skipped extends Error {}

const sampleFields = ["rate", "p50Ms", "p99Ms", "cpu", "memoryMb"] as const;

/** The middle of each field; errors are summed, since one round with errors is not made good by two without. */
export function medianSample(samples: readonly Sample[]): Sample | undefined {
  if (samples.length === 0) return undefined;
  const middles: Partial<Record<(typeof sampleFields)[number], number>> = {};
  for (const field of sampleFields) {
    const values = samples
      .map((sample) => sample[field])
      .filter((value) => value !== undefined)
      .sort((a, b) => a - b);
    const middle = values[Math.floor(values.length / 2)];
    const lower = values[Math.floor((values.length - 1) / 2)];
    if (middle !== undefined && lower !== undefined) middles[field] = (middle + lower) / 2;
  }
  return { ...middles, errors: samples.reduce((sum, sample) => sum + sample.errors, 0) };
}
