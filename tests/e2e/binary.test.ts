/** The single file that `npm run build` makes, away from the checkout and its packages. */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { startOrigin, visit } from "../support/command.ts";
import { JsonProcess, Scratch } from "../support/sally.ts";

test("one file is a node and an agent, with nothing else on the machine", async () => {
  using scratch = new Scratch();
  const file = scratch.join("bin", "sally");
  const build = Bun.spawn([process.execPath, join(import.meta.dir, "..", "..", "scripts", "build.ts"), file], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [said, errors] = await Promise.all([new Response(build.stdout).text(), new Response(build.stderr).text()]);
  expect([await build.exited, errors]).toEqual([0, expect.any(String)]);
  expect(said).toContain(file);

  const options = {
    cwd: scratch.path,
    env: { PATH: "/nowhere", HOME: scratch.path, SALLY_HOME: scratch.join("home") },
  };
  const data = scratch.join("data");
  const ports = ["--http", "127.0.0.1:0", "--tunnel", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
  await using node = new JsonProcess([file, "edge", "--data", data, ...ports, "--json"], options);
  const ready = await node.waitFor("ready");
  await using origin = startOrigin("app");
  const link = ["--edge", String(ready["tunnel"]), "--token-file", join(data, "agent.token"), "--json"];
  for (const transport of ["quic", "websocket"]) {
    const args = [file, "http", String(origin.port), "--name", "demo", "--transport", transport, ...link];
    await using agent = new JsonProcess(args, options);
    const tunnel = await agent.waitFor("tunnel");
    expect(tunnel["transport"]).toBe(transport);
    expect(await visit(`${String(tunnel["url"])}/x`)).toMatchObject({
      status: 200,
      body: expect.stringContaining("app demo."),
    });
    expect(await agent.stop()).toBe(0);
  }
  expect(await node.stop()).toBe(0);
}, 60_000);
