import { expect, test } from "bun:test";
import { medianSample, type Sample } from "./bench.ts";
import { judge } from "./promises.ts";
import { formatReport, type CaseResult } from "./report.ts";

function result(name: string, samples: Readonly<Record<string, Sample | undefined>>): CaseResult {
  const rows = Object.entries(samples).map(([contender, sample]) => ({ contender, sample }));
  return { name, title: name, rateUnit: "req/s", cpuUnit: "µs/req", rows };
}

test("the median is taken per field, and errors of all rounds are kept", () => {
  const samples = [
    { rate: 10, p99Ms: 9, errors: 0 },
    { rate: 30, p99Ms: 1, errors: 2 },
    { rate: 20, errors: 0 },
  ];
  expect(medianSample(samples)).toEqual({ rate: 20, p99Ms: 5, errors: 2 });
  expect(medianSample([])).toBeUndefined();
});

test("a promise is judged by the better transport where it says so, and only where both sides were measured", () => {
  const verdicts = judge([
    result("bulk-down", {
      "sally-websocket": { rate: 300, errors: 0 },
      "sally-quic": { rate: 100, errors: 0 },
      frp: { rate: 250, errors: 0 },
      ssh: undefined,
    }),
  ]);
  expect(verdicts).toEqual([
    { promise: "bulk-down: better transport ≥ 1 × frp", found: "1.20 × (sally-websocket)", isKept: true },
  ]);
});

test("the table gives ratios to the origin fetched directly and names what failed or is missing", () => {
  const small = result("small-64", {
    direct: { rate: 40_000, errors: 0 },
    frp: { rate: 10_000, cpu: 99.5, errors: 0 },
  });
  const broken = { contender: "ssh", sample: undefined, failure: "it ended:\n| no" };
  const text = formatReport({
    command: "npm run bench",
    machine: { date: "", commit: "", processor: "", cores: 2, memoryGb: 4, kernel: "", bun: "" },
    seconds: 1,
    rounds: 1,
    bulkMb: 1,
    contenders: [],
    missing: ["bore (bore not installed)"],
    results: [{ ...small, rows: [...small.rows, broken] }],
  });
  expect(text).toMatch(/\| small-64 \| frp +\| 10000 req\/s +\| 0\.25 +\|/);
  expect(text).toContain("99.5 µs/req");
  expect(text).toContain("failed: it ended: / no");
  expect(text).toContain("Not measured: bore (bore not installed).");
});
