/**
 * Parties that stop reading: visitors in the middle of endless downloads, origins that take nothing of endless uploads,
 * a process that is stopped. Nobody may grow by more than the windows and queues of the streams, whatever is offered.
 */

import { expect, setDefaultTimeout, test } from "bun:test";
import type { Socket } from "bun";
import { limits } from "../../src/core/limits.ts";
import { note, overBoth, type Transport } from "../support/fault-rig.ts";
import { MemoryWatch, residentBytes } from "../support/process-memory.ts";
import { type SallyProcess, startAgent, startNode, type TestNode } from "../support/sally.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(120_000);

const mebibyte = 1024 * 1024;
const streamCount = 50;
/** Bun reads so much at once; it cannot be told otherwise. */
const readBytes = 512 * 1024;
/** Of each stream a process holds, beyond its window: what waits towards a socket, and what was read of another. */
const queuesBytes = limits.socketQueueHighBytes + limits.socketReadHighBytes + 2 * readBytes;
/** Compiled code, freed memory that the runtime keeps, the queues of the lanes. */
const runtimeBytes = 128 * mebibyte;
/** Many times what all windows, queues and kernels together can hold: whoever takes as much has no bound. */
const tooMuchBytes = 6 * 1024 * mebibyte;
const endless = 1e12;

interface Flow {
  isPouring: boolean;
  receivedBytes: number;
}

/** Endless bytes in both directions, as fast as the other side takes them. */
class Flood implements Disposable {
  /** What kernels took of everything that was poured. */
  pouredBytes = 0;
  receivedBytes = 0;
  /** Connections that ended before the test did. */
  ended = 0;
  readonly #piece = new Uint8Array(64 * 1024).fill(0x78);
  readonly #sockets = new Set<Socket<Flow>>();
  readonly #onData: (socket: Socket<Flow>, flood: Flood) => void;

  /** `onData` is called when bytes came, after they were counted. */
  constructor(onData: (socket: Socket<Flow>, flood: Flood) => void) {
    this.#onData = onData;
  }

  readonly handlers = {
    open: (socket: Socket<Flow>) => {
      socket.data = { isPouring: false, receivedBytes: 0 };
      this.#sockets.add(socket);
    },
    data: (socket: Socket<Flow>, chunk: Uint8Array) => {
      socket.data.receivedBytes += chunk.length;
      this.receivedBytes += chunk.length;
      this.#onData(socket, this);
    },
    drain: (socket: Socket<Flow>) => {
      if (socket.data.isPouring) this.pour(socket);
    },
    end: (socket: Socket<Flow>) => void socket.end(),
    close: (socket: Socket<Flow>) => {
      this.ended++;
      this.#sockets.delete(socket);
    },
    error: () => {},
  };

  /** From now on the socket is kept full. */
  pour(socket: Socket<Flow>): void {
    socket.data.isPouring = true;
    for (;;) {
      const taken = socket.write(this.#piece);
      this.pouredBytes += Math.max(0, taken);
      if (taken < this.#piece.length) return;
    }
  }

  /** Waits until nothing moves for a second. */
  async standsStill(): Promise<void> {
    let last = -1;
    let sinceMs = performance.now();
    await until(
      "nothing moves",
      () => {
        const moved = this.pouredBytes;
        if (moved > tooMuchBytes) return true;
        if (moved !== last) sinceMs = performance.now();
        last = moved;
        return performance.now() - sinceMs > 1_000;
      },
      60_000,
    );
    expect(this.pouredBytes).toBeLessThan(tooMuchBytes);
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.terminate();
  }
}

/** An origin whose connections are the flood's; the first bytes on each are a request head. */
function listen(flood: Flood): Disposable & { readonly port: number } {
  const server = Bun.listen<Flow>({ hostname: "127.0.0.1", port: 0, socket: flood.handlers });
  return { port: server.port, [Symbol.dispose]: () => server.stop(true) };
}

async function visit(port: number, flood: Flood, head: string): Promise<Socket<Flow>> {
  const socket = await Bun.connect<Flow>({ hostname: "127.0.0.1", port, socket: flood.handlers });
  socket.write(`${head}\r\n\r\n`);
  return socket;
}

const getHead = "GET / HTTP/1.1\r\nHost: demo.localhost";
const postHead = `POST / HTTP/1.1\r\nHost: demo.localhost\r\nContent-Length: ${endless}`;

function answer(socket: Socket<Flow>, flood: Flood): void {
  if (socket.data.isPouring) return;
  socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${endless}\r\n\r\n`);
  flood.pour(socket);
}

async function windowBytes(node: TestNode): Promise<number> {
  const text = await (await fetch(`${node.admin}/metrics`)).text();
  return Number(/^sally_window_bytes (\d+)/m.exec(text)?.[1]);
}

/** Once nothing moves, what was garbage goes; what stays is held. */
async function heldBytes(process: SallyProcess, beforeBytes: number, mostBytes: number): Promise<number> {
  const grown = (): number => residentBytes(process.pid) - beforeBytes;
  await until("held memory within its bounds", () => grown() < mostBytes, 30_000);
  return grown();
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0);

test(
  `${streamCount} visitors who stop reading endless downloads cost windows and queues`,
  overBoth(async (transport) => {
    using flood = new Flood(answer);
    using origin = listen(flood);
    await using node = await startNode();
    await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
    const processes = [node.process, agent.process];
    const before = processes.map(({ pid }) => residentBytes(pid));
    // Every other one reads for a while first, so that its window has grown to its ceiling when it stops.
    using visitors = new Flood((socket) => {
      const isEager = socket.localPort % 2 === 0;
      if (!isEager || socket.data.receivedBytes > 16 * mebibyte) socket.pause();
    });
    for (let i = 0; i < streamCount; i++) await visit(node.port, visitors, getHead);
    await flood.standsStill();
    const windows = await windowBytes(node);
    expect(windows).toBeLessThanOrEqual((streamCount + 1) * limits.streamWindowMaxBytes);
    const atNode = await heldBytes(node.process, before[0] ?? 0, windows + streamCount * queuesBytes + runtimeBytes);
    const atAgent = await heldBytes(agent.process, before[1] ?? 0, streamCount * queuesBytes + runtimeBytes);
    const sizes = `${megabytes(windows)} MB of windows: node +${megabytes(atNode)} MB, agent +${megabytes(atAgent)} MB`;
    note(`stalled visitors, ${transport}: ${megabytes(flood.pouredBytes)} MB poured, ${sizes}`);
    expect(visitors.ended).toBe(0);
    visitors[Symbol.dispose]();
    await until("every window is given back", async () => (await windowBytes(node)) === 0);
  }),
);

test(
  `${streamCount} endless uploads to an origin that does not read cost windows and queues`,
  overBoth(async (transport) => {
    using deaf = new Flood((socket) => socket.pause());
    using origin = listen(deaf);
    await using node = await startNode();
    await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
    const processes = [node.process, agent.process];
    const before = processes.map(({ pid }) => residentBytes(pid));
    using visitors = new Flood(() => {});
    for (let i = 0; i < streamCount; i++) visitors.pour(await visit(node.port, visitors, postHead));
    await visitors.standsStill();
    const atNode = await heldBytes(node.process, before[0] ?? 0, streamCount * queuesBytes + runtimeBytes);
    const most = streamCount * (queuesBytes + limits.streamWindowMaxBytes) + runtimeBytes;
    const atAgent = await heldBytes(agent.process, before[1] ?? 0, most);
    const sizes = `node +${megabytes(atNode)} MB, agent +${megabytes(atAgent)} MB`;
    note(`stalled origins, ${transport}: ${megabytes(visitors.pouredBytes)} MB poured, ${sizes}`);
    expect(visitors.ended).toBe(0);
  }),
);

/** Traffic at full speed, then one end of the link stops for four seconds, which is shorter than a dead link's silence. */
async function stopInFlight(transport: Transport, stopped: "agent" | "node"): Promise<void> {
  const isUpload = stopped === "agent";
  using origins = new Flood(isUpload ? () => {} : answer);
  using origin = listen(origins);
  await using node = await startNode();
  await using agent = await startAgent({ node, target: origin.port, name: "demo", transport });
  using visitors = new Flood(() => {});
  for (let i = 0; i < streamCount; i++) {
    const socket = await visit(node.port, visitors, isUpload ? postHead : getHead);
    if (isUpload) visitors.pour(socket);
  }
  const [source, sink] = isUpload ? [visitors, origins] : [origins, visitors];
  await until("traffic", () => sink.receivedBytes > 200 * mebibyte, 60_000);
  const [still, running] = isUpload ? [agent.process, node.process] : [node.process, agent.process];
  const before = residentBytes(running.pid);
  using memory = new MemoryWatch([running.pid]);
  still.kill("SIGSTOP");
  const stoppedMs = performance.now();
  await until("four seconds", () => performance.now() - stoppedMs > 4_000);
  const [growth] = memory.growthBytes;
  still.kill("SIGCONT");
  const received = sink.receivedBytes;
  await until("traffic again", () => sink.receivedBytes > received + 20 * mebibyte, 30_000);
  const poured = megabytes(source.pouredBytes);
  note(
    `stopped ${stopped}, ${transport}: ${poured} MB poured, the other end was at ${megabytes(before)} MB and grew by ${megabytes(growth ?? 0)} MB`,
  );
  expect(growth).toBeLessThan(streamCount * (queuesBytes + limits.streamWindowMaxBytes));
  expect(visitors.ended).toBe(0);
}

for (const stopped of ["agent", "node"] as const) {
  test(
    `when the ${stopped} stops under load the other end does not grow, and everything goes on afterwards`,
    overBoth((transport) => stopInFlight(transport, stopped)),
  );
}
