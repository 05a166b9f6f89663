/**
 * Micro benchmark of the multiplexer, both ends in one process: small requests and bulk, over memory and loopback TCP.
 * Usage: bun bench/micro/wire.ts [milliseconds per case]
 */

import { systemClock } from "../../src/core/clock.ts";
import type { Duplex } from "../../src/core/duplex.ts";
import type { SallyError } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import type { Session } from "../../src/ports/session.ts";
import { connectSocket } from "../../src/sockets/connect.ts";
import { listenTcp } from "../../src/sockets/listen.ts";
import { acceptLink, connectLink, type IncomingStream, type Link, type LinkOptions } from "../../src/wire/link.ts";
import { memorySessionPair, testAuth } from "../../src/wire/testing/memory-session.ts";
import { WindowBudget } from "../../src/wire/window-budget.ts";

const durationMs = Number(process.argv[2] ?? 1_500);
const requestBytes = new Uint8Array(120);
const replyBytes = new Uint8Array(1_200);
const bulkChunk = new Uint8Array(64 * 1024);

type Schedule = (task: () => void) => void;
type Carrier = "memory" | "tcp";

interface Case {
  readonly carrier: Carrier;
  readonly lanes: number;
  readonly schedule: Schedule;
  readonly scheduleName: string;
}

interface SocketSession extends Session {
  onLane: (lane: Duplex) => void;
}

function socketSession(openLane: Session["openLane"]): SocketSession {
  return {
    transport: "memory",
    remote: { host: "127.0.0.1", port: 0 },
    host: "bench",
    peerCertificate: undefined,
    exporter: undefined,
    isProxied: false,
    openLane,
    onLane: () => {},
    close() {},
    closed: new Promise<SallyError | undefined>(() => {}),
  };
}

async function sessions(carrier: Carrier): Promise<{ dialler: Session; acceptor: Session; stop: () => void }> {
  if (carrier === "memory") {
    const [dialler, acceptor] = memorySessionPair();
    return { dialler, acceptor, stop: () => dialler.close() };
  }
  const acceptor = socketSession(() => Promise.reject(new Error("the agent opens lanes")));
  const listener = await listenTcp({
    host: "127.0.0.1",
    port: 0,
    onConnection: ({ duplex }) => acceptor.onLane(duplex),
  });
  const dialler = socketSession(async (signal) => {
    const target = { kind: "tcp", host: "127.0.0.1", port: listener.address.port } as const;
    return (await connectSocket(target, { signal, timeoutMs: 5_000 })).duplex;
  });
  return { dialler, acceptor, stop: () => void listener.close() };
}

async function pair(
  options: Case,
  onStream: (stream: IncomingStream) => void,
): Promise<{ node: Link; stop: () => void }> {
  const { dialler, acceptor, stop } = await sessions(options.carrier);
  const common = (): LinkOptions => ({
    clock: systemClock,
    log: silentLogger,
    budget: new WindowBudget(limits.processWindowBudgetBytes),
    limits,
    schedule: options.schedule,
    onStream,
    onMessage() {},
    onClose() {},
  });
  const { signal } = new AbortController();
  const [node, agent] = await Promise.all([
    acceptLink(acceptor, testAuth("node"), common(), signal),
    connectLink(dialler, testAuth("agent"), { ...common(), lanes: options.lanes, agentVersion: "bench" }, signal),
  ]);
  while (node.laneCount < options.lanes) await Bun.sleep(5);
  return {
    node,
    stop() {
      node.close();
      agent.close();
      stop();
    },
  };
}

/** `concurrency` pooled streams, each with one small request under way. Requests per second, and CPU per request. */
async function smallRequests(options: Case, concurrency: number): Promise<string> {
  const { node, stop } = await pair(options, (stream) => {
    let asked = 0;
    stream.handler = {
      onData(chunk) {
        stream.consume(chunk.length);
        asked += chunk.length; // a frame may arrive in parts: one reply for each whole request
        if (asked < requestBytes.length) return;
        asked -= requestBytes.length;
        stream.write(replyBytes);
      },
      onEnd() {},
      onDrain() {},
      onClose() {},
    };
  });
  let done = 0;
  let isRunning = true;
  for (let i = 0; i < concurrency; i++) {
    const stream = node.open({ tunnel: "demo", protocol: "http" });
    let pending = 0;
    stream.handler = {
      onData(chunk) {
        stream.consume(chunk.length);
        pending += chunk.length;
        if (pending < replyBytes.length) return;
        pending -= replyBytes.length;
        if (pending !== 0) throw new Error("a reply without a request: the benchmark is wrong");
        done++;
        if (isRunning) stream.write(requestBytes);
      },
      onEnd() {},
      onDrain() {},
      onClose() {},
    };
    stream.write(requestBytes);
  }
  const before = process.cpuUsage();
  const start = performance.now();
  const doneBefore = done;
  await Bun.sleep(durationMs);
  const seconds = (performance.now() - start) / 1_000;
  const cpu = process.cpuUsage(before);
  isRunning = false;
  const count = done - doneBefore;
  const micros = (cpu.user + cpu.system) / count;
  stop();
  return `${Math.round(count / seconds).toLocaleString("en")} requests/s, ${micros.toFixed(1)} µs CPU each`;
}

async function bulk(options: Case): Promise<string> {
  let received = 0;
  const { node, stop } = await pair(options, (stream) => {
    stream.handler = {
      onData(chunk) {
        received += chunk.length;
        stream.consume(chunk.length);
      },
      onEnd() {},
      onDrain() {},
      onClose() {},
    };
  });
  const stream = node.open({ tunnel: "demo", protocol: "raw" });
  const state = { isRunning: true };
  const pump = (): void => {
    while (state.isRunning && stream.write(bulkChunk));
  };
  stream.handler = { onData() {}, onEnd() {}, onDrain: pump, onClose() {} };
  pump();
  const start = performance.now();
  await Bun.sleep(durationMs);
  state.isRunning = false;
  const rate = received / (performance.now() - start) / 1_000;
  stop();
  return `${rate.toFixed(0)} MB/s`;
}

const schedules: readonly [string, Schedule][] = [
  ["setImmediate", (task) => void setImmediate(task)],
  ["microtask", queueMicrotask],
  ["setTimeout 0", (task) => void setTimeout(task, 0)],
];

for (const carrier of ["memory", "tcp"] as const) {
  for (const lanes of [1, 8]) {
    for (const [scheduleName, schedule] of schedules) {
      if (carrier === "memory" && scheduleName !== "setImmediate") continue;
      const options: Case = { carrier, lanes, schedule, scheduleName };
      const small = await smallRequests(options, 64);
      // Memory hands on references, so its bulk figure would say nothing.
      const large = carrier === "memory" ? "not measured" : await bulk(options);
      process.stdout.write(`${carrier}, ${lanes} lanes, ${scheduleName}: c=64 ${small}; bulk ${large}\n`);
    }
  }
}
process.exit(0);
