/**
 * What processes cost, read from /proc: processor time of whole process trees and resident memory. A child's time moves
 * to its parent when it is reaped, so own plus reaped time over a tree never loses or doubles anything.
 */

import { readdirSync, readFileSync, writeFileSync } from "node:fs";

export interface Usage {
  readonly cpuMs: number;
  readonly residentMb: number;
  /** The highest resident memory since the last `resetPeaks`. */
  readonly peakMb: number;
}

const clockTicksPerSecond = 100;

interface ProcessLine {
  readonly pid: number;
  readonly parent: number;
  readonly ticks: number;
}

/** Sums over the given processes and all their descendants. */
export function readUsage(pids: readonly number[]): Usage {
  const tree = treeOf(pids);
  let residentKb = 0;
  let peakKb = 0;
  for (const { pid } of tree) {
    const status = readProc(`/proc/${pid}/status`);
    residentKb += field(status, "VmRSS");
    peakKb += field(status, "VmHWM");
  }
  const ticks = tree.reduce((sum, line) => sum + line.ticks, 0);
  return { cpuMs: (ticks * 1000) / clockTicksPerSecond, residentMb: residentKb / 1024, peakMb: peakKb / 1024 };
}

/** Starts a new peak measurement. Without the right to do so the peak is the one since the start of the process. */
export function resetPeaks(pids: readonly number[]): void {
  for (const { pid } of treeOf(pids)) {
    try {
      writeFileSync(`/proc/${pid}/clear_refs`, "5");
    } catch {
      // Another user's process, or one that has just ended.
    }
  }
}

function treeOf(pids: readonly number[]): ProcessLine[] {
  const all = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readProcess(Number(name)))
    .filter((line) => line !== undefined);
  const wanted = new Set(pids);
  for (let size = -1; size !== wanted.size;) {
    size = wanted.size;
    for (const line of all) if (wanted.has(line.parent)) wanted.add(line.pid);
  }
  return all.filter((line) => wanted.has(line.pid));
}

function readProcess(pid: number): ProcessLine | undefined {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === "") return undefined;
  // The second field is the program's name in parentheses and may hold spaces.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const at = (index: number): number => Number(fields[index] ?? 0);
  return { pid, parent: at(1), ticks: at(11) + at(12) + at(13) + at(14) };
}

function readProc(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function field(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
}
