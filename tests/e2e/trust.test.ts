/** Who may join a node, for how long, and what becomes of those who may no more; with real processes. */

import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "node:tls";
import { createPublicAuthority } from "../support/public-certificates.ts";
import { limits } from "../../src/core/limits.ts";
import { callAdmin, makeToken, runSally, startOrigin, visit } from "../support/command.ts";
import { note } from "../support/fault-rig.ts";
import { SallyProcess, Scratch, startAgent, startNode, type TestNode } from "../support/sally.ts";
import { until } from "../support/until.ts";

/** Certificates that live for seconds, so that renewal and expiry happen within a test. */
function shortLivedCertificates(scratch: Scratch): string[] {
  const path = scratch.join("node.yaml");
  writeFileSync(path, "limits:\n  agentCertificateMs: 4000\n");
  return ["--config", path];
}

function writeToken(scratch: Scratch, token: string, name = "join.token"): string {
  const path = scratch.join(name);
  writeFileSync(path, `${token}\n`, { mode: 0o600 });
  return path;
}

function secretOf(token: string): string {
  return /^sally_([A-Za-z0-9_-]+)\./.exec(token)![1]!; // a join token has a secret
}

/** Every argument and environment of a process as the system shows them to others. */
function commandLineOf(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, "latin1");
}

function allTextsUnder(folder: string): { path: string; text: string }[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => ({ path, text: readFileSync(path, "latin1") }));
}

/** What the tunnel port answers to who wants a WebSocket link and shows this certificate, or none. */
function askForLink(node: TestNode, identity: { key?: string; cert?: string }): Promise<string> {
  const { hostname: host, port } = new URL(node.tunnel);
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port), rejectUnauthorized: false, ...identity }, () => {
      const key = randomBytes(16).toString("base64");
      socket.write(
        `GET /_sally/link?session=${randomBytes(16).toString("hex")}&lane=0 HTTP/1.1\r\nHost: ${host}\r\n` +
          `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n` +
          "Sec-WebSocket-Protocol: sallyport.1\r\n\r\n",
      );
    });
    socket.once("data", (chunk) => {
      resolve(chunk.toString("latin1"));
      socket.destroy();
    });
    socket.once("error", reject);
  });
}

test("a link over WebSocket is refused to a certificate of somebody else's authority, as over QUIC", async () => {
  await using node = await startNode();
  const { keyPem: key, certPem: cert } = await (await createPublicAuthority()).issue(["agent"]);
  expect(await askForLink(node, { key, cert })).toMatch(/^Sally-Error: CERTIFICATE_INVALID\r$/m);
});

/** An origin that sends without end, and says how many of its replies are still wanted. */
function endlessOrigin(): AsyncDisposable & { readonly port: number } {
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch: () =>
      new Response(
        new ReadableStream({
          async pull(controller) {
            await Bun.sleep(20); // its pace
            controller.enqueue(new Uint8Array(1_000));
          },
        }),
      ),
  });
  return { port: server.port!, [Symbol.asyncDispose]: () => server.stop(true) }; // it listens on TCP
}

/** Reads a download until it breaks off. */
async function download(url: string): Promise<{ readonly started: Promise<void>; readonly broke: Promise<number> }> {
  const { hostname, port, host } = new URL(url);
  const started = Promise.withResolvers<void>();
  const broke = Promise.withResolvers<number>();
  let received = 0;
  await Bun.connect({
    hostname: hostname.endsWith("localhost") ? "127.0.0.1" : hostname,
    port: Number(port),
    socket: {
      open: (socket) => void socket.write(`GET /endless HTTP/1.1\r\nHost: ${host}\r\n\r\n`),
      data(_socket, chunk) {
        received += chunk.length;
        if (received > 2_000) started.resolve();
      },
      close: () => broke.resolve(performance.now()),
      error: () => broke.resolve(performance.now()),
    },
  });
  return { started: started.promise, broke: broke.promise };
}

async function enrolments(node: TestNode): Promise<{ keyFingerprint: string; tokenId: string; renewedMs: number }[]> {
  return JSON.parse((await callAdmin(node, "GET", "/api/enrolments")).body) as never; // the API's contract
}

test("a node's own certificate holds for five years, and from a day ago for agents whose clocks are slow", async () => {
  const startedMs = Date.now();
  await using node = await startNode();
  const socket = connect({ host: "127.0.0.1", port: Number(new URL(node.tunnel).port), rejectUnauthorized: false });
  await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
  const { valid_from: from, valid_to: to } = socket.getPeerCertificate();
  socket.destroy();
  for (const [text, expectedMs] of [
    [from, startedMs - limits.nodeCertificateBackdateMs],
    [to, startedMs + limits.nodeCertificateMs],
  ] as const) {
    expect(Date.parse(text) - expectedMs).toBeGreaterThan(-1_000); // certificates count in seconds
    expect(Date.parse(text)).toBeLessThanOrEqual(expectedMs + Date.now() - startedMs);
  }
}, 60_000);

test("after sally login, sally http needs neither the token nor the address again", async () => {
  await using node = await startNode();
  await using origin = startOrigin("app");
  using home = new Scratch();
  const env = { SALLY_HOME: home.path };
  const login = await runSally(["login", node.tunnel, "--token-file", node.tokenFile, "--json"], { env });
  expect([login.code, login.events]).toEqual([0, [{ event: "login", edge: node.tunnel, identity: "owner" }]]);

  await using agent = new SallyProcess(["http", String(origin.port), "--name", "demo", "--json"], { env });
  const tunnel = await agent.waitFor("tunnel");
  expect(tunnel).toMatchObject({ name: "demo", url: `http://demo.localhost:${node.port}` });
  expect(await visit(`${String(tunnel["url"])}/hello`)).toMatchObject({
    status: 200,
    body: `app demo.localhost:${node.port} /hello`,
  });
}, 60_000);

test("an enrolled machine needs its token file no more, be it left out or gone", async () => {
  await using node = await startNode();
  using home = new Scratch();
  const env = { SALLY_HOME: home.join("state") };
  const gone = home.join("gone.token");
  const http = ["http", "1", "--name", "demo", "--edge", node.tunnel, "--json"];
  const early = await runSally([...http, "--token-file", gone], { env });
  expect([early.code, early.events.at(-1)?.["code"]]).toEqual([2, "USAGE"]);
  const cases = [
    { args: ["--token-file", node.tokenFile], warns: false },
    { args: [], warns: false },
    { args: ["--token-file", gone], warns: true },
  ];
  for (const { args, warns } of cases) {
    await using agent = new SallyProcess([...http, ...args], { env });
    expect(await agent.waitFor("tunnel")).toMatchObject({ name: "demo" });
    await agent.stop();
    expect([args, agent.stderr.includes(gone)]).toEqual([args, warns]);
  }
  expect(await enrolments(node)).toHaveLength(1);
}, 90_000);

test("the node that was logged in to last is the one that is meant", async () => {
  await using first = await startNode();
  await using second = await startNode();
  using home = new Scratch();
  const env = { SALLY_HOME: home.path };
  for (const node of [first, second]) {
    expect((await runSally(["login", node.tunnel, "--token-file", node.tokenFile], { env })).code).toBe(0);
  }
  await using last = new SallyProcess(["http", "1", "--name", "demo", "--json"], { env });
  expect(await last.waitFor("tunnel")).toMatchObject({ url: `http://demo.localhost:${second.port}` });
  await using named = new SallyProcess(["http", "1", "--name", "demo", "--edge", first.tunnel, "--json"], { env });
  expect(await named.waitFor("tunnel")).toMatchObject({ url: `http://demo.localhost:${first.port}` });
}, 60_000);

test("tokens are made, listed without their secrets, limited to names, and revoked", async () => {
  await using node = await startNode();
  using home = new Scratch();
  const admin = ["--admin", node.admin, "--data", node.data, "--json"];
  const made = await runSally([
    "token",
    "create",
    "--label",
    "team",
    "--identity",
    "ann",
    "--names",
    "team-*",
    "--names",
    "ann",
    "--expires",
    "2",
    ...admin,
  ]);
  expect(made.code).toBe(0);
  const created = made.events[0]!; // one line
  expect(created).toMatchObject({ event: "token", label: "team", identity: "ann", names: ["team-*", "ann"] });
  expect(Number(created["expiresMs"]) - Number(created["createdMs"])).toBeCloseTo(2 * 3_600_000, -4);
  const token = String(created["token"]);
  const plain = await runSally(["token", "create", ...admin.slice(0, 4)]);
  expect(plain.stdout).toMatch(/^sally_[A-Za-z0-9_-]{43}\.[0-9a-f]{64}\n$/);
  expect(plain.stderr).toMatch(/the names of id-[0-9a-f]{12}/);

  const listed = await runSally(["token", "list", ...admin]);
  expect(listed.events.map((event) => event["label"])).toEqual(["bootstrap", "team", "made on the command line"]);
  const identities = listed.events.map((event) => event["identity"]);
  expect(identities.slice(0, 2)).toEqual(["owner", "ann"]);
  expect(identities[2]).toMatch(/^id-[0-9a-f]{12}$/);
  expect(listed.stdout).not.toContain(secretOf(token));
  expect(listed.stdout).not.toContain("secretHash");

  const tokenFile = writeToken(home, token);
  const http = ["http", "1", "--edge", node.tunnel, "--token-file", tokenFile, "--json"];
  const env = { SALLY_HOME: home.path };
  const refused = await runSally([...http, "--name", "other"], { env });
  expect([refused.code, refused.events.at(-1)?.["code"]]).toEqual([3, "NAME_NOT_ALLOWED"]);
  expect(refused.stderr).toContain("team-*, ann");
  for (const name of ["ann", "team-x"]) {
    await using agent = new SallyProcess([...http, "--name", name], { env });
    expect(await agent.waitFor("tunnel")).toMatchObject({ name });
  }
  await using unnamed = new SallyProcess(http, { env });
  expect(String((await unnamed.waitFor("tunnel"))["name"])).toStartWith("team-");

  const id = String(created["id"]);
  expect((await runSally(["token", "revoke", id, ...admin])).events).toEqual([{ event: "revoked", id }]);
  expect(await unnamed.exited).toBe(3);
  expect((await runSally(["token", "revoke", "tok_none", ...admin])).events[0]).toMatchObject({ code: "NOT_FOUND" });
  const again = (await runSally(["token", "list", ...admin])).events.find((event) => event["id"] === id);
  expect(again?.["revokedMs"]).toBeNumber();
}, 90_000);

test.each(["quic", "websocket"] as const)(
  "revoking a token ends its live links and downloads at once (%s)",
  async (transport) => {
    await using node = await startNode();
    await using origin = endlessOrigin();
    using home = new Scratch();
    const { id, token } = await makeToken(node, { identity: "ann" });
    const tokenFile = writeToken(home, token);
    await using agent = await startAgent({
      node: { tunnel: node.tunnel, tokenFile },
      target: origin.port,
      name: "demo",
      home: home.path,
      transport,
    });
    await using bystander = await startAgent({ node, target: origin.port, name: "bystander", transport });
    const running = await download(agent.url);
    await running.started;

    const revokedMs = performance.now();
    expect((await callAdmin(node, "DELETE", `/api/tokens/${id}`)).status).toBe(204);
    note(
      `${transport}: a revocation broke a running download after ${((await running.broke) - revokedMs).toFixed(0)} ms`,
    );
    expect(await agent.process.exited).toBe(3);
    const fatal = agent.process.events.find(({ event }) => event === "fatal");
    expect(fatal).toMatchObject({ code: "CERTIFICATE_REVOKED", exitCode: 3 });
    expect((await visit(agent.url)).status).toBe(503);
    const { started } = await download(bystander.url);
    await started; // others notice nothing

    const again = await runSally(["http", "1", "--edge", node.tunnel, "--token-file", tokenFile, "--json"], {
      env: { SALLY_HOME: home.path },
    });
    expect([again.code, again.events.at(-1)?.["code"]]).toEqual([3, "CERTIFICATE_REVOKED"]);
    const anew = await runSally(["http", "1", "--edge", node.tunnel, "--token-file", tokenFile, "--json"], {
      env: { SALLY_HOME: home.join("new") },
    });
    expect([anew.code, anew.events.at(-1)?.["code"]]).toEqual([3, "TOKEN_INVALID"]);
  },
  90_000,
);

test("revoking one installation shuts out that one, and not the others of its token", async () => {
  await using node = await startNode();
  await using origin = endlessOrigin();
  await using kept = await startAgent({ node, target: origin.port, name: "kept" });
  const before = new Set((await enrolments(node)).map(({ keyFingerprint }) => keyFingerprint));
  await using lost = await startAgent({ node, target: origin.port, name: "lost" });
  const key = (await enrolments(node)).find(({ keyFingerprint }) => !before.has(keyFingerprint))!.keyFingerprint;
  const running = await download(lost.url);
  await running.started;
  const revokedMs = performance.now();
  expect((await callAdmin(node, "DELETE", `/api/enrolments/${key}`)).status).toBe(204);
  note(`it broke a running download after ${((await running.broke) - revokedMs).toFixed(0)} ms`);
  expect(await lost.process.exited).toBe(3);
  const { started } = await download(kept.url);
  await started;
}, 60_000);

test("a link does not outlive its token", async () => {
  await using node = await startNode();
  using home = new Scratch();
  const expiresMs = Date.now() + 4_000;
  const { token } = await makeToken(node, { identity: "ann", expiresMs });
  const tokenFile = writeToken(home, token);
  await using agent = await startAgent({
    node: { tunnel: node.tunnel, tokenFile },
    target: 1,
    name: "demo",
    home: home.path,
  });
  expect(await agent.process.exited).toBe(3);
  expect(Date.now() - expiresMs).toBeGreaterThanOrEqual(-1_000); // X.509 counts whole seconds
}, 60_000);

test("wrong tokens end with code 3, and are never shown", async () => {
  await using node = await startNode();
  await using other = await startNode();
  using scratch = new Scratch();
  const [good, foreign] = [node, other].map(({ tokenFile }) => readFileSync(tokenFile, "utf8").trim()) as [
    string,
    string,
  ];
  const [, fingerprint] = good.split(".");
  const unknown = `sally_${Buffer.alloc(32, 7).toString("base64url")}.${fingerprint}`;
  const cases = [
    { token: unknown, code: "TOKEN_INVALID", says: "unknown, expired or revoked" },
    { token: foreign, code: "CA_MISMATCH", says: "not the node that the token was made for" },
    { token: "sally_c2hvcnQ.00ff", code: "TOKEN_INVALID", says: "token" },
    { token: good.slice(0, 20), code: "TOKEN_INVALID", says: "token" },
    { token: "", code: "TOKEN_INVALID", says: "token" },
  ];
  for (const { token, code, says } of cases) {
    const tokenFile = writeToken(scratch, token);
    const env = { SALLY_HOME: scratch.join("home") };
    for (const command of [
      ["http", "1", "--edge", node.tunnel, "--log-level", "debug"],
      ["login", node.tunnel],
    ]) {
      const run = await runSally([...command, "--token-file", tokenFile, "--json"], { env });
      expect([command[0], run.code, run.events.at(-1)?.["code"]]).toEqual([command[0], 3, code]);
      expect(run.stderr).toContain(says);
      if (token.length > 8) expect(run.stdout + run.stderr).not.toContain(token.slice(6, 18));
    }
  }
  // On the command line a token is the user's own risk; what we print still never holds it.
  const inline = await runSally(["login", node.tunnel, "--token", unknown], {
    env: { SALLY_HOME: scratch.join("home") },
  });
  expect(inline.code).toBe(3);
  expect(inline.stdout + inline.stderr).not.toContain(secretOf(unknown));
  const misplaced = await runSally(["http", "1", `--token=${unknown}`]);
  expect(misplaced.code).toBe(2);
  expect(misplaced.stdout + misplaced.stderr).not.toContain(secretOf(unknown));
}, 120_000);

test("certificates are renewed unattended, and no request notices", async () => {
  using scratch = new Scratch();
  await using node = await startNode({ args: shortLivedCertificates(scratch) });
  await using origin = startOrigin("app");
  await using endless = endlessOrigin();
  await using slow = await startAgent({ node, target: endless.port, name: "slow" });
  const running = await download(slow.url);
  await running.started;
  let brokeMs: number | undefined;
  void running.broke.then((atMs) => (brokeMs = atMs));
  const known = new Set((await enrolments(node)).map(({ keyFingerprint }) => keyFingerprint));
  await using agent = await startAgent({ node, target: origin.port, name: "demo" });
  const enrolment = async () => (await enrolments(node)).find(({ keyFingerprint }) => !known.has(keyFingerprint))!;
  const issued = await enrolment();
  const renewals = new Set<number>();
  const failed: unknown[] = [];
  let requests = 0;
  await until(
    "three renewals",
    async () => {
      const replies = await Promise.all(
        Array.from({ length: 8 }, () => visit(`${agent.url}/x`).catch((error: unknown) => error)),
      );
      requests += replies.length;
      failed.push(...replies.filter((reply) => (reply as { status?: number }).status !== 200));
      const now = await enrolment();
      if (now.renewedMs !== issued.renewedMs) renewals.add(now.renewedMs);
      return renewals.size >= 3;
    },
    30_000,
  );
  expect(failed).toEqual([]);
  expect(requests).toBeGreaterThan(100);
  expect(brokeMs).toBeUndefined(); // a download that began with the first certificate goes on
  const downs = agent.process.events.filter((event) => event.event === "link" && event["state"] === "down");
  expect(downs.filter((event) => event["code"] !== undefined)).toEqual([]);
}, 90_000);

test("an agent that slept past the end of its certificate comes back by itself", async () => {
  using scratch = new Scratch();
  await using node = await startNode({ args: shortLivedCertificates(scratch) });
  await using origin = startOrigin("app");
  using home = new Scratch();
  await using agent = await startAgent({ node, target: origin.port, name: "demo", home: home.path });
  agent.process.kill("SIGSTOP");
  const asleep = await visit(agent.url, { timeoutMs: 60_000 });
  expect([502, 503]).toContain(asleep.status); // the node has noticed; more than the certificate's 4 s are over
  await until("the link to be gone", async () => (await visit(agent.url)).status === 503);
  const renewed = agent.process.waitForNext((event) => event.event === "tunnel", 30_000);
  agent.process.kill("SIGCONT");
  expect(await renewed).toMatchObject({ name: "demo", url: agent.url });
  expect((await visit(agent.url)).status).toBe(200);

  // Stopped, and started days later without the token: the key is proof enough.
  await agent.process.stop();
  const { notAfterMs } = await certificateIn(home);
  await until("the end of the certificate", () => Date.now() > notAfterMs + 500, 10_000);
  const login = [
    "http",
    String(origin.port),
    "--edge",
    node.tunnel,
    "--token-file",
    node.tokenFile,
    "--name",
    "demo",
    "--json",
  ];
  await using later = new SallyProcess(login, { env: { SALLY_HOME: home.path } });
  expect(await later.waitFor("tunnel")).toMatchObject({ name: "demo", url: agent.url });
  const made = (await enrolments(node)).length;
  expect(made).toBe(1);
}, 90_000);

async function certificateIn(home: Scratch): Promise<{ notAfterMs: number }> {
  const [file] = readdirSync(home.join("credentials"));
  const { certificatePem } = (await Bun.file(home.join("credentials", file!)).json()) as { certificatePem: string };
  const { X509Certificate } = await import("node:crypto");
  return { notAfterMs: Date.parse(new X509Certificate(certificatePem).validTo) };
}

test("secrets are in no command line, log, event or error, and their files are private", async () => {
  await using node = await startNode({ args: ["--log-level", "debug", "--access-log"] });
  await using origin = startOrigin("app");
  using home = new Scratch();
  const token = readFileSync(node.tokenFile, "utf8").trim();
  const env = { SALLY_HOME: home.path, SALLY_TOKEN_FILE: node.tokenFile, SALLY_EDGE: node.tunnel };
  await using agent = new SallyProcess(
    ["http", String(origin.port), "--name", "demo", "--log-level", "debug", "--json"],
    { env },
  );
  const url = String((await agent.waitFor("tunnel"))["url"]);
  await visit(url, { headers: { authorization: "Bearer of-a-visitor", cookie: "visitor=secret-cookie" } });
  const revoked = JSON.parse((await callAdmin(node, "GET", "/api/tokens")).body) as { id: string }[];
  const commandLines = commandLineOf(agent.pid) + commandLineOf(node.process.pid);
  await callAdmin(node, "DELETE", `/api/tokens/${revoked[0]!.id}`);
  expect(await agent.exited).toBe(3);
  await node.process.stop("SIGKILL");

  const adminToken = readFileSync(join(node.data, "admin.token"), "utf8").trim();
  const keys = allTextsUnder(home.path)
    .concat(allTextsUnder(node.data))
    .flatMap(({ text }) => text.match(/-----BEGIN PRIVATE KEY-----(?:\\n|\s)([A-Za-z0-9+/]{40})/)?.[1] ?? []);
  expect(keys.length).toBeGreaterThanOrEqual(2); // the CA's and the agent's
  const shown = [
    commandLines,
    agent.stderr,
    node.process.stderr,
    JSON.stringify([agent.events, node.process.events]),
  ].join("\n");
  for (const secret of [secretOf(token), adminToken, ...keys, "of-a-visitor", "secret-cookie"])
    expect(shown).not.toContain(secret);
  // The join token's secret is where the operator was told to find it, and nowhere else.
  const holders = allTextsUnder(node.data)
    .concat(allTextsUnder(home.path))
    .filter(({ text }) => text.includes(secretOf(token)));
  expect(holders.map(({ path }) => path)).toEqual([node.tokenFile]);
  for (const folder of [home.path, node.data]) {
    for (const { path } of allTextsUnder(folder))
      expect([path, (await Bun.file(path).stat()).mode & 0o077]).toEqual([path, 0]);
  }
}, 60_000);

test("strangers behind the same proxy keep nobody from enrolling", async () => {
  await using node = await startNode({ args: ["--trust-tls-proxy"] });
  const attempt = async (): Promise<string | null> => {
    const headers = { Host: "localhost", "Content-Type": "application/json" };
    const reply = await fetch(`${node.http}/_sally/enrol`, { method: "POST", headers, body: "{}" });
    return reply.headers.get("sally-error");
  };
  for (let i = 0; i < 30; i++) expect(await attempt()).toBe("BAD_REQUEST");
  expect(await attempt()).toBe("RATE_LIMITED");
  await using origin = startOrigin("here");
  await using agent = await startAgent({ node, target: origin.port, name: "demo" });
  expect((await visit(agent.url)).status).toBe(200);
});
