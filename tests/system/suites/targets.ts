/**
 * What a suite is run against: the origin itself, nginx in front of it (both to know what the suite says without us),
 * and Sallyport with the whole tunnel between its public listener and the origin.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Scratch, startAgent, startNode } from "../../support/sally.ts";
import { until } from "../../support/until.ts";
import type { Entry } from "./suite.ts";

export interface Target {
  readonly name: string;
  readonly title: string;
  readonly isOriginAlone?: boolean;
  open(options: TargetOptions): Promise<OpenTarget>;
}

export interface TargetOptions {
  readonly originPort: number;
  readonly host: { readonly name: string; readonly domain: string };
}

export interface OpenTarget extends AsyncDisposable {
  readonly entry: Entry;
}

const origin: Target = {
  name: "origin",
  title: "the origin alone",
  isOriginAlone: true,
  open: async ({ originPort, host }) => ({
    entry: { host: "127.0.0.1", port: originPort, hostHeader: `${host.name}.${host.domain}` },
    async [Symbol.asyncDispose]() {},
  }),
};

const nginx: Target = {
  name: "nginx",
  title: "nginx as a reverse proxy",
  open: async ({ originPort, host }) => {
    const scratch = new Scratch();
    const port = await freePort();
    mkdirSync(scratch.join("logs"));
    writeFileSync(scratch.join("nginx.conf"), nginxConfig(scratch.path, port, originPort));
    const argv = ["-p", scratch.path, "-c", scratch.join("nginx.conf"), "-e", scratch.join("logs/error.log")];
    const path = `${Bun.env["PATH"] ?? ""}:/usr/sbin`;
    const program = Bun.which("nginx", { PATH: path });
    if (program === null) throw new Error("nginx is not installed");
    const child = Bun.spawn([program, ...argv], { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
    await until("nginx listens, or ends", async () => {
      if (child.exitCode !== null) return true;
      (await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } })).end();
      return true;
    });
    if (child.exitCode !== null) throw new Error(await Bun.file(scratch.join("logs/error.log")).text());
    return {
      entry: { host: "127.0.0.1", port, hostHeader: `${host.name}.${host.domain}` },
      async [Symbol.asyncDispose]() {
        child.kill("SIGTERM");
        await child.exited;
        scratch[Symbol.dispose]();
      },
    };
  },
};

function nginxConfig(folder: string, port: number, originPort: number): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${join(folder, name)};`,
  );
  return `${process.getuid?.() === 0 ? "user root;" : ""}
daemon off;
worker_processes 1;
pid ${join(folder, "nginx.pid")};
events { worker_connections 1024; }
http {
  access_log off;
  ${temporary.join(" ")}
  client_max_body_size 0;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream origin { server 127.0.0.1:${originPort}; keepalive 32; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_request_buffering off;
      proxy_buffering off;
    }
  }
}
`;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port was given");
  return address.port;
}

function sally(transport: "websocket" | "quic"): Target {
  return {
    name: `sally-${transport}`,
    title: `Sallyport, whole tunnel over ${transport === "quic" ? "QUIC" : "WebSocket"}`,
    open: async ({ originPort, host }) => {
      const { name, domain } = host;
      const node = await startNode({ args: ["--domain", domain] });
      try {
        const agent = await startAgent({ node, target: `127.0.0.1:${originPort}`, name, transport });
        return {
          entry: { host: "127.0.0.1", port: node.port, hostHeader: new URL(agent.url).host },
          async [Symbol.asyncDispose]() {
            await agent[Symbol.asyncDispose]();
            await node[Symbol.asyncDispose]();
          },
        };
      } catch (error) {
        await node[Symbol.asyncDispose]();
        throw error;
      }
    },
  };
}

export const targets: readonly Target[] = [origin, nginx, sally("websocket"), sally("quic")];
