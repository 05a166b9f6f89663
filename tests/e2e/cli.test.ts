/** The command line as a person and a script meet it: exit codes, messages, settings, origins of every kind. */

import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { Database } from "bun:sqlite";
import { type AddressInfo, createServer } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { limits } from "../../src/core/limits.ts";
import { lockData } from "../../src/store/data-lock.ts";
import { callAdmin, runSally, startOrigin, visit } from "../support/command.ts";
import { createPublicAuthority } from "../support/public-certificates.ts";
import { RawOrigin } from "../support/raw-origin.ts";
import { SallyProcess, Scratch, startAgent, startNode } from "../support/sally.ts";
import { until } from "../support/until.ts";

const anyPorts = ["--http", "127.0.0.1:0", "--tunnel", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/** A TCP port that somebody else listens on. */
async function takenPort(): Promise<Disposable & { readonly port: number }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("it listens on TCP");
  return { port: address.port, [Symbol.dispose]: () => void server.close() };
}

describe("what was typed wrongly ends with code 2 and says what is wrong", () => {
  const cases: readonly (readonly [args: readonly string[], says: string])[] = [
    [["htpp", "3000"], "unknown command 'htpp'"],
    [["http"], "missing required argument 'target'"],
    [["http", "3000", "4000"], "too many arguments"],
    [["http", "3000", "--colour"], "unknown option '--colour'"],
    [["http", "3000", "--transport", "pigeon"], "auto, quic, websocket"],
    [["http", "somewhere"], '"somewhere" is not a target (the port is missing or out of range): use PORT, HOST:PORT'],
    [["http", "70000"], "the port is missing or out of range"],
    [["http", "0"], "port 0"],
    [["http", "http://u:p@localhost:1"], "no user or password"],
    [["http", "ftp://localhost:1"], "is not a target"],
    [["http", "unix:"], "the path is missing"],
    [["http", "3000", "--edge", "edge.example"], '"edge.example" is not the address of a node: use https://HOST:PORT'],
    [["http", "3000", "--edge", "http://edge.example"], "is not the address of a node"],
    [["http", "3000", "--edge", "https://edge.example", "--token-file", "/nowhere/at/all"], "/nowhere/at/all"],
    [["http", "3000", "--name", "a b"], "a name has 1 to 63 letters"],
    [["http", "3000", "--host", "a b"], "use preserve, rewrite or a host name"],
    [["http", "3000", "--log-level", "loud"], "logLevel"],
    [["edge", "--http", "8080"], '"8080" is not HOST:PORT'],
    [["edge", "--domain", "not a domain"], "a domain looks like"],
    [["edge", "--config", "/nowhere/at/all"], "cannot read /nowhere/at/all"],
    [["edge", "--https", "127.0.0.1:0", ...anyPorts], "--https needs a certificate"],
    [["start", "-c", "/nowhere/at/all"], "cannot read /nowhere/at/all"],
    [["login", "https://edge.example"], "--token-file FILE"],
    [["login", "edge.example", "--token", "x"], "is not the address of a node"],
    [["token", "create", "--expires", "soon"], "whole number above zero"],
    [["token", "create", "--names", "Bad name"], "names.0: a name has a-z"],
    [["token", "create", "--identity", "A/B"], "identity: an identity has"],
    [["token", "list", "--admin", "nonsense"], "is not an admin address"],
    [["completion", "tcsh"], "use bash, zsh or fish"],
  ];
  test.each(cases.map(([args, says]) => [args.join(" "), args, says] as const))(
    "sally %s",
    async (_name, args, says) => {
      using home = new Scratch();
      const run = await runSally([...args], { env: { SALLY_HOME: home.path }, cwd: home.path });
      expect([run.code, run.stdout]).toEqual([2, ""]);
      expect(run.stderr).toContain(says);
      expect(run.stderr).not.toContain("    at "); // no stack
    },
  );

  test("without a command the help is shown", async () => {
    const run = await runSally([]);
    expect(run.code).toBe(2);
    for (const command of ["http", "start", "edge", "login", "token", "status", "doctor", "completion", "version"]) {
      expect(run.stderr).toMatch(new RegExp(`^  ${command}\\b`, "m"));
    }
    const help = await runSally(["http", "--help"]);
    expect([help.code, help.stderr]).toEqual([0, ""]);
    expect(help.stdout).toContain("--token-file");
  });
});

describe("configuration files", () => {
  test.each([
    ["domain: 7", "domain"],
    ["publicUrl: https://other.example", "publicUrl: its host is not the domain localhost"],
    ["publicUrl: https://u:p@localhost", "a public URL looks like"],
    ["htpp: 127.0.0.1:1", "htpp"],
    ["limits: { headBytes: -1 }", "limits.headBytes"],
    ["limits: { nope: 1 }", "nope"],
    ["trustedProxies: [not-an-address]", "trustedProxies.0"],
    ["http: nowhere", 'http: "nowhere" is not HOST:PORT'],
    ["- a\n- b", "must hold settings"],
    ["a: [", "is not YAML"],
  ])("the wrong setting is named: %p", async (text, says) => {
    using scratch = new Scratch();
    const path = scratch.join("node.yaml");
    writeFileSync(path, text);
    const run = await runSally(["edge", "--config", path, "--data", scratch.join("data")]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain(path);
    expect(run.stderr).toContain(says);
  });

  test("every wrong setting of sally.yaml is named at once", async () => {
    using scratch = new Scratch();
    const path = scratch.join("sally.yaml");
    writeFileSync(
      path,
      "lanes: 0\ntunnels:\n  - { target: 3000, nmae: x }\n  - { target: 3000, host: 'a b' }\n  - {}\n",
    );
    const run = await runSally(["start", "-c", path]);
    expect(run.code).toBe(2);
    for (const setting of ["lanes", "tunnels.0", "nmae", "tunnels.1.host", "tunnels.2.target"])
      expect(run.stderr).toContain(setting);
    const twins = scratch.join("twins.yaml");
    writeFileSync(twins, "tunnels: [{ name: app, target: 1 }, { target: 2 }, { name: APP, target: 3 }]\n");
    expect(await runSally(["start", "-c", twins])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('tunnels.2.name: "app" is there already'),
    });
    const bad = scratch.join("bad.yaml");
    writeFileSync(bad, "tunnels: [{ target: nowhere }]\n");
    expect(await runSally(["start", "-c", bad])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('"nowhere" is not a target'),
    });
  });

  test("flags win over the environment, the environment over the file, and defaults over nothing", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using scratch = new Scratch();
    const path = scratch.join("sally.yaml");
    const nowhere = "https://127.0.0.1:1";
    const write = (edge: string): void =>
      writeFileSync(path, `edge: ${edge}\ntransport: websocket\ntunnels: [{ name: demo, target: ${origin.port} }]\n`);
    const env = { SALLY_HOME: scratch.join("home"), SALLY_TOKEN_FILE: node.tokenFile };
    const up = async (args: readonly string[], more: Record<string, string> = {}): Promise<unknown> => {
      await using agent = new SallyProcess(["start", "-c", path, "--json", ...args], { env: { ...env, ...more } });
      return (await agent.waitFor("tunnel"))["transport"];
    };
    write(node.tunnel);
    expect(await up([])).toBe("websocket"); // a flag's default is no flag
    expect(await up(["--transport", "quic"])).toBe("quic");
    write(nowhere);
    expect(await up([], { SALLY_EDGE: node.tunnel })).toBe("websocket");
    expect(await up(["--edge", node.tunnel], { SALLY_EDGE: nowhere })).toBe("websocket");
  }, 60_000);
});

describe("what is in the way is named", () => {
  test("an address that is taken", async () => {
    using scratch = new Scratch();
    using taken = await takenPort();
    const address = `127.0.0.1:${taken.port}`;
    for (const flag of ["--http", "--tunnel", "--admin"]) {
      const args = anyPorts.with(anyPorts.indexOf(flag) + 1, address);
      const run = await runSally(["edge", ...args, "--data", scratch.join("data"), "--json"]);
      expect([flag, run.code, run.events[0]?.["code"]]).toEqual([flag, 1, "ADDRESS_IN_USE"]);
      expect(run.stderr).toContain(address);
    }
  }, 30_000);

  test("a UDP port that is taken, although TCP is free", async () => {
    using scratch = new Scratch();
    const taken = await Bun.udpSocket({ hostname: "127.0.0.1", port: 0 });
    const address = `127.0.0.1:${taken.port}`;
    const run = await runSally(["edge", ...anyPorts.with(3, address), "--data", scratch.join("data"), "--json"]);
    taken.close();
    expect([run.code, run.events[0]?.["code"]]).toEqual([1, "ADDRESS_IN_USE"]);
    expect(run.stderr).toContain(address);
  });

  test("an address that cannot be listened on", async () => {
    using scratch = new Scratch();
    const cases = [
      ["--http", "192.0.2.1:0", 1, "this machine has no such address"],
      ["--tunnel", "192.0.2.1:0", 1, "this machine has no such address"],
      ["--http", "nohost.invalid:0", 1, "the name is not known"],
      ["--admin", "192.0.2.1:0", 2, "the admin port listens on loopback"],
    ] as const;
    for (const [flag, address, code, says] of cases) {
      const args = anyPorts.with(anyPorts.indexOf(flag) + 1, address);
      const run = await runSally(["edge", ...args, "--data", scratch.join("data"), "--json"]);
      expect([flag, address, run.code, run.events[0]?.["code"]]).toEqual([
        flag,
        address,
        code,
        code === 1 ? "LISTEN_FAILED" : "USAGE",
      ]);
      expect(run.stderr).toContain(says);
    }
  }, 30_000);

  test("names stand for addresses, the tunnel's too", async () => {
    using scratch = new Scratch();
    const args = anyPorts.map((arg) => arg.replace("127.0.0.1", "localhost"));
    await using node = new SallyProcess(["edge", ...args, "--data", scratch.join("data"), "--json"]);
    expect(String((await node.waitFor("ready"))["tunnel"])).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
  });

  test("a data folder that cannot be one", async () => {
    using scratch = new Scratch();
    const file = scratch.join("a-file");
    writeFileSync(file, "");
    const run = await runSally(["edge", ...anyPorts, "--data", file, "--json"]);
    expect([run.code, run.events[0]?.["code"]]).toEqual([1, "STORE_FAILED"]);
    expect(run.stderr).toContain(file);
    const home = await runSally(["http", "1", "--json"], { env: { SALLY_HOME: file } });
    expect([home.code, home.events.at(-1)?.["code"]]).toEqual([1, "STORE_FAILED"]);
  });

  test("a data folder that may not be written", async () => {
    using scratch = new Scratch();
    // Root may write everywhere but among the kernel's own files.
    const folder = process.getuid?.() === 0 ? "/proc/sys/sally-data" : scratch.join("data");
    if (folder === scratch.join("data")) mkdirSync(folder, { mode: 0o500 });
    const run = await runSally(["edge", ...anyPorts, "--data", folder, "--json"]);
    expect([run.code, run.events[0]?.["code"]]).toEqual([1, "STORE_FAILED"]);
    expect(run.stderr).toContain(folder);
  });

  test("a registry of a newer version, or one that is damaged", async () => {
    using scratch = new Scratch();
    const data = scratch.join("data");
    const first = new SallyProcess(["edge", ...anyPorts, "--data", data, "--json"]);
    await first.waitFor("ready");
    expect(await first.stop()).toBe(0);
    const path = `${data}/registry.sqlite`;
    const database = new Database(path);
    database.run("PRAGMA user_version = 9999");
    database.close();
    const newer = await runSally(["edge", ...anyPorts, "--data", data, "--json"]);
    expect([newer.code, newer.events[0]?.["code"]]).toEqual([1, "STORE_FAILED"]);
    expect(newer.stderr).toMatch(/newer/);
    writeFileSync(path, "this is no database, but it is long enough to be looked at as one ".repeat(100));
    const damaged = await runSally(["edge", ...anyPorts, "--data", data, "--json"]);
    expect([damaged.code, damaged.events[0]?.["code"]]).toEqual([1, "STORE_FAILED"]);
    expect(damaged.stderr).toContain("damaged");
  }, 30_000);

  test("no node at the admin address, and no admin token in the folder", async () => {
    await using node = await startNode();
    using scratch = new Scratch();
    const nobody = await runSally(["status", "--admin", "http://127.0.0.1:1", "--json"]);
    expect([nobody.code, nobody.events[0]?.["code"]]).toEqual([1, "CONNECT_FAILED"]);
    expect(nobody.stderr).toContain("127.0.0.1:1");
    const stranger = await runSally(["token", "list", "--admin", node.admin, "--data", scratch.path, "--json"]);
    expect([stranger.code, stranger.events[0]?.["code"]]).toEqual([3, "AUTH_FAILED"]);
    expect(stranger.stderr).toContain("--data");
  });
});

describe("without a node", () => {
  test("sally http works at once, says so, and tells how to be reached from elsewhere", async () => {
    await using origin = startOrigin("app");
    using home = new Scratch();
    const env = { SALLY_HOME: home.path };
    await using agent = new SallyProcess(["http", String(origin.port), "--json"], { env });
    const tunnel = await agent.waitFor("tunnel");
    expect(agent.events[0]).toMatchObject({
      event: "embedded",
      http: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    });
    expect(await visit(String(tunnel["url"]))).toMatchObject({ status: 200, body: expect.stringContaining("app ") });
    // A second one beside it finds ports and a name of its own.
    await using other = new SallyProcess(["http", String(origin.port), "--name", "other", "--json"], { env });
    expect((await visit(String((await other.waitFor("tunnel"))["url"]))).status).toBe(200);
    expect(await agent.stop("SIGINT")).toBe(0);

    const plain = new SallyProcess(["http", String(origin.port)].concat("--json"), { env });
    expect((await plain.waitFor("tunnel"))["name"]).toBe(tunnel["name"]); // stable
    await plain.stop();
  }, 60_000);

  test("so many terminals have a node of their own; one more is told what to do", async () => {
    using home = new Scratch();
    const folders = Array.from({ length: limits.embeddedNodes }, (_, i) => (i === 0 ? "node" : `node-${i + 1}`));
    const locks = folders.map((folder) => {
      mkdirSync(home.join(folder));
      return lockData(home.join(`${folder}/node.lock`), 0);
    });
    const env = { SALLY_HOME: home.path };
    const refused = await runSally(["http", "1", "--json"], { env });
    expect([refused.code, refused.events.at(-1)?.["code"]]).toEqual([1, "DATA_IN_USE"]);
    locks.at(-1)!.release();
    await using last = new SallyProcess(["http", "1", "--json"], { env });
    await last.waitFor("embedded");
    for (const lock of locks) lock.release();
  }, 60_000);

  test("an agent that was started first waits for its node and its origin, for ever", async () => {
    using scratch = new Scratch();
    // The token exists before the node runs: its data folder was made by an earlier run on the same ports.
    await using first = await startNode({ data: scratch.join("data") });
    const ports = {
      http: first.port,
      tunnel: Number(new URL(first.tunnel).port),
      admin: Number(new URL(first.admin).port),
    };
    await first.process.stop();
    const placeholder = startOrigin("app");
    const originPort = placeholder.port;
    await placeholder[Symbol.asyncDispose]();

    const args = [
      "http",
      String(originPort),
      "--name",
      "demo",
      "--edge",
      first.tunnel,
      "--token-file",
      first.tokenFile,
    ];
    await using agent = new SallyProcess([...args, "--json"], { env: { SALLY_HOME: scratch.join("home") } });
    for (let tries = 0; tries < 3; tries++) {
      const retry = await agent.waitForNext(({ event }) => event === "retry");
      expect(retry).toMatchObject({ code: "CONNECT_FAILED", node: first.tunnel, delayMs: expect.any(Number) });
    }
    await using _node = await startNode({ data: scratch.join("data"), ports });
    const url = String((await agent.waitFor("tunnel"))["url"]);
    expect((await visit(url)).status).toBe(502);
    await agent.waitFor(({ event, state }) => event === "origin" && state === "down");
    await using _origin = startOrigin("app", { port: originPort });
    await agent.waitFor(({ event, state }) => event === "origin" && state === "up");
    expect(await visit(url)).toMatchObject({ status: 200 });
    expect(agent.events.filter(({ event, state }) => event === "link" && state === "down")).toEqual([]);
  }, 60_000);
});

test("of several nodes the ones that are gone are passed over", async () => {
  await using node = await startNode();
  using home = new Scratch();
  const env = { SALLY_HOME: home.path };
  const edges = ["--edge", "https://127.0.0.1:1", "--edge", node.tunnel];
  const http = ["http", "1", "--name", "demo", ...edges, "--json"];
  for (const token of [["--token-file", node.tokenFile], []]) {
    await using agent = new SallyProcess([...http, ...token], { env });
    expect(await agent.waitFor("link")).toMatchObject({ state: "up", node: node.tunnel });
    await agent.waitFor("tunnel");
    await agent.stop();
  }
}, 60_000);

describe("origins", () => {
  test("sally start serves several tunnels: TCP, unix socket, prefix, every Host policy, IPv6-only localhost", async () => {
    await using node = await startNode();
    using scratch = new Scratch();
    await using plain = startOrigin("plain");
    await using six = startOrigin("six", { hostname: "::1" });
    const socketPath = scratch.join("app.sock");
    const unix = Bun.serve({
      unix: socketPath,
      fetch: (asked) => new Response(`unix ${asked.headers.get("host")} ${new URL(asked.url).pathname}`),
    });
    const config = scratch.join("sally.yaml");
    const tunnels = [
      `{ name: keep, target: ${plain.port} }`,
      `{ name: own, target: "127.0.0.1:${plain.port}", host: rewrite }`,
      `{ name: fixed, target: ${plain.port}, host: shop.example }`,
      `{ name: six, target: ${six.port} }`,
      `{ name: sock, target: "unix:${socketPath}" }`,
      `{ name: sock-own, target: "unix:${socketPath}", host: rewrite }`,
      `{ name: deep, target: "http://localhost:${plain.port}/app/v1/" }`,
    ];
    const lines = tunnels.map((tunnel) => `  - ${tunnel}\n`).join("");
    writeFileSync(config, `edge: ${node.tunnel}\ntokenFile: ${node.tokenFile}\ntunnels:\n${lines}`);
    await using agent = new SallyProcess(["start", "-c", config, "--json"], {
      env: { SALLY_HOME: scratch.join("home") },
    });
    const names = ["keep", "own", "fixed", "six", "sock", "sock-own", "deep"];
    for (const name of names) await agent.waitFor((event) => event.event === "tunnel" && event["name"] === name);
    const at = async (name: string, path: string): Promise<string> =>
      (await visit(`http://${name}.localhost:${node.port}${path}`)).body;
    expect(await at("keep", "/x")).toBe(`plain keep.localhost:${node.port} /x`);
    expect(await at("own", "/x")).toBe(`plain 127.0.0.1:${plain.port} /x`);
    expect(await at("fixed", "/x")).toBe("plain shop.example /x");
    expect(await at("six", "/x")).toBe(`six six.localhost:${node.port} /x`);
    expect(await at("sock", "/x")).toBe(`unix sock.localhost:${node.port} /x`);
    expect(await at("sock-own", "/x")).toBe("unix localhost /x");
    expect(await at("deep", "/x?y=1")).toBe(`plain deep.localhost:${node.port} /app/v1/x`);
    expect(await at("deep", "/")).toBe(`plain deep.localhost:${node.port} /app/v1/`);
    await unix.stop(true);
  }, 60_000);

  test("an https origin is verified: by roots of this machine and those that were added, with a clear 502 otherwise", async () => {
    await using node = await startNode();
    using scratch = new Scratch();
    const authority = await createPublicAuthority();
    const rootFile = scratch.join("root.pem");
    writeFileSync(rootFile, authority.caPem);
    const serve = async (hosts: string[], options?: { expired: boolean }) => {
      const { keyPem: key, certPem: cert } = await authority.issue(hosts, options);
      return Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        tls: { key, cert },
        fetch: (asked) => new Response(`secure ${asked.headers.get("host")}`),
      });
    };
    const good = await serve(["localhost"]);
    const cases = [
      { name: "good", port: good.port, roots: true, status: 200 },
      { name: "unknown", port: good.port, roots: false, status: 502 },
      { name: "misnamed", port: (await serve(["other.example"])).port, roots: true, status: 502 },
      { name: "expired", port: (await serve(["localhost"], { expired: true })).port, roots: true, status: 502 },
    ];
    for (const { name, port, roots, status } of cases) {
      const env = { SALLY_HOME: scratch.join("home"), ...(roots ? { NODE_EXTRA_CA_CERTS: rootFile } : {}) };
      const args = ["http", `https://localhost:${port}`, "--name", name, "--host", "rewrite", "--edge", node.tunnel];
      await using agent = new SallyProcess([...args, "--token-file", node.tokenFile, "--json"], { env });
      const url = String((await agent.waitFor("tunnel"))["url"]);
      const reply = await visit(url, { headers: { accept: "application/json" } });
      expect([name, reply.status, reply.headers["sally-error"]]).toEqual([
        name,
        status,
        status === 200 ? undefined : "ORIGIN_TLS",
      ]);
      // The first look at the origin sees as much as a visitor does.
      const state = agent.events.find(({ event }) => event === "origin")?.["state"];
      expect([name, state]).toEqual([name, status === 200 ? "up" : "down"]);
      if (status === 200) expect(reply.body).toBe(`secure localhost:${port}`);
      else expect(reply.body).toContain("certificate of localhost");
    }
  }, 60_000);

  test("an origin that is an address gets no server name", async () => {
    await using node = await startNode();
    using scratch = new Scratch();
    const authority = await createPublicAuthority();
    const rootFile = scratch.join("root.pem");
    writeFileSync(rootFile, authority.caPem);
    const { keyPem: key, certPem: cert } = await authority.issue(["127.0.0.1"]);
    const names: unknown[] = [];
    const origin = createTlsServer({ key, cert }, (socket) => {
      names.push(socket.servername);
      socket.end("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    });
    await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
    const { port } = origin.address() as AddressInfo;
    const args = ["http", `https://127.0.0.1:${port}`, "--name", "ip", "--edge", node.tunnel, "--json"];
    const env = { SALLY_HOME: scratch.join("home"), NODE_EXTRA_CA_CERTS: rootFile };
    await using agent = new SallyProcess([...args, "--token-file", node.tokenFile], { env });
    const url = String((await agent.waitFor("tunnel"))["url"]);
    expect((await visit(url)).status).toBe(204);
    origin.close();
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => name !== false)).toEqual([]);
  });

  test.each([
    ["nohost.invalid:80", "the name nohost.invalid was not found"],
    ["unix:/nowhere/app.sock", "nothing listens on unix:/nowhere/app.sock: start your app or pass another path"],
  ])("an origin %p that cannot be reached is answered with the cause", async (target, says) => {
    await using node = await startNode();
    await using agent = await startAgent({ node, target, name: "demo" });
    const reply = await visit(agent.url, { headers: { accept: "application/json" } });
    expect([reply.status, reply.headers["sally-error"]]).toEqual([502, "ORIGIN_REFUSED"]);
    expect(reply.body).toContain(says);
  });

  test("an origin that is down gives a 502 that names the cause, and the tunnel stays up", async () => {
    await using node = await startNode();
    const gone = startOrigin("app");
    const { port } = gone;
    await gone[Symbol.asyncDispose]();
    await using agent = await startAgent({ node, target: port, name: "demo" });
    const down = await agent.process.waitFor("origin");
    expect(down).toMatchObject({ state: "down", name: "demo", origin: `localhost:${port}`, code: "ORIGIN_REFUSED" });

    const json = await visit(agent.url, { headers: { accept: "*/*" } });
    expect([json.status, json.headers["content-type"], json.headers["sally-error"]]).toEqual([
      502,
      "application/problem+json",
      "ORIGIN_REFUSED",
    ]);
    expect(JSON.parse(json.body)).toMatchObject({
      status: 502,
      code: "ORIGIN_REFUSED",
      detail: expect.stringContaining(`nothing listens on localhost:${port}: start your app`),
    });
    const html = await visit(agent.url, { headers: { accept: "text/html,*/*;q=0.8" } });
    expect([html.status, html.headers["content-type"]]).toEqual([502, "text/html; charset=utf-8"]);
    expect(html.body).toContain(`nothing listens on localhost:${port}`);
    expect(html.body).toContain(String(html.headers["sally-request-id"]));

    await using _origin = startOrigin("app", { port });
    await agent.process.waitFor(({ event, state }) => event === "origin" && state === "up");
    expect((await visit(agent.url)).status).toBe(200);
    expect(agent.process.events.filter(({ event }) => event === "link")).toHaveLength(1);
  }, 60_000);

  test("an unix socket that is not there is named", async () => {
    await using node = await startNode();
    using scratch = new Scratch();
    const path = scratch.join("not-there.sock");
    await using agent = await startAgent({ node, target: `unix:${path}`, name: "demo" });
    const reply = await visit(agent.url);
    expect([reply.status, reply.headers["sally-error"]]).toEqual([502, "ORIGIN_REFUSED"]);
    expect(reply.body).toContain("not-there.sock");

    const odd = scratch.join('<img src=x onerror="alert(1)">.sock');
    await using other = await startAgent({ node, target: `unix:${odd}`, name: "odd" });
    const page = await visit(`${other.url}/<script>alert(2)</script>`, { headers: { accept: "text/html" } });
    expect([page.status, page.headers["content-type"]]).toEqual([502, "text/html; charset=utf-8"]);
    expect(page.body).toContain("&lt;img src=x");
    expect(page.body).not.toMatch(/<img|<script/);
    expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
  }, 60_000);
});

describe("about the program itself", () => {
  test("version, status and doctor speak to people and to programs", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    await using agent = await startAgent({ node, target: origin.port, name: "demo" });
    using home = new Scratch();
    const { version } = JSON.parse(readFileSync(`${import.meta.dir}/../../package.json`, "utf8")) as {
      version: string;
    };
    expect(await runSally(["version"])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: "" });
    expect((await runSally(["--version"])).stdout).toBe(`${version}\n`);
    expect((await runSally(["version", "--json"])).events).toEqual([{ event: "version", version }]);

    const admin = ["--admin", node.admin, "--data", node.data];
    const [status] = (await runSally(["status", ...admin, "--json"])).events;
    expect(status).toMatchObject({
      event: "status",
      version,
      domain: "localhost",
      isReady: true,
      tunnels: [{ name: "demo", state: "live", url: agent.url, origin: `localhost:${origin.port}`, identity: "owner" }],
      links: [{ names: ["demo"], transport: agent.transport, identity: "owner" }],
    });
    const people = await runSally(["status", ...admin]);
    expect(people.stdout).toContain(`${agent.url} -> localhost:${origin.port}`);

    const env = { SALLY_HOME: home.path };
    const doctor = await runSally(["doctor", "--edge", node.tunnel, "--json"], { env });
    expect(doctor.code).toBe(0);
    expect(doctor.events.map(({ event, name, ok }) => [event, name, ok])).toEqual(
      expect.arrayContaining([
        ["check", "version", true],
        ["check", "quic", true],
        ["check", "home", true],
        ["check", `node ${node.tunnel}`, true],
      ]),
    );
    expect(doctor.stdout).toContain("not logged in");
    expect((await runSally(["login", node.tunnel, "--token-file", node.tokenFile], { env })).code).toBe(0);
    const known = await runSally(["doctor", "--json"], { env });
    expect(known.events.find(({ name }) => name === `link ${node.tunnel} over quic`)).toMatchObject({ ok: true });
    expect(known.events.find(({ name }) => name === `link ${node.tunnel} over websocket`)).toMatchObject({ ok: true });
    const sick = await runSally(["doctor", "--edge", "https://127.0.0.1:1", "--json"], { env });
    expect(sick.code).toBe(1);
    expect(sick.events.at(-1)).toMatchObject({ event: "check", ok: false, code: "CONNECT_FAILED" });
    const said = await runSally(["doctor", "--edge", "https://127.0.0.1:1"], { env });
    expect(said.stdout).toMatch(/^ok {4}quic: /m);
    expect(said.stdout).toMatch(/^FAIL {2}node https:\/\/127\.0\.0\.1:1: nothing listens on 127\.0\.0\.1:1$/m);
  }, 60_000);

  test("a list is whole, however slowly it is read, and a reader that leaves is no trouble", async () => {
    await using node = await startNode();
    for (let i = 0; i < 400; i++) {
      expect(
        (await callAdmin(node, "POST", "/api/tokens", { label: `${i} ${"x".repeat(90)}`, names: [] })).status,
      ).toBe(201);
    }
    const list = `"$BUN" --no-env-file src/cli/main.ts token list --json --admin ${node.admin} --data ${node.data}`;
    const shell = async (script: string): Promise<string> => {
      const child = Bun.spawn(["bash", "-c", script], {
        env: { ...process.env, BUN: process.execPath },
        cwd: `${import.meta.dir}/../..`,
        stdio: ["ignore", "pipe", "pipe"],
      });
      const [out, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
      expect(errors).toBe("");
      return out;
    };
    expect(await shell(`${list} | (sleep 1; wc -l)`)).toBe("401\n");
    expect(await shell(`${list} | head -1 | wc -l`)).toBe("1\n");
  }, 60_000);

  test("the first public URL comes at once, with a node running", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using home = new Scratch();
    const took: Record<string, number[]> = {};
    for (const transport of ["quic", "websocket", "auto"] as const) {
      took[transport] = [];
      for (let round = 0; round < 4; round++) {
        const startedMs = performance.now();
        await using agent = await startAgent({ node, target: origin.port, name: "demo", transport, home: home.path });
        took[transport].push(performance.now() - startedMs);
        await agent.process.stop();
      }
    }
    for (const [transport, times] of Object.entries(took)) {
      const texts = times.map((ms) => ms.toFixed(0)).join(", ");
      process.stdout.write(`first public URL over ${transport}: ${texts} ms (the promise is 500)\n`);
    }
    // The promise is for a machine of its own; a loaded one is given more time.
    expect(Math.min(...Object.values(took).flat())).toBeLessThan(500);
    const best = Object.values(took).map((times) => Math.min(...times));
    expect(Math.max(...best)).toBeLessThan(1_500);
  }, 60_000);
});

describe("completion", () => {
  const complete = async (words: string): Promise<string[]> => {
    const { stdout } = await runSally(["completion", "bash"]);
    const script = `${stdout}
      words=(${words}); [[ "${words}" == *" " ]] && words+=("")
      COMP_WORDS=("\${words[@]}"); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); COMPREPLY=()
      complete -p sally >/dev/null || exit 1
      _sally; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const child = Bun.spawn(["bash", "--norc", "-c", script], { stdio: ["ignore", "pipe", "pipe"], cwd: "/" });
    const [out, errors, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    expect([code, errors]).toEqual([0, ""]);
    return out.split("\n").filter((line) => line !== "");
  };

  test("bash completes commands, their own commands, and flags", async () => {
    expect(await complete("sally ")).toEqual(
      expect.arrayContaining(["http", "start", "edge", "login", "token", "status"]),
    );
    expect(await complete("sally st")).toEqual(["start", "status"]);
    expect(await complete("sally http --transport ")).toEqual(["auto", "quic", "websocket"]);
    expect(await complete("sally http 3000 --log-level=")).toEqual([]);
    expect(await complete("sally edge --log-level w")).toEqual(["warn"]);
    expect(await complete("sally completion ")).toEqual(["bash", "zsh", "fish"]);
    expect((await complete("sally token ")).slice(0, 3)).toEqual(["create", "list", "revoke"]);
    expect(await complete("sally token create --ex")).toEqual(["--expires"]);
    expect(await complete("sally http 3000 --tr")).toEqual(["--transport"]);
    expect(await complete("sally edge --config /etc/hos")).toContain("/etc/hosts");
  }, 30_000);

  test("every script is one that its shell can read, and knows every flag", async () => {
    for (const shell of ["bash", "zsh", "fish"]) {
      const { code, stdout } = await runSally(["completion", shell]);
      expect(code).toBe(0);
      expect(stdout).toContain(shell === "fish" ? "-l trust-tls-proxy" : "--trust-tls-proxy");
      const reader = Bun.which(shell);
      if (reader === null) continue;
      const check = Bun.spawn([reader, "-n"], { stdin: new Blob([stdout]), stdout: "ignore", stderr: "pipe" });
      expect([shell, await check.exited, await new Response(check.stderr).text()]).toEqual([shell, 0, ""]);
    }
  }, 30_000);
});

test("an agent that is told to stop gives running requests so long, and no longer", async () => {
  await using node = await startNode();
  await using origin = await RawOrigin.listen(); // it never answers
  await using agent = await startAgent({ node, target: origin.port, name: "demo" });
  void visit(agent.url, { timeoutMs: 60_000 }).catch(() => {});
  await (await origin.accept()).readHead();
  const startedMs = performance.now();
  expect(await agent.process.stop("SIGINT")).toBe(0);
  const tookMs = performance.now() - startedMs;
  expect(tookMs).toBeGreaterThan(limits.agentStopGraceMs - 50);
}, 60_000);

test("a second signal ends a command that is slow to stop", async () => {
  await using node = await startNode();
  const stuck = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch: () => new Promise<Response>(() => {}),
  });
  await using agent = await startAgent({ node, target: stuck.port!, name: "demo" });
  void visit(agent.url, { timeoutMs: 60_000 }).catch(() => {});
  await until("the request to run", async () => {
    const { links } = JSON.parse((await callAdmin(node, "GET", "/api/status")).body) as { links: number };
    const streams = JSON.parse((await callAdmin(node, "GET", "/api/links")).body) as { streams: number }[];
    return links === 1 && streams[0]!.streams > 0;
  });
  agent.process.kill("SIGINT");
  agent.process.kill("SIGTERM");
  expect([130, 143]).toContain(await agent.process.exited); // whichever came second
  await stuck.stop(true);
}, 60_000);
