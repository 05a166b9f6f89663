/** Resident memory of processes, as the kernel counts it, and how far it rose while something went on. */

import { readFileSync } from "node:fs";

/** Resident bytes of a process now. */
export function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kilobytes === undefined) throw new Error(`process ${pid} has no resident memory`);
  return Number(kilobytes) * 1_024;
}

/** Open files that a process of ours may have at most: Bun raises its own limit to that. */
export function openFilesMax(): number {
  const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
  return hard === undefined ? Infinity : Number(hard);
}

/** Looks at processes again and again until it is disposed of. */
export class MemoryWatch implements Disposable {
  readonly #startBytes = new Map<number, number>();
  readonly #peakBytes = new Map<number, number>();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(pids: readonly number[], everyMs = 100) {
    for (const pid of pids) this.#startBytes.set(pid, residentBytes(pid));
    this.#timer = setInterval(() => this.#look(), everyMs);
  }

  /** How far above its start each process has been; in the order given. */
  get growthBytes(): number[] {
    this.#look();
    return [...this.#startBytes].map(([pid, start]) => (this.#peakBytes.get(pid) ?? start) - start);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const pid of this.#startBytes.keys()) {
      this.#peakBytes.set(pid, Math.max(this.#peakBytes.get(pid) ?? 0, residentBytes(pid)));
    }
  }
}
