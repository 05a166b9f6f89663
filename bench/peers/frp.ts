/** frp: an HTTP proxy by host name over TLS, on TCP (its default) and on QUIC, and a plain TCP proxy over TLS. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, run } from "../processes.ts";
import type { Tools } from "../tools.ts";
import { benchHost, versionIn, type Peer, type PeerContext, type PeerServer } from "./peer.ts";

export const frp: Peer = {
  name: "frp",
  setup: "TLS forced, HTTP proxy, TCP multiplexing (default), poolCount 5",
  programs: ["frps", "frpc"],
  version: frpVersion,
  startServer: (context) => startServer(context, { protocol: "tcp", type: "http" }),
};

export const frpTcp: Peer = {
  name: "frp-tcp",
  setup: "TLS forced, TCP proxy on a port of its own, TCP multiplexing (default), poolCount 5",
  programs: ["frps", "frpc"],
  version: frpVersion,
  startServer: (context) => startServer(context, { protocol: "tcp", type: "tcp" }),
};

export const frpQuic: Peer = {
  name: "frp-quic",
  setup: "QUIC, HTTP proxy, poolCount 5",
  programs: ["frps", "frpc"],
  version: frpVersion,
  startServer: (context) => startServer(context, { protocol: "quic", type: "http" }),
};

async function frpVersion(tools: Tools): Promise<string> {
  return versionIn(await run([tools.need("frps"), "--version"]));
}

interface Flavour {
  readonly protocol: "tcp" | "quic";
  readonly type: "http" | "tcp";
}

async function startServer(context: PeerContext, { protocol, type }: Flavour): Promise<PeerServer> {
  const { keeper, tools, folder, certificate, serverPlace, clientPlace } = context;
  const [bindPort, quicPort, visitorPort] = [await freePort(), await freePort(), await freePort()];
  const serverFile = join(folder, "frps.toml");
  writeFileSync(
    serverFile,
    `bindAddr = "${serverPlace.address}"
bindPort = ${bindPort}
quicBindPort = ${quicPort}
proxyBindAddr = "127.0.0.1"
${type === "http" ? `vhostHTTPPort = ${visitorPort}` : ""}
auth.token = "bench"
log.level = "warn"
transport.tls.force = true
transport.tls.certFile = "${certificate.certPath}"
transport.tls.keyFile = "${certificate.keyPath}"
`,
  );
  const server = keeper.start({
    name: "frps",
    argv: serverPlace.command([tools.need("frps"), "-c", serverFile]),
  });
  return {
    processes: [server],
    startClient: async (originPort) => {
      const clientFile = join(folder, "frpc.toml");
      writeFileSync(
        clientFile,
        `serverAddr = "${serverPlace.address}"
serverPort = ${protocol === "quic" ? quicPort : bindPort}
auth.token = "bench"
log.level = "warn"
loginFailExit = false
transport.protocol = "${protocol}"
transport.poolCount = 5
transport.tls.enable = true
transport.tls.trustedCaFile = "${certificate.certPath}"
transport.tls.serverName = "localhost"

[[proxies]]
name = "bench"
type = "${type}"
localIP = "127.0.0.1"
localPort = ${originPort}
${type === "http" ? `customDomains = ["${benchHost}"]` : `remotePort = ${visitorPort}`}
`,
      );
      const client = keeper.start({
        name: "frpc",
        argv: clientPlace.command([tools.need("frpc"), "-c", clientFile]),
      });
      return { processes: [client], visitor: { host: "127.0.0.1", port: visitorPort, hostHeader: benchHost } };
    },
  };
}
