/**
 * What the least possible relay on this runtime costs: `bun bench/micro/floor.ts [seconds]`. Needs nginx and wrk. Visitors
 * ask nginx directly, through one process that copies bytes between two sockets, and through two such processes in a
 * row, which is what a tunnel is without multiplexing, encryption and HTTP. In interleaved rounds; the median counts.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { writeFiles, startFileOrigin } from "../origin.ts";
import { Wrk } from "../load/wrk.ts";
import { loopback } from "../place.ts";
import { freePort, ProcessKeeper } from "../processes.ts";
import { Tools } from "../tools.ts";

interface Pipe {
  far: Socket | undefined;
  readonly waiting: Uint8Array[];
}

/** Copies bytes between visitors and a port, and does nothing else. */
function relay(port: number, target: number): void {
  Bun.listen<Pipe>({
    hostname: "127.0.0.1",
    port,
    socket: {
      binaryType: "uint8array",
      open(near) {
        near.data = { far: undefined, waiting: [] };
        void Bun.connect({
          hostname: "127.0.0.1",
          port: target,
          socket: {
            binaryType: "uint8array",
            open(far) {
              near.data.far = far;
              for (const chunk of near.data.waiting) far.write(chunk);
            },
            data: (_far, chunk) => void near.write(chunk),
            close: () => void near.end(),
          },
        });
      },
      data({ data: { far, waiting } }, chunk) {
        if (far === undefined) waiting.push(chunk.slice());
        else far.write(chunk);
      },
      close: ({ data }) => void data.far?.end(),
    },
  });
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

async function main(seconds: number): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "sally-floor-"));
  const keeper = new ProcessKeeper(scratch);
  const tools = new Tools(process.env["SALLY_PEERS"], process.env["PATH"]);
  try {
    const { folder } = writeFiles(scratch, 1);
    const origin = await startFileOrigin(folder, { keeper, tools, scratch, place: loopback });
    const [first, second] = [await freePort(), await freePort()];
    for (const [port, target] of [
      [first, origin.port],
      [second, first],
    ]) {
      keeper.start({
        name: "relay",
        argv: [process.execPath, import.meta.path, "relay", String(port), String(target)],
      });
    }
    await Bun.sleep(1_000);
    const wrk = new Wrk(tools);
    const ways = { direct: origin.port, "one relay": first, "two relays": second };
    const rates: Record<string, number[]> = {};
    for (let round = 0; round < 3; round++) {
      for (const [name, port] of Object.entries(ways)) {
        const visitor = { host: "127.0.0.1", port, hostHeader: "bench" };
        const load = { connections: 64, path: "/1k", isKeptAlive: true, seconds };
        const { requestsPerSecond } = await wrk.load(visitor, loopback, load);
        (rates[name] ??= []).push(requestsPerSecond);
      }
    }
    const direct = median(rates["direct"] ?? []);
    for (const [name, values] of Object.entries(rates)) {
      const rate = median(values);
      process.stdout.write(
        `${name.padEnd(12)} ${rate.toFixed(0).padStart(6)} requests/s  ${(rate / direct).toFixed(2)}\n`,
      );
    }
  } finally {
    await keeper.stopAll();
    rmSync(scratch, { recursive: true, force: true });
  }
}

const [mode, ...rest] = process.argv.slice(2);
if (mode === "relay") relay(Number(rest[0]), Number(rest[1]));
else await main(Number(mode ?? 5));
