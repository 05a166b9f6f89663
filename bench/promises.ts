/** The promises of the design that this benchmark can judge, each worked out from the rows of one run. */

import { directName, type Sample } from "./bench.ts";
import type { CaseResult } from "./report.ts";

export interface Verdict {
  readonly promise: string;
  readonly found: string;
  readonly isKept: boolean;
}

type Lookup = (caseName: string, contender: string) => Sample | undefined;
type Field = "rate" | "p50Ms" | "p99Ms";

/** Promises whose figures were all measured; the others are left out. */
export function judge(results: readonly CaseResult[]): Verdict[] {
  const lookup: Lookup = (caseName, contender) =>
    results.find(({ name }) => name === caseName)?.rows.find((row) => row.contender === contender)?.sample;
  return [
    atLeast(lookup, { at: "small-64", ours: ["sally-websocket"], theirs: directName, factor: 0.5 }),
    atLeast(lookup, { at: "small-64", ours: ["sally-quic"], theirs: directName, factor: 0.42 }),
    ...["sally-websocket", "sally-quic"].flatMap((name) => [
      atLeast(lookup, { at: "small-64", ours: [name], theirs: "frp", factor: 1 }),
      atLeast(lookup, { at: "small-64", ours: [name], theirs: "rathole", factor: 1 }),
      atLeast(lookup, { at: "small-64", ours: [name], theirs: "ssh", factor: 3 }),
      atMost(lookup, { at: "small-64", ours: [name], theirs: "frp", factor: 1 }),
    ]),
    ...["bulk-down", "bulk-up"].flatMap((at) => [
      atLeast(lookup, { at, ours: ["sally-websocket", "sally-quic"], theirs: "frp", factor: 1 }),
      atLeast(lookup, { at, ours: ["sally-websocket", "sally-quic"], theirs: "frp-tcp", factor: 1 }),
      atLeast(lookup, { at, ours: ["sally-websocket", "sally-quic"], theirs: "ssh", factor: 1 }),
    ]),
    ...["sally-websocket", "sally-quic"].map((name) => firstUrl(lookup, name)),
    ...["frp", "frp-tcp", "frp-quic"].map((theirs) =>
      atMost(lookup, { at: "lossy", ours: ["sally-websocket", "sally-quic"], theirs, factor: 0.5 }),
    ),
  ].filter((verdict) => verdict !== undefined);
}

interface Comparison {
  readonly at: string;
  /** The better of these counts. */
  readonly ours: readonly string[];
  readonly theirs: string;
  readonly factor: number;
}

function atLeast(lookup: Lookup, { at, ours, theirs, factor }: Comparison): Verdict | undefined {
  const best = pick(lookup, at, ours, "rate", (a, b) => b - a);
  const other = lookup(at, theirs)?.rate;
  if (best === undefined || other === undefined) return undefined;
  const ratio = best.value / other;
  return {
    promise: `${at}: ${ours.length > 1 ? "better transport" : best.name} ≥ ${factor} × ${theirs}`,
    found: `${ratio.toFixed(2)} × (${best.name})`,
    isKept: ratio >= factor,
  };
}

function atMost(lookup: Lookup, { at, ours, theirs, factor }: Comparison): Verdict | undefined {
  const best = pick(lookup, at, ours, "p99Ms", (a, b) => a - b);
  const other = lookup(at, theirs)?.p99Ms;
  if (best === undefined || other === undefined) return undefined;
  const ratio = best.value / other;
  return {
    promise: `${at}: p99 of ${ours.length > 1 ? "the better transport" : best.name} ≤ ${factor} × ${theirs}'s`,
    found: `${ratio.toFixed(2)} × (${best.value.toFixed(1)} ms, ${best.name})`,
    isKept: ratio <= factor,
  };
}

function firstUrl(lookup: Lookup, name: string): Verdict | undefined {
  const value = lookup("first-url", name)?.p50Ms;
  if (value === undefined) return undefined;
  return { promise: `first-url: ${name} ≤ 500 ms`, found: `${value.toFixed(0)} ms`, isKept: value <= 500 };
}

function pick(
  lookup: Lookup,
  at: string,
  names: readonly string[],
  ...[field, order]: [Field, (a: number, b: number) => number]
): { name: string; value: number } | undefined {
  return names
    .map((name) => ({ name, value: lookup(at, name)?.[field] }))
    .filter((entry): entry is { name: string; value: number } => entry.value !== undefined)
    .sort((a, b) => order(a.value, b.value))[0];
}
