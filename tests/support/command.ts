/** Finished `sally` commands, small origins and requests for tests of the command line and of trust. */

import { join } from "node:path";
import { request } from "node:http";
import type { TestNode } from "./sally.ts";

const root = join(import.meta.dir, "..", "..");
const entry = join(root, "src", "cli", "main.ts");

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Lines of stdout, each a JSON object. Throws when one is not. */
  readonly events: readonly Readonly<Record<string, unknown>>[];
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly timeoutMs?: number;
}

/** Runs a command to its end. Nothing of the caller's own SALLY_ or proxy settings reaches it. */
export async function runSally(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const child = Bun.spawn([process.execPath, "--no-env-file", entry, ...args], {
    cwd: options.cwd ?? root,
    env: { ...cleanEnvironment(), ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: options.timeoutMs ?? 30_000,
    killSignal: "SIGKILL",
  });
  const [stdout, stderr, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return {
    code,
    stdout,
    stderr,
    get events() {
      return stdout
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Record<string, unknown>); // a line that is no object fails the caller's check
    },
  };
}

export function cleanEnvironment(): Record<string, string> {
  const isOurs = (name: string): boolean => name.startsWith("SALLY_") || /^(?:https?|no|all)_proxy$/i.test(name);
  const kept = Object.entries(process.env).filter(([name, value]) => value !== undefined && !isOurs(name));
  return { ...(Object.fromEntries(kept) as Record<string, string>), NO_COLOR: "1" }; // undefined values were left out
}

export interface Visit {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface VisitOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Where to connect, when it is not the URL's own host: names under localhost need no resolver then. */
  readonly timeoutMs?: number;
}

/** One request on a connection of its own. Names under `localhost` go to 127.0.0.1, whatever the resolver says. */
export function visit(url: string, options: VisitOptions = {}): Promise<Visit> {
  const { hostname, port, pathname, search, host } = new URL(url);
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        host: hostname.endsWith("localhost") ? "127.0.0.1" : hostname,
        port: port === "" ? 80 : Number(port),
        path: `${pathname}${search}`,
        method: options.method ?? "GET",
        headers: { host, connection: "close", ...options.headers },
        agent: false,
        timeout: options.timeoutMs ?? 20_000,
      },
      (reply) => {
        let body = "";
        reply.setEncoding("utf8");
        reply.on("data", (text: string) => (body += text));
        reply.on("end", () => resolve({ status: reply.statusCode ?? 0, headers: reply.headers, body }));
        reply.on("error", reject);
      },
    );
    asked.on("timeout", () => asked.destroy(new Error(`no answer from ${url} in time`)));
    asked.on("error", reject);
    asked.end(options.body);
  });
}

/** A call of the node's admin API with its token. */
export async function callAdmin(node: TestNode, method: string, path: string, body?: unknown): Promise<Visit> {
  const token = (await Bun.file(join(node.data, "admin.token")).text()).trim();
  const headers = { authorization: `Bearer ${token}`, "sally-admin": "1", "content-type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  return await visit(`${node.admin}${path}`, { method, headers, ...(text === undefined ? {} : { body: text }) });
}

/** A token made on the node, and the file it lies in. */
export async function makeToken(
  node: TestNode,
  options: { readonly identity?: string; readonly names?: readonly string[]; readonly expiresMs?: number },
): Promise<{ readonly id: string; readonly token: string }> {
  const { identity, names = [], expiresMs } = options;
  const reply = await callAdmin(node, "POST", "/api/tokens", {
    label: "test",
    names,
    ...(identity === undefined ? {} : { identity }),
    ...(expiresMs === undefined ? {} : { expiresMs }),
  });
  const made = JSON.parse(reply.body) as { token: string; info: { id: string } }; // the API's contract
  return { id: made.info.id, token: made.token };
}

export interface TestOrigin extends AsyncDisposable {
  readonly port: number;
  /** Host fields as they arrived. */
  readonly hosts: string[];
}

/** A service that answers every request with its own name, the Host field, and the path. */
export function startOrigin(name: string, options: { port?: number; hostname?: string } = {}): TestOrigin {
  const hosts: string[] = [];
  const server = Bun.serve({
    port: options.port ?? 0,
    hostname: options.hostname ?? "127.0.0.1",
    fetch(asked) {
      const host = asked.headers.get("host") ?? "";
      hosts.push(host);
      return new Response(`${name} ${host} ${new URL(asked.url).pathname}`);
    },
  });
  return {
    port: server.port!, // it listens on TCP
    hosts,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}
