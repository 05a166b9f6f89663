import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { CheckedOrigin } from "../support/checked-origin.ts";
import { JsonProcess, Scratch, startNode } from "../support/sally.ts";
import { until } from "../support/until.ts";

const root = join(import.meta.dir, "..", "..");
const sally = join(root, "bin", "sally");

/** Command lines of running processes that name this path. */
function processesNaming(path: string): string[] {
  return commandLines().filter((line) => line.includes(path));
}

function commandLines(): string[] {
  if (!existsSync("/proc/self/cmdline")) {
    return Bun.spawnSync(["ps", "-A", "-o", "args="]).stdout.toString().split("\n");
  }
  return readdirSync("/proc").flatMap((pid) => {
    try {
      return /^\d+$/.test(pid) ? [readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")] : [];
    } catch {
      return []; // it ended while we looked
    }
  });
}

test("a killed node or agent is one process, and leaves none behind", async () => {
  await using origin = await CheckedOrigin.listen();
  await using node = await startNode();
  using scratch = new Scratch();
  const data = scratch.join("node");
  const loopback = "127.0.0.1:0";
  const addresses = ["--http", loopback, "--tunnel", loopback, "--admin", loopback];
  await using program = new JsonProcess([sally, "edge", "--data", data, ...addresses, "--json"]);
  const home = scratch.join("agent");
  const tokenFile = scratch.join("token");
  await Bun.write(tokenFile, Bun.file(node.tokenFile));
  await using agent = new JsonProcess(
    [sally, "http", String(origin.port), "--edge", node.tunnel, "--token-file", tokenFile, "--json"],
    { env: { SALLY_HOME: home } },
  );
  await Promise.all([program.waitFor("ready"), agent.waitFor("tunnel")]);
  expect(processesNaming(data)).toHaveLength(1);
  expect(processesNaming(tokenFile)).toHaveLength(1);
  for (const child of [program, agent]) {
    child.kill("SIGKILL");
    await child.exited;
  }
  await until("nothing is left", () => processesNaming(scratch.path).length === 0);
});

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("%s ends node and agent with status 0", async (signal) => {
  await using origin = await CheckedOrigin.listen();
  await using node = await startNode();
  using home = new Scratch();
  await using agent = new JsonProcess(
    [sally, "http", String(origin.port), "--edge", node.tunnel, "--token-file", node.tokenFile, "--json"],
    { env: { SALLY_HOME: home.path } },
  );
  await agent.waitFor("tunnel");
  agent.kill(signal);
  expect(await agent.exited).toBe(0);
  node.process.kill(signal);
  expect(await node.process.exited).toBe(0);
});

test("a demo whose output nobody reads any more ends quietly, with its processes", async () => {
  using scratch = new Scratch();
  const demo = Bun.spawn([process.execPath, join(root, "scripts", "demo.ts"), "--exit"], {
    env: { ...process.env, TMPDIR: scratch.path },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const reader = demo.stdout.getReader();
  const { value } = await reader.read();
  await reader.cancel();
  expect(new TextDecoder().decode(value)).toStartWith("node ");
  expect(await new Response(demo.stderr).text()).toBe("");
  expect(await demo.exited).toBe(0);
  expect(processesNaming(scratch.path)).toEqual([]);
});
