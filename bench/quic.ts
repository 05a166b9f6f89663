/**
 * Bulk throughput of QUIC lanes on loopback, agent and node in two processes: `bun bench/quic.ts [seconds]`.
 * Both directions, one and eight lanes, several chunk sizes; the receiver consumes at once.
 */

import { createTestAuthority } from "../tests/contract/certificates.fixture.ts";
import { systemClock } from "../src/core/clock.ts";
import type { Duplex } from "../src/core/duplex.ts";
import { SallyError } from "../src/core/errors.ts";
import { silentLogger } from "../src/core/log.ts";
import { createQuicConnector, QuicEndpoints, type QuicConnector } from "../src/transport/quic/connector.ts";
import { listenQuic } from "../src/transport/quic/listener.ts";
import type { QuicTls } from "../src/transport/quic/options.ts";

/** The first byte that the agent sends on a lane says what the node does: 0 takes, n sends chunks of n × 16 KiB. */
const unit = 16 * 1024;

/** Writes until told to stop, waiting when the lane says so. */
function pump(lane: Duplex, chunk: Uint8Array, isDone: () => boolean): () => void {
  return () => {
    while (!isDone() && lane.write(chunk));
  };
}

async function node(tls: QuicTls): Promise<void> {
  let received = 0;
  const listener = await listenQuic({
    host: "127.0.0.1",
    port: 0,
    tls,
    onSession: (session) => {
      session.onLane = (lane) => {
        let isFirst = true;
        let onDrain = (): void => {};
        lane.handler = {
          onData(chunk) {
            if (isFirst && chunk[0]! > 0) {
              onDrain = pump(lane, new Uint8Array(chunk[0]! * unit), () => false);
              onDrain();
            }
            isFirst = false;
            received += chunk.length;
            lane.consume(chunk.length);
          },
          onEnd() {},
          onDrain: () => onDrain(),
          onClose() {
            onDrain = () => {};
          },
        };
      };
    },
    log: silentLogger,
    clock: systemClock,
  });
  process.on("message", () => process.send?.({ received, cpu: process.cpuUsage(), rss: process.memoryUsage.rss() }));
  process.send?.({ port: listener.address.port });
}

interface Report {
  readonly port: number;
  readonly received: number;
  readonly rss: number;
}

interface Case {
  readonly lanes: number;
  readonly chunkKib: number;
  readonly isDownload: boolean;
}

interface Rig {
  readonly connector: QuicConnector;
  readonly seconds: number;
  /** What the node received so far. */
  readonly ask: () => Promise<Report>;
}

async function measure({ connector, ask, seconds }: Rig, { lanes, chunkKib, isDownload }: Case): Promise<void> {
  const never = new AbortController().signal;
  const session = await connector.connect(never);
  let received = 0;
  let isDone = false;
  for (let i = 0; i < lanes; i++) {
    const lane = await session.openLane(never);
    const more = pump(lane, new Uint8Array(chunkKib * 1024), () => isDone);
    lane.handler = {
      onData(chunk) {
        received += chunk.length;
        lane.consume(chunk.length);
      },
      onEnd() {},
      onDrain: isDownload ? () => {} : more,
      onClose() {},
    };
    lane.write(Uint8Array.of(isDownload ? (chunkKib * 1024) / unit : 0));
    if (!isDownload) more();
  }
  await Bun.sleep(500);
  const before = isDownload ? received : (await ask()).received;
  const startMs = performance.now();
  await Bun.sleep(seconds * 1_000);
  const { received: taken, rss } = await ask();
  const bytes = (isDownload ? received : taken) - before;
  const rate = bytes / (performance.now() - startMs) / 1_000;
  const what = `${isDownload ? "node → agent" : "agent → node"}, ${lanes} lane(s), ${chunkKib} KiB`;
  process.stdout.write(
    `${what.padEnd(36)} ${rate.toFixed(0).padStart(4)} MB/s   node RSS ${(rss / 1e6).toFixed(0)} MB\n`,
  );
  isDone = true;
  session.close(new SallyError("CANCELLED"));
  await session.closed;
}

async function main(seconds: number): Promise<void> {
  const authority = await createTestAuthority();
  const identity = async (role: "agent" | "node"): Promise<QuicTls> => ({
    ...(await authority.issue({ role })),
    caPem: authority.caPem,
  });
  const replies: ((message: Report) => void)[] = [];
  const reply = (): Promise<Report> => new Promise((resolve) => replies.push(resolve));
  const ready = reply();
  const child = Bun.spawn([process.execPath, import.meta.path, "node"], {
    env: { ...process.env, BENCH_TLS: JSON.stringify(await identity("node")) },
    ipc: (message) => replies.shift()?.(message),
    stdio: ["ignore", "inherit", "inherit"],
  });
  const { port } = await ready;
  const endpoints = new QuicEndpoints();
  const connector = createQuicConnector({
    address: { host: "127.0.0.1", port },
    tls: await identity("agent"),
    endpoints,
    clock: systemClock,
  });
  const ask = (): Promise<Report> => {
    const answer = reply();
    child.send("report");
    return answer;
  };
  for (const isDownload of [false, true]) {
    for (const lanes of [1, 8]) {
      for (const chunkKib of [16, 64, 256]) await measure({ connector, seconds, ask }, { lanes, chunkKib, isDownload });
    }
  }
  await endpoints.close();
  child.kill();
}

if (process.argv[2] === "node") await node(JSON.parse(process.env["BENCH_TLS"] ?? "{}"));
else await main(Number(process.argv[2] ?? 2));
