/** One large body in each direction, compared byte for byte by its SHA-256. */

import { join } from "node:path";
import { directName, type Bench, type Case, type Sample } from "../bench.ts";
import { interleave } from "../interleave.ts";
import type { BulkResult } from "../load/bulk-client.ts";
import { startFileOrigin, startUploadOrigin } from "../origin.ts";
import { loopback } from "../place.ts";
import { run } from "../processes.ts";
import { withCost, type Tunnel } from "../tunnel.ts";

const bulkClient = join(import.meta.dir, "..", "load", "bulk-client.ts");
const timeoutMs = 180_000;

export const bulkCases: readonly Case[] = [
  {
    name: "bulk-down",
    group: "bulk",
    title: "large body down, SHA-256 checked",
    rateUnit: "MB/s",
    cpuUnit: "s/GB",
    run: (bench) =>
      interleave(bench, {
        startOrigin: () => startFileOrigin(bench.files.folder, { ...bench, place: loopback }),
        measure: (tunnel) => measureBulk(bench, tunnel, "down"),
      }),
  },
  {
    name: "bulk-up",
    group: "bulk",
    title: "large body up, SHA-256 checked",
    rateUnit: "MB/s",
    cpuUnit: "s/GB",
    run: (bench) =>
      interleave(bench, {
        startOrigin: () => startUploadOrigin({ ...bench, place: loopback }),
        measure: (tunnel) => measureBulk(bench, tunnel, "up"),
      }),
  },
];

async function measureBulk(bench: Bench, tunnel: Tunnel, mode: "down" | "up"): Promise<Sample> {
  const { host, port, hostHeader } = tunnel.visitor;
  const { bulkPath, bulkBytes, bulkSha256 } = bench.files;
  const subject = mode === "down" ? "/bulk" : bulkPath;
  const argv = [process.execPath, bulkClient, mode, host, String(port), hostHeader, subject];
  const { result, cpuMs, peakMb } = await withCost(tunnel, () => run(argv, { timeoutMs }));
  const { seconds, bytes, sha256, error } = JSON.parse(result) as BulkResult; // Our own program printed it.
  if (error !== undefined) throw new Error(error);
  if (bytes !== bulkBytes || sha256 !== bulkSha256) {
    throw new Error(`the body was damaged: ${bytes} of ${bulkBytes} bytes, SHA-256 ${sha256} instead of ${bulkSha256}`);
  }
  const rate = bulkBytes / 1e6 / seconds;
  if (tunnel.contender.name === directName) return { rate, errors: 0 };
  return { rate, cpu: cpuMs / 1000 / (bulkBytes / 1e9), memoryMb: peakMb, errors: 0 };
}
