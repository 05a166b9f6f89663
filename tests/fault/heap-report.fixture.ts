/** Loaded into a program under test: at SIGUSR2 it collects its garbage and says on stdout how much is left. */

import { heapStats } from "bun:jsc";

process.on("SIGUSR2", () => {
  Bun.gc(true);
  const { heapSize, objectCount } = heapStats();
  const mib = (bytes: number): number => Math.round((bytes / 1_048_576) * 10) / 10;
  const report = {
    event: "heap",
    objects: objectCount,
    heapMb: mib(heapSize),
    residentMb: mib(process.memoryUsage().rss),
  };
  process.stdout.write(`${JSON.stringify(report)}\n`);
});
