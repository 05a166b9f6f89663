/** bore: raw TCP without encryption, as the lower bound of what a tunnel costs. Its control port is fixed. */

import { randomInt } from "node:crypto";
import { loopback, type Place } from "../place.ts";
import { freePort, run } from "../processes.ts";
import { benchHost, versionIn, type Peer } from "./peer.ts";

export const bore: Peer = {
  name: "bore",
  setup: "raw TCP, not encrypted",
  programs: ["bore"],
  version: async (tools) => versionIn(await run([tools.need("bore"), "--version"])),
  startServer: async ({ keeper, tools, serverPlace, clientPlace }) => {
    const program = tools.need("bore");
    const address = controlAddress(serverPlace);
    const visitorPort = await freePort();
    const server = keeper.start({
      name: "bore-server",
      argv: serverPlace.command([program, "server", "--bind-addr", address, "--bind-tunnels", "127.0.0.1"]),
    });
    return {
      processes: [server],
      startClient: async (originPort) => {
        const tunnel = ["--local-host", "127.0.0.1", "--to", address, "--port", String(visitorPort)];
        const client = keeper.start({
          name: "bore-client",
          argv: clientPlace.command([program, "local", String(originPort), ...tunnel]),
        });
        return { processes: [client], visitor: { host: "127.0.0.1", port: visitorPort, hostHeader: benchHost } };
      },
    };
  },
};

/** On loopback an address of its own, because two servers cannot share the fixed port on one address. */
function controlAddress(place: Place): string {
  return place === loopback ? `127.${randomInt(1, 255)}.${randomInt(255)}.${randomInt(1, 255)}` : place.address;
}
