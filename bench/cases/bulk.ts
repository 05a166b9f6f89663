/** One large body in each direction, compared byte for byte by its SHA-256. */

import { basename, join } from "node:path";
import { directName, type Case, type Sample } from "../bench.ts";
import { interleave } from "../interleave.ts";
import type { BulkResult } from "../load/bulk-client.ts";
import { type LargeFile, startFileOrigin, startUploadOrigin } from "../origin.ts";
import { loopback } from "../place.ts";
import { run } from "../processes.ts";
import { withCost, type Places, type Tunnel } from "../tunnel.ts";

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
        measure: (tunnel) => measureBulk(tunnel, { mode: "down", file: bench.files.bulk }),
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
        measure: (tunnel) => measureBulk(tunnel, { mode: "up", file: bench.files.bulk }),
      }),
  },
];

interface BulkOptions {
  readonly mode: "down" | "up";
  readonly file: LargeFile;
  readonly places?: Places;
}

/** One body through the tunnel. */
export async function measureBulk(tunnel: Tunnel, options: BulkOptions): Promise<Sample> {
  const { mode, file, places = { server: loopback, client: loopback } } = options;
  const { host, port, hostHeader } = tunnel.visitor;
  const subject = mode === "down" ? `/${basename(file.path)}` : file.path;
  const argv = [process.execPath, bulkClient, mode, host, String(port), hostHeader, subject];
  const { result, cpuMs, peakMb } = await withCost(tunnel, () => run(places.server.command(argv), { timeoutMs }));
  const { seconds, bytes, sha256, error } = JSON.parse(result) as BulkResult; // Our own program printed it.
  if (error !== undefined) throw new Error(error);
  if (bytes !== file.bytes || sha256 !== file.sha256) {
    throw new Error(
      `the body was damaged: ${bytes} of ${file.bytes} bytes, SHA-256 ${sha256} instead of ${file.sha256}`,
    );
  }
  const rate = file.bytes / 1e6 / seconds;
  if (tunnel.contender.name === directName) return { rate, errors: 0 };
  return { rate, cpu: cpuMs / 1000 / (file.bytes / 1e9), memoryMb: peakMb, errors: 0 };
}
