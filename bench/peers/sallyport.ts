/** Sallyport itself, through its command line as a user starts it: one node and one agent on one transport. */

import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { run } from "../processes.ts";
import { versionIn, type Peer, type PeerClient, type PeerContext, type PeerServer } from "./peer.ts";

/** The checkout's own command. */
const sally = join(import.meta.dir, "..", "..", "bin", "sally");
const readyMs = 20_000;

export const sallyWebsocket: Peer = describePeer("websocket", "WebSocket over mutual TLS, 8 lanes");
export const sallyQuic: Peer = describePeer("quic", "QUIC with mutual TLS, 8 lanes");

function describePeer(transport: "websocket" | "quic", setup: string): Peer {
  return {
    name: `sally-${transport}`,
    setup,
    programs: [],
    version: async () => versionIn(await run([sally, "version"])),
    startServer: (context) => startNode(context, transport),
  };
}

async function startNode(context: PeerContext, transport: string): Promise<PeerServer> {
  const { keeper, folder, serverPlace, clientPlace } = context;
  const data = join(folder, "node");
  const listen = ["--http", "127.0.0.1:0", "--tunnel", `${serverPlace.address}:0`, "--admin", "127.0.0.1:0"];
  const node = keeper.start({
    name: "sally-edge",
    argv: serverPlace.command([sally, "edge", ...listen, "--domain", "localhost", "--data", data, "--json"]),
  });
  const ready = await node.line((line) => eventIn(line, "ready"), readyMs);
  const tunnelUrl = String(ready["tunnel"]);
  const tokenFile = join(data, "agent.token");
  return {
    processes: [node],
    startClient: async (originPort) => {
      if (!existsSync(tokenFile)) throw new Error(`the node did not write ${tokenFile}`);
      const home = join(folder, "agent");
      mkdirSync(home, { recursive: true });
      const edge = ["--edge", tunnelUrl, "--token-file", tokenFile, "--transport", transport];
      const startedMs = performance.now();
      const agent = keeper.start({
        name: "sally-http",
        argv: clientPlace.command([
          sally,
          "http",
          `127.0.0.1:${originPort}`,
          "--name",
          "bench",
          "--inspect",
          "off",
          "--json",
          ...edge,
        ]),
        // An agent keeps its key and certificate in the user's folders: the benchmark leaves those alone.
        env: { SALLY_HOME: home },
      });
      const tunnel = await agent.line((line) => eventIn(line, "tunnel"), readyMs);
      return describeClient({ processes: [agent], tunnel, readyMs: performance.now() - startedMs, transport });
    },
  };
}

interface Started extends Pick<PeerClient, "processes"> {
  readonly tunnel: Readonly<Record<string, unknown>>;
  readonly readyMs: number;
  readonly transport: string;
}

function describeClient({ processes, tunnel, readyMs: afterMs, transport }: Started): PeerClient {
  if (tunnel["transport"] !== transport) {
    throw new Error(`the tunnel runs over ${String(tunnel["transport"])}, not ${transport}`);
  }
  const url = new URL(String(tunnel["url"]));
  return {
    processes,
    visitor: { host: "127.0.0.1", port: Number(url.port || 80), hostHeader: url.host },
    readyMs: afterMs,
  };
}

function eventIn(line: string, name: string): Readonly<Record<string, unknown>> | undefined {
  if (!line.startsWith("{")) return undefined;
  const event: unknown = JSON.parse(line);
  if (typeof event !== "object" || event === null || !("event" in event) || event.event !== name) return undefined;
  return { ...event };
}
