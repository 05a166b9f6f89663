/** rathole: a TCP service over its TLS transport, with TCP_NODELAY (its default). */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, run } from "../processes.ts";
import { benchHost, versionIn, type Peer } from "./peer.ts";

export const rathole: Peer = {
  name: "rathole",
  setup: "TLS transport, TCP service",
  programs: ["rathole"],
  version: async (tools) =>
    versionIn((await run([tools.need("rathole"), "--version"])).replace(/.*Build Version:/s, "")),
  startServer: async ({ keeper, tools, folder, certificate, serverPlace, clientPlace }) => {
    const [bindPort, visitorPort] = [await freePort(), await freePort()];
    const serverFile = join(folder, "server.toml");
    writeFileSync(
      serverFile,
      `[server]
bind_addr = "${serverPlace.address}:${bindPort}"
default_token = "bench"

[server.transport]
type = "tls"

[server.transport.tls]
pkcs12 = "${certificate.pkcs12Path}"
pkcs12_password = "${certificate.pkcs12Password}"

[server.services.bench]
bind_addr = "127.0.0.1:${visitorPort}"
`,
    );
    const env = { RUST_LOG: "warn" };
    const program = tools.need("rathole");
    const server = keeper.start({
      name: "rathole-server",
      argv: serverPlace.command([program, "--server", serverFile]),
      env,
    });
    return {
      processes: [server],
      startClient: async (originPort) => {
        const clientFile = join(folder, "client.toml");
        writeFileSync(
          clientFile,
          `[client]
remote_addr = "${serverPlace.address}:${bindPort}"
default_token = "bench"

[client.transport]
type = "tls"

[client.transport.tls]
trusted_root = "${certificate.certPath}"
hostname = "localhost"

[client.services.bench]
local_addr = "127.0.0.1:${originPort}"
`,
        );
        const client = keeper.start({
          name: "rathole-client",
          argv: clientPlace.command([program, "--client", clientFile]),
          env,
        });
        return { processes: [client], visitor: { host: "127.0.0.1", port: visitorPort, hostHeader: benchHost } };
      },
    };
  },
};
