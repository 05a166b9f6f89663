/** chisel: a reverse TCP remote. It encrypts with SSH inside its WebSocket, so TLS around it would be a second layer. */

import { freePort, run } from "../processes.ts";
import { benchHost, versionIn, type Peer } from "./peer.ts";

export const chisel: Peer = {
  name: "chisel",
  setup: "SSH over WebSocket (always encrypted), reverse TCP remote",
  programs: ["chisel"],
  version: async (tools) => versionIn(await run([tools.need("chisel"), "--version"])),
  startServer: async ({ keeper, tools, serverPlace, clientPlace }) => {
    const [bindPort, visitorPort] = [await freePort(), await freePort()];
    const program = tools.need("chisel");
    const listen = ["--host", serverPlace.address, "--port", String(bindPort)];
    const server = keeper.start({
      name: "chisel-server",
      argv: serverPlace.command([program, "server", ...listen, "--reverse"]),
    });
    return {
      processes: [server],
      startClient: async (originPort) => {
        const remote = `R:127.0.0.1:${visitorPort}:127.0.0.1:${originPort}`;
        const url = `http://${serverPlace.address}:${bindPort}`;
        const client = keeper.start({
          name: "chisel-client",
          argv: clientPlace.command([program, "client", "--max-retry-interval", "1s", url, remote]),
        });
        return { processes: [client], visitor: { host: "127.0.0.1", port: visitorPort, hostHeader: benchHost } };
      },
    };
  },
};
