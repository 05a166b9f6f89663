/** Turns the rows of a run into one Markdown table, with ratios to the origin fetched directly. */

import { directName, type Case, type Contender, type Row } from "./bench.ts";
import type { Machine } from "./machine.ts";
import { judge } from "./promises.ts";

export interface CaseResult extends Pick<Case, "name" | "title" | "rateUnit" | "cpuUnit"> {
  readonly rows: readonly Row[];
  /** Why the case did not run. */
  readonly skipped?: string;
}

export interface Report {
  readonly command: string;
  readonly machine: Machine;
  readonly seconds: number;
  readonly rounds: number;
  readonly bulkMb: number;
  readonly contenders: readonly Contender[];
  readonly missing: readonly string[];
  readonly results: readonly CaseResult[];
}

const columns = ["case", "tunnel", "rate", "× direct", "p50 ms", "p99 ms", "CPU", "memory MB", "errors", "remarks"];

export function formatReport(report: Report): string {
  const { machine } = report;
  const parts = [
    "# Benchmarks",
    `\`${report.command}\`, ${machine.date}, commit ${machine.commit}.`,
    `Machine: ${machine.processor}, ${machine.cores} cores, ${machine.memoryGb} GB, Linux ${machine.kernel}, Bun ${machine.bun}.`,
    `Each figure is the median of ${report.rounds} interleaved round(s) of ${report.seconds} s on the same machine; visitors,` +
      " origin (nginx, one worker) and both ends of the tunnel share its cores, so ratios mean more than absolute" +
      ` figures. The large body has ${report.bulkMb} MB. CPU and memory are those of the tunnel's processes on both` +
      " ends together; memory is the peak of a measurement (for the idle tunnel what it held).",
    "## What was measured",
    table(
      ["tunnel", "version", "set-up"],
      report.contenders.map(({ name, version, setup }) => [name, version, setup]),
    ),
    ...(report.missing.length === 0 ? [] : [`Not measured: ${report.missing.join("; ")}.`]),
    "## Results",
    table(columns, report.results.flatMap(caseRows)),
    ...promiseSection(report.results),
  ];
  return `${parts.join("\n\n")}\n`;
}

function promiseSection(results: readonly CaseResult[]): string[] {
  const verdicts = judge(results);
  if (verdicts.length === 0) return [];
  const rows = verdicts.map(({ promise, found, isKept }) => [promise, found, isKept ? "kept" : "**broken**"]);
  return ["## Promises", table(["promise", "found", ""], rows)];
}

function caseRows(result: CaseResult): string[][] {
  if (result.skipped !== undefined)
    return [[result.title, "", "", "", "", "", "", "", "", `skipped: ${result.skipped}`]];
  const direct = result.rows.find((row) => row.contender === directName)?.sample?.rate;
  return result.rows.map((row) => {
    const { sample } = row;
    const ratio = sample?.rate === undefined || direct === undefined ? "" : (sample.rate / direct).toFixed(2);
    return [
      result.title,
      row.contender,
      withUnit(sample?.rate, result.rateUnit),
      ratio,
      figure(sample?.p50Ms),
      figure(sample?.p99Ms),
      withUnit(sample?.cpu, result.cpuUnit),
      figure(sample?.memoryMb),
      sample === undefined ? "" : String(sample.errors),
      [row.note, row.failure === undefined ? undefined : `failed: ${oneLine(row.failure)}`]
        .filter((text) => text !== undefined)
        .join("; "),
    ];
  });
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll("|", "/").slice(0, 200);
}

function withUnit(value: number | undefined, unit: string): string {
  return value === undefined ? "" : `${figure(value)} ${unit}`.trim();
}

/** Three significant digits. */
function figure(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return "";
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((text, column) => Math.max(3, text.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (cells[column] ?? "").padEnd(width)).join(" | ")} |`;
  return [line(head), `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...rows.map(line)].join("\n");
}
