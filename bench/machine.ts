/** The facts without which a figure means nothing. */

import { cpus, release, totalmem } from "node:os";
import { run } from "./processes.ts";

export interface Machine {
  readonly date: string;
  readonly commit: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly kernel: string;
  readonly bun: string;
}

export async function describeMachine(root: string): Promise<Machine> {
  const commit = await run(["git", "-C", root, "rev-parse", "--short", "HEAD"]).catch(() => "unknown");
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: commit.trim(),
    processor: cpus()[0]?.model.trim() ?? "unknown processor",
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    bun: Bun.version,
  };
}
