/** What programs read on stdout, what people see on a terminal, and what goes to the logs. */

import { describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { connect } from "node:net";
import { limits } from "../../src/core/limits.ts";
import { runSally, startOrigin, visit } from "../support/command.ts";
import { Scratch, startAgent, startNode, type TestNode } from "../support/sally.ts";
import { TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

const escape = "\u001b";

function agentArgs(node: TestNode, target: number | string, name = "demo"): string[] {
  return ["http", String(target), "--name", name, "--edge", node.tunnel, "--token-file", node.tokenFile];
}

/** Sends bytes that no library would, and waits for the reply's first line. */
function sendRaw(node: TestNode, bytes: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let reply = "";
    const socket = connect(node.port, "127.0.0.1", () => socket.write(bytes));
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => (reply += text));
    socket.on("error", reject);
    socket.on("close", () => resolve(reply.split("\r\n")[0]!)); // a split has a first part
  });
}

describe("--json", () => {
  test("gives the events of the contract, each line an object", async () => {
    await using node = await startNode();
    expect(node.process.events).toEqual([
      {
        event: "ready",
        http: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
        tunnel: expect.stringMatching(/^https:\/\/127\.0\.0\.1:\d+$/),
        admin: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
      },
    ]);
    await using origin = startOrigin("app");
    using home = new Scratch();
    await using agent = await startAgent({ node, target: origin.port, name: "demo", home: home.path });
    await visit(agent.url);
    const { events } = agent.process;
    expect(events.find(({ event }) => event === "link")).toEqual({
      event: "link",
      state: "up",
      transport: "quic",
      node: node.tunnel,
    });
    expect(events.find(({ event }) => event === "origin")).toEqual({
      event: "origin",
      state: "up",
      name: "demo",
      origin: `localhost:${origin.port}`,
    });
    expect(events.find(({ event }) => event === "tunnel")).toEqual({
      event: "tunnel",
      name: "demo",
      url: `http://demo.localhost:${node.port}`,
      transport: "quic",
    });
    await origin[Symbol.asyncDispose]();
    await visit(agent.url);
    expect(await agent.process.waitFor(({ event, state }) => event === "origin" && state === "down")).toMatchObject({
      name: "demo",
      code: "ORIGIN_REFUSED",
    });
    await agent.process.waitFor("traffic");
    await node.process.stop("SIGTERM");
    const down = await agent.process.waitFor(({ event, state }) => event === "link" && state === "down");
    expect(down).toMatchObject({ transport: "quic", node: node.tunnel });
    expect(await agent.process.waitFor("retry")).toMatchObject({ node: node.tunnel, delayMs: expect.any(Number) });
    expect(await agent.process.stop("SIGINT")).toBe(0);
    const known = [
      "tunnel",
      "link",
      "origin",
      "traffic",
      "retry",
      "probe-failed",
      "refused",
      "fatal",
      "embedded",
      "error",
    ];
    for (const event of events) {
      expect(known).toContain(event.event);
      expect(JSON.stringify(event)).not.toContain(escape);
    }
  }, 60_000);

  test("a node says when it begins to drain, and ends with 0", async () => {
    await using node = await startNode();
    expect(await node.process.stop("SIGTERM")).toBe(0);
    expect(node.process.events.slice(1)).toEqual([{ event: "draining", graceMs: 30_000 }]);
  }, 30_000);

  test("errors are events, too, and the same code is in the text", async () => {
    const run = await runSally(["http", "nowhere", "--json"]);
    expect(run.events).toEqual([
      { event: "error", code: "USAGE", message: expect.stringContaining('"nowhere" is not a target') },
    ]);
    expect(run.stderr).toEndWith("(USAGE)\n");
  });
});

describe("without a terminal", () => {
  test("people get plain lines: no colours, no cursor, whatever the environment says", async () => {
    await using node = await startNode({ args: ["--log-level", "debug"] });
    await using origin = startOrigin("app");
    using home = new Scratch();
    const env = {
      ...process.env,
      SALLY_HOME: home.path,
      TERM: "xterm-256color",
      FORCE_COLOR: "3",
      CLICOLOR_FORCE: "1",
    };
    const child = Bun.spawn(
      [process.execPath, "--no-env-file", "src/cli/main.ts", ...agentArgs(node, origin.port), "--log-level", "debug"],
      {
        cwd: `${import.meta.dir}/../..`,
        env,
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let stdout = "";
    const reading = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of child.stdout) stdout += decoder.decode(chunk, { stream: true });
    })();
    const url = `http://demo.localhost:${node.port}`;
    await until("the tunnel", () => stdout.includes(`${url} -> localhost:${origin.port} (quic)\n`));
    await origin[Symbol.asyncDispose]();
    await visit(url);
    await until("the origin's end", () => stdout.includes(`origin down: localhost:${origin.port}\n`));
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    await reading;
    const stderr = await new Response(child.stderr).text();
    expect(stdout).toContain(`link up: ${node.tunnel} over quic\n`);
    expect(stderr).toMatch(/^\d\d:\d\d:\d\d\.\d\d\d debug transport chosen transport=quic$/m);
    for (const text of [stdout, stderr, node.process.stderr]) expect(text).not.toContain(escape);
  }, 60_000);
});

describe("on a terminal", () => {
  test("the status shows tunnel, address, transport, round trip, rate and the last requests, in place", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using home = new Scratch();
    await using shell = new TerminalProcess(agentArgs(node, origin.port), { env: { SALLY_HOME: home.path } });
    const url = `http://demo.localhost:${node.port}`;
    await shell.line(new RegExp(`^Forwarding +${url} -> localhost:${origin.port}$`));
    await shell.line(new RegExp(`^Link +online ${node.tunnel} \\(quic, \\d+\\.\\d ms\\)$`));
    for (let i = 0; i < 15; i++) await visit(`${url}/page-${i}`, { method: i % 2 === 0 ? "GET" : "POST" });
    await shell.line(/^GET +\/page-14 200 \d+ ms$/);
    await shell.line(/^Requests +\d+\.\d\/s, 15 in all, \d+ open streams$/);
    const { visible } = shell.screen;
    expect(visible.filter((line) => line.startsWith("sally"))).toHaveLength(1); // redrawn, not repeated
    expect(visible.filter((line) => /^(?:GET|POST) /.test(line))).toHaveLength(10);
    expect(visible.some((line) => line.includes("/page-4 "))).toBe(false);
    expect(shell.screen.styles).toBeGreaterThan(0);

    await origin[Symbol.asyncDispose]();
    await visit(`${url}/gone`);
    await shell.line(new RegExp(`-> localhost:${origin.port} is down$`));
    shell.type("\u0003"); // Ctrl-C
    expect(await shell.exited).toBe(0);
    expect(shell.screen.foreign).toEqual([]);
    expect(shell.screen.lines.filter((line) => line.startsWith("Link "))).toHaveLength(1);
  }, 60_000);

  test("what visitors send cannot move the cursor or hide text", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using home = new Scratch();
    await using shell = new TerminalProcess(agentArgs(node, origin.port), { env: { SALLY_HOME: home.path } });
    await shell.line(/^Forwarding +http/);
    const hostile = [
      Buffer.from("/\u009b2J\u009b1;1Hevil", "latin1"), // CSI in one byte
      Buffer.from("/\u0085\u0090\u009d0;title\u009c", "latin1"),
      Buffer.from("/%1b[2J-encoded", "latin1"),
      Buffer.from("/\u202eltr", "utf8"),
      Buffer.from(`/${"w".repeat(900)}`, "latin1"),
    ];
    for (const target of hostile) {
      const head = Buffer.from(` HTTP/1.1\r\nHost: demo.localhost\r\nConnection: close\r\n\r\n`);
      expect(await sendRaw(node, Buffer.concat([Buffer.from("GET "), target, head]))).toMatch(
        /^HTTP\/1\.1 (?:200|400)/,
      );
    }
    // A raw escape is no part of a target at all.
    expect(await sendRaw(node, Buffer.from("GET /\u001b[2J HTTP/1.1\r\nHost: demo.localhost\r\n\r\n"))).toContain(
      " 400 ",
    );
    await shell.line(/^GET +\/w{60,}… 200/);
    await shell.line(/^GET +\/%1b\[2J-encoded 200/);
    expect(shell.screen.foreign).toEqual([]);
    expect(shell.screen.visible.every((line) => line.length <= 100)).toBe(true);
    expect(shell.screen.visible.filter((line) => line.startsWith("Forwarding"))).toHaveLength(1);
  }, 60_000);

  test("a small terminal shows the beginning, and log lines go above", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using home = new Scratch();
    const args = [...agentArgs(node, origin.port), "--log-level", "debug"];
    await using shell = new TerminalProcess(args, { env: { SALLY_HOME: home.path }, rows: 8, columns: 60 });
    await shell.line(/^Forwarding +http/);
    const url = `http://demo.localhost:${node.port}`;
    for (let i = 0; i < 12; i++) await visit(`${url}/${"long/".repeat(20)}${i}`);
    await shell.line(/^GET +\/long\//);
    await until("the log line", () => shell.screen.lines.some((line) => line.includes("debug transport chosen")));
    expect(shell.screen.lines.filter((line) => line.startsWith("Link "))).toHaveLength(1);
    expect(shell.screen.lines.filter((line) => line.includes("sally  Ctrl-C to stop"))).toHaveLength(1);
    expect(shell.screen.foreign).toEqual([]);
  }, 60_000);

  test("a lost node is shown with the reason, and found again", async () => {
    using scratch = new Scratch();
    const data = scratch.join("data");
    await using node = await startNode({ data });
    const args = [...agentArgs(node, 1), "--transport", "websocket"];
    await using shell = new TerminalProcess(args, { env: { SALLY_HOME: scratch.join("home") } });
    await shell.line(/^Link +online/);
    await node.process.stop("SIGKILL");
    await shell.line(/^Link +reconnecting/);
    await shell.line(/^ +nothing listens on 127\.0\.0\.1/);
    const port = (url: string): number => Number(new URL(url).port);
    const ports = { http: node.port, tunnel: port(node.tunnel), admin: port(node.admin) };
    await using _successor = await startNode({ data, ports });
    await shell.line(/^Link +online/, 30_000);
    expect(shell.screen.visible.some((line) => line.includes("nothing listens"))).toBe(false);
    expect(shell.screen.lines.filter((line) => line.startsWith("Link "))).toHaveLength(1);
  }, 60_000);

  test("NO_COLOR takes the colours, a dumb terminal the cursor, too", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using home = new Scratch();
    const env = { SALLY_HOME: home.path };
    {
      await using shell = new TerminalProcess(agentArgs(node, origin.port), { env: { ...env, NO_COLOR: "1" } });
      await shell.line(/^Requests +/);
      await shell.line(/^Link +online/);
      expect([shell.screen.styles, shell.screen.foreign]).toEqual([0, []]);
    }
    await using dumb = new TerminalProcess(agentArgs(node, origin.port), { env: { ...env, TERM: "dumb" } });
    await dumb.line(/^http:\/\/demo\.localhost:\d+ -> localhost:\d+ \(quic\)$/);
    expect([dumb.screen.styles, dumb.screen.foreign]).toEqual([0, []]);
    expect(dumb.screen.lines.some((line) => line.startsWith("Requests"))).toBe(false);
  }, 60_000);

  test("an agent without its node says what it waits for; one that is refused says why and ends", async () => {
    await using node = await startNode();
    using home = new Scratch();
    const lonely = agentArgs({ ...node, tunnel: "https://127.0.0.1:1" }, 1);
    await using waiting = new TerminalProcess(lonely, { env: { SALLY_HOME: home.path } });
    await waiting.line(/^no link: nothing listens on 127\.0\.0\.1:1; next try in \d+\.\d s$/);
    waiting.type("\u0003");
    expect(await waiting.exited).toBe(0);
    await using refused = new TerminalProcess(agentArgs(node, 1, "admin"), { env: { SALLY_HOME: home.path } });
    expect(await refused.exited).toBe(2);
    const said = refused.screen.lines.filter((line) => line.includes("NAME_INVALID"));
    expect(said).toEqual(['sally: This name cannot be used: "admin" is reserved. (NAME_INVALID)']);
  }, 60_000);

  test("a node shows its addresses and how to link to it", async () => {
    using scratch = new Scratch();
    const addresses = ["--http", "127.0.0.1:0", "--tunnel", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    await using shell = new TerminalProcess(["edge", "--data", scratch.join("data"), ...addresses], { columns: 200 });
    await shell.line(/^visitors {2}http:\/\/127\.0\.0\.1:\d+ {2}\(tunnels are NAME\.localhost\)$/);
    await shell.line(/^agents {4}https:\/\/127\.0\.0\.1:\d+$/);
    await shell.line(/^sally http 3000 --edge https:\/\/127\.0\.0\.1:\d+ --token-file \S+\/agent\.token$/);
    shell.type("\u0003");
    expect(await shell.exited).toBe(0);
  }, 30_000);
});

describe("logs", () => {
  function records(node: TestNode): Record<string, unknown>[] {
    return node.process.stderr
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>); // with --json stderr has an object a line, too
  }

  test("the access log is asked for, and has a JSON object for each request", async () => {
    await using quiet = await startNode();
    await visit(`${quiet.http}/`);
    expect(records(quiet).filter((record) => "durationMs" in record)).toEqual([]);

    await using node = await startNode({ args: ["--access-log"] });
    await using origin = startOrigin("app");
    await using agent = await startAgent({ node, target: origin.port, name: "demo" });
    await visit(`${agent.url}/a?b=c%20d`, { method: "POST", body: "hello" });
    await visit(`${node.http}/`, { headers: { host: "unknown.localhost" } });
    const logged = (): Record<string, unknown>[] => records(node).filter((record) => "durationMs" in record);
    await until(
      "both",
      () => logged().some(({ status }) => status === 404) && logged().some(({ method }) => method === "POST"),
    );
    const post = logged().find(({ method }) => method === "POST");
    expect(post).toMatchObject({
      method: "POST",
      target: "/a?b=c%20d",
      host: `demo.localhost:${node.port}`,
      status: 200,
      bytesIn: 5,
      visitor: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    });
    expect(logged().find(({ status }) => status === 404)).toMatchObject({ host: "unknown.localhost" });
  }, 60_000);

  test("a node that is told to stop does not wait long for a reader who reads nothing", async () => {
    using scratch = new Scratch();
    const log = scratch.join("log");
    expect(await Bun.spawn(["mkfifo", log]).exited).toBe(0);
    const unread = openSync(log, "r+");
    const ports = ["--http", "127.0.0.1:0", "--tunnel", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    const command = ["edge", "--data", scratch.join("data"), "--access-log", "--json", ...ports];
    const child = Bun.spawn([process.execPath, "--no-env-file", "src/cli/main.ts", ...command], {
      cwd: `${import.meta.dir}/../..`,
      stdio: ["ignore", "pipe", unread],
    });
    try {
      const { value } = await child.stdout.getReader().read();
      const { http } = JSON.parse(new TextDecoder().decode(value)) as { http: string };
      // More log than a pipe holds.
      for (let i = 0; i < 100; i++) expect((await visit(`${http}/${"x".repeat(8_000)}`)).status).toBe(404);
      const startedMs = performance.now();
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
      const tookMs = performance.now() - startedMs;
      expect(tookMs).toBeGreaterThan(limits.outputLastWordsMs - 50);
    } finally {
      child.kill("SIGKILL");
      closeSync(unread);
    }
  }, 60_000);

  test("levels hold back what is less important", async () => {
    const levelsOf = (node: TestNode): Set<unknown> => new Set(records(node).map(({ level }) => level));
    for (const [level, expected] of [
      ["error", []],
      ["warn", ["warn"]], // the name that was refused
      ["info", ["info", "warn"]],
    ] as const) {
      await using node = await startNode({ args: ["--log-level", level] });
      using home = new Scratch();
      const refused = agentArgs(node, 1, "admin");
      expect((await runSally(refused, { env: { SALLY_HOME: home.path } })).code).toBe(2);
      await until("the lines", () => Bun.deepEquals(levelsOf(node), new Set(expected)));
      for (const record of records(node)) {
        expect(record).toMatchObject({
          time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
          message: expect.any(String),
        });
      }
    }
  }, 60_000);

  test("an agent whose stdout nobody reads goes on serving", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using home = new Scratch();
    const env = { ...process.env, SALLY_HOME: home.path };
    const child = Bun.spawn(
      [process.execPath, "--no-env-file", "src/cli/main.ts", ...agentArgs(node, origin.port), "--json"],
      {
        cwd: `${import.meta.dir}/../..`,
        env,
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    try {
      const reader = child.stdout.getReader();
      await reader.read();
      await reader.cancel(); // a script that read one line and left
      const url = `http://demo.localhost:${node.port}`;
      await until("the tunnel", async () => (await visit(url)).status === 200);
      for (let i = 0; i < 3; i++) {
        await until("more traffic to be told", async () => (await visit(`${url}/${i}`)).status === 200);
      }
      expect(child.exitCode).toBeNull();
    } finally {
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
      expect(await new Response(child.stderr).text()).toBe("");
    }
  }, 60_000);
});
