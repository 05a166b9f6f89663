/** One running tunnel of a contender: started, waited for until it really serves, and stopped. */

import { mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import type { Bench, Contender } from "./bench.ts";
import type { Origin } from "./origin.ts";
import type { PeerServer } from "./peers/peer.ts";
import type { Place, Visitor } from "./place.ts";
import type { Running } from "./processes.ts";
import { readUsage, resetPeaks } from "./usage.ts";

export interface Places {
  readonly server: Place;
  readonly client: Place;
}

export interface Tunnel {
  readonly contender: Contender;
  readonly visitor: Visitor;
  /** Server and client, without origin and visitors. */
  readonly processes: readonly Running[];
  readonly readyMs: number | undefined;
}

const servingMs = 20_000;
let folders = 0;

export async function startServer(bench: Bench, contender: Contender, places: Places): Promise<PeerServer> {
  if (contender.peer === undefined) throw new Error("the origin itself has no server to start");
  const folder = join(bench.scratch, `${contender.name}-${++folders}`);
  mkdirSync(folder);
  return contender.peer.startServer({
    keeper: bench.keeper,
    tools: bench.tools,
    folder,
    certificate: bench.certificate,
    serverPlace: places.server,
    clientPlace: places.client,
  });
}

/** Starts both ends and waits until a request comes back through them. */
export async function startTunnel(
  bench: Bench,
  contender: Contender,
  { origin, places }: { origin: Origin; places: Places },
): Promise<Tunnel> {
  if (contender.peer === undefined) {
    const { address } = places.client;
    const visitor = { host: address, port: origin.port, hostHeader: `${address}:${origin.port}` };
    await waitUntilServing(visitor, places.server, []);
    return { contender, visitor, processes: [], readyMs: undefined };
  }
  const server = await startServer(bench, contender, places);
  const client = await server.startClient(origin.port);
  const processes = [...server.processes, ...client.processes];
  await waitUntilServing(client.visitor, places.server, processes);
  return { contender, visitor: client.visitor, processes, readyMs: client.readyMs };
}

/** Polls until the origin's 200 comes through. `pollMs` is the resolution of what is measured with it. */
export async function waitUntilServing(
  visitor: Visitor,
  place: Place,
  processes: readonly Running[],
  pollMs = 50,
): Promise<void> {
  const deadline = Date.now() + servingMs;
  const url = `http://${visitor.host}:${visitor.port}/1k`;
  const probe =
    place.address === "127.0.0.1"
      ? () => answersOk(visitor)
      : () =>
          commandSucceeds(place, [
            "curl",
            "-sf",
            "-m",
            "5",
            "-o",
            "/dev/null",
            "-H",
            `Host: ${visitor.hostHeader}`,
            url,
          ]);
  while (!(await probe())) {
    const ended = processes.find((running) => running.hasExited);
    if (ended !== undefined) throw new Error(`${ended.name} ended: ${ended.lastWords()}`);
    if (Date.now() > deadline) {
      const words = processes.map((running) => `${running.name}: ${running.lastWords()}`).join("; ");
      throw new Error(`nothing came through within ${servingMs} ms (${words})`);
    }
    await Bun.sleep(pollMs);
  }
}

function answersOk(visitor: Visitor): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(visitor.port, visitor.host);
    socket.setTimeout(3_000, () => socket.destroy());
    socket.once("error", () => resolve(false));
    socket.once("close", () => resolve(false));
    socket.once("connect", () => {
      socket.write(`GET /1k HTTP/1.1\r\nHost: ${visitor.hostHeader}\r\nConnection: close\r\n\r\n`);
    });
    socket.once("data", (chunk) => {
      resolve(chunk.toString("latin1").startsWith("HTTP/1.1 200 "));
      socket.destroy();
    });
  });
}

async function commandSucceeds(place: Place, argv: readonly string[]): Promise<boolean> {
  const child = Bun.spawn([...place.command(argv)], { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  return (await child.exited) === 0;
}

export interface Cost<T> {
  readonly result: T;
  readonly cpuMs: number;
  readonly peakMb: number;
}

/** Runs `work` and says what it cost the tunnel's processes. */
export async function withCost<T>(tunnel: Tunnel, work: () => Promise<T>): Promise<Cost<T>> {
  const pids = tunnel.processes.map((running) => running.pid);
  resetPeaks(pids);
  const before = readUsage(pids);
  const result = await work();
  const after = readUsage(pids);
  return { result, cpuMs: after.cpuMs - before.cpuMs, peakMb: after.peakMb };
}
