/**
 * The whole product on one machine: a node, the sample app and an agent as real processes on loopback, then 1,000
 * concurrent visitors. Stays up until Ctrl-C; with --exit it ends with 0, or 1 if anything was not as promised.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { Scratch, SallyProcess, startNode, type TestNode } from "../tests/support/sally.ts";

const visitorCount = 1_000;
const root = join(import.meta.dir, "..");
const unknownFlags = process.argv.slice(2).filter((argument) => argument !== "--exit");
if (unknownFlags.length > 0) {
  process.stderr.write(`demo: ${unknownFlags.join(" ")} is not known; the only flag is --exit\n`);
  process.exit(2);
}
const isOneShot = process.argv.includes("--exit");
let failures = 0;
/** Told to end: what fails from then on is no failure. */
let isStopped = false;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function check(what: string, isGood: boolean, detail = ""): void {
  if (!isGood && !isStopped) failures++;
  say(`  ${isGood ? "ok  " : "FAIL"} ${what}${detail === "" ? "" : `: ${detail}`}`);
}

async function startSampleApp(): Promise<{ app: Subprocess; port: number }> {
  const app = Bun.spawn([process.execPath, join(root, "examples", "sample-app.ts")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  for await (const chunk of app.stdout) return { app, port: Number(new TextDecoder().decode(chunk)) };
  throw new Error("the sample app ended before it listened");
}

/** One visitor with a connection of its own; the reply's text, or what went wrong. */
function visit(port: number, host: string, path: string): Promise<string> {
  return new Promise((resolve) => {
    let reply = "";
    const socket = connect(port, "127.0.0.1");
    socket.setEncoding("latin1");
    socket.on("connect", () => socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`));
    socket.on("data", (text: string) => (reply += text));
    socket.on("error", (error) => resolve(`failed: ${error.message}`));
    socket.on("close", () => resolve(reply));
  });
}

async function sendVisitors(port: number, host: string, base: string): Promise<void> {
  const startedMs = performance.now();
  const replies = await Promise.all(Array.from({ length: visitorCount }, (_, i) => visit(port, host, `/visitor/${i}`)));
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(2);
  const good = replies.filter((reply, i) => reply.startsWith("HTTP/1.1 200 ") && reply.endsWith(`visitor ${i}\n`));
  check(`${visitorCount} concurrent visitors answered`, good.length === visitorCount, `${good.length} in ${seconds} s`);
  const bad = replies.find((reply) => !good.includes(reply));
  if (bad !== undefined) say(`       the first that was not: ${JSON.stringify(bad.slice(0, 300))}`);
  const reached = await (await fetch(`${base}/count`, { headers: { Host: host } })).text();
  check("requests that reached the app", Number(reached) === visitorCount, reached);
}

async function checkStreams(base: string, host: string): Promise<void> {
  const body = crypto.getRandomValues(new Uint8Array(65_536));
  const echoed = await fetch(`${base}/echo`, { method: "POST", body, headers: { Host: host } });
  check("a body comes back as it was sent", Buffer.from(await echoed.arrayBuffer()).equals(Buffer.from(body)));

  const clock = await fetch(`${base}/clock`, { headers: { Host: host } });
  const reader = clock.body!.getReader(); // a 200 reply has a body
  const first = await reader.read();
  await reader.cancel();
  check("server-sent events arrive one by one", new TextDecoder().decode(first.value).startsWith("data: "));

  const socket = new WebSocket(`${base.replace("http", "ws")}/echo`, { headers: { Host: host } });
  const answer = await new Promise<string>((resolve) => {
    socket.addEventListener("open", () => socket.send("hello through the tunnel"));
    socket.addEventListener("message", (event) => resolve(String(event.data)));
    socket.addEventListener("error", () => resolve("failed"));
  });
  socket.close();
  check("a WebSocket echoes", answer === "hello through the tunnel", answer);
}

/** Starts everything, shows it, and stays until a process ends; `stopped` ends it too. */
async function runDemo(state: string, home: string, stopped: Promise<void>): Promise<void> {
  await using node = await startNode({ data: state });
  const { app, port } = await startSampleApp();
  try {
    await using agent = new SallyProcess(
      ["http", String(port), "--name", "demo", "--edge", node.tunnel, "--token-file", node.tokenFile, "--json"],
      { env: { SALLY_HOME: home } },
    );
    await Promise.race([stopped, showTunnel(node, agent, port)]);
    await agent.stop();
    await node.process.stop();
  } finally {
    app.kill();
  }
}

async function showTunnel(node: TestNode, agent: SallyProcess, port: number): Promise<void> {
  const tunnel = await agent.waitFor("tunnel");
  const url = new URL(String(tunnel["url"]));
  say(`node      ${node.http}  (agents: ${node.tunnel})`);
  say(`app       http://127.0.0.1:${port}`);
  say(`tunnel    ${url.origin} -> localhost:${port} over ${String(tunnel["transport"])}\n`);
  await sendVisitors(Number(url.port), url.host, `http://127.0.0.1:${url.port}`);
  await checkStreams(`http://127.0.0.1:${url.port}`, url.host);
  say(failures === 0 ? "\nEverything was as promised." : `\n${failures} of the checks failed.`);
  if (isOneShot) return;
  say(`Open ${url.origin} in a browser. Ctrl-C ends the demo.`);
  await Promise.race([agent.exited, node.process.exited]);
  throw new Error("A process of the demo ended.");
}

const stopped = Promise.withResolvers<void>();
const stop = (): void => {
  isStopped = true;
  stopped.resolve();
};
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);
process.stdout.on("error", stop); // whoever read it is gone, as after "| head -1"
const scratch = new Scratch();
const home = mkdtempSync(join(tmpdir(), "sallyport-demo-"));
try {
  await runDemo(scratch.path, home, stopped.promise);
} catch (error) {
  // Ctrl-C on a terminal reaches the other processes too: that they end is no failure then.
  if (!isStopped) {
    failures++;
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  }
} finally {
  scratch[Symbol.dispose]();
  rmSync(home, { recursive: true, force: true });
}
process.exit(failures > 0 ? 1 : 0);
