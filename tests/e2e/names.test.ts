/** A name has one owner: tenants, installations and processes that want the same one, with real processes. */

import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { limits } from "../../src/core/limits.ts";
import { callAdmin, makeToken, startOrigin, visit } from "../support/command.ts";
import { note } from "../support/fault-rig.ts";
import { SallyProcess, Scratch, spawnAgent, startAgent, startNode, type TestNode } from "../support/sally.ts";
import { until } from "../support/until.ts";

const transports = ["quic", "websocket"] as const;

/** Somebody with a token and machines of their own. */
class Tenant implements Disposable {
  readonly #node: TestNode;
  readonly #scratch = new Scratch();
  readonly identity: string;
  #isReady = false;

  constructor(node: TestNode, identity: string) {
    this.#node = node;
    this.identity = identity;
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]();
  }

  home(machine = "laptop"): string {
    return this.#scratch.join(machine);
  }

  folder(name: string): string {
    const path = this.#scratch.join(name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  async join(): Promise<Pick<TestNode, "tunnel" | "tokenFile">> {
    const tokenFile = this.#scratch.join("join.token");
    if (!this.#isReady) {
      const { token } = await makeToken(this.#node, { identity: this.identity });
      writeFileSync(tokenFile, token);
      this.#isReady = true;
    }
    return { tunnel: this.#node.tunnel, tokenFile };
  }

  async spawn(
    target: number,
    options: { name?: string; machine?: string; cwd?: string; args?: string[] } = {},
  ): Promise<SallyProcess> {
    const { machine, ...rest } = options;
    return spawnAgent({ node: await this.join(), target, home: this.home(machine), ...rest });
  }
}

async function refusal(process: SallyProcess): Promise<[number, unknown]> {
  return [await process.exited, process.events.find(({ event }) => event === "fatal")?.["code"]];
}

async function bodyAt(url: string): Promise<string> {
  return (await visit(url)).body;
}

test("a tenant gets neither the name nor the requests of another, live or not", async () => {
  await using node = await startNode();
  await using mine = startOrigin("mine");
  await using theirs = startOrigin("theirs");
  using ann = new Tenant(node, "ann");
  using bob = new Tenant(node, "bob");
  await using agent = await ann.spawn(mine.port, { name: "demo" });
  const url = String((await agent.waitFor("tunnel"))["url"]);

  for (const args of [[], ["--shared"], ["--transport", "websocket"]]) {
    await using thief = await bob.spawn(theirs.port, { name: "demo", args });
    expect(await refusal(thief)).toEqual([4, "NAME_TAKEN"]);
    expect(thief.stderr).toContain("belongs to somebody else");
  }
  expect(await bodyAt(url)).toStartWith("mine ");

  // With a name of his own he is served, and the one that is not his is still refused; his process goes on.
  const config = `${bob.folder("config")}/sally.yaml`;
  const { tunnel, tokenFile } = await bob.join();
  const tunnels = ["bob", "demo"].map((name) => `  - { name: ${name}, target: ${theirs.port} }\n`).join("");
  writeFileSync(config, `edge: ${tunnel}\ntokenFile: ${tokenFile}\ntunnels:\n${tunnels}`);
  await using both = new SallyProcess(["start", "-c", config, "--json"], { env: { SALLY_HOME: bob.home() } });
  expect(await both.waitFor("tunnel")).toMatchObject({ name: "bob" });
  expect(await both.waitFor("refused")).toMatchObject({ name: "demo", code: "NAME_TAKEN" });
  expect(await bodyAt(url)).toStartWith("mine ");
  expect(await bodyAt(url.replace("demo", "bob"))).toStartWith("theirs ");

  // The name stays hers while she is away.
  await agent.stop();
  await until("the agent to be gone", async () => (await visit(url)).status === 503);
  await using vulture = await bob.spawn(theirs.port, { name: "demo", machine: "other" });
  expect(await refusal(vulture)).toEqual([4, "NAME_TAKEN"]);
  await using back = await ann.spawn(mine.port, { name: "demo" });
  await back.waitFor("tunnel");
  expect(await bodyAt(url)).toStartWith("mine ");
  expect(theirs.hosts.filter((host) => host.startsWith("demo."))).toEqual([]);
}, 90_000);

test("another installation of the owner is refused, unless both share; then both serve", async () => {
  await using node = await startNode();
  await using one = startOrigin("one");
  await using two = startOrigin("two");
  using ann = new Tenant(node, "ann");
  const shared = ["--shared"];
  {
    await using first = await ann.spawn(one.port, { name: "demo" });
    await first.waitFor("tunnel");
    for (const args of [[], shared]) {
      await using second = await ann.spawn(two.port, { name: "demo", machine: "desktop", args });
      expect(await refusal(second)).toEqual([4, "NAME_IN_USE"]);
      expect(second.stderr).toContain("--shared on both");
    }
    expect(await first.stop()).toBe(0);
  }
  await using first = await ann.spawn(one.port, { name: "demo", args: shared });
  const url = String((await first.waitFor("tunnel"))["url"]);
  await using lone = await ann.spawn(two.port, { name: "demo", machine: "desktop" });
  expect(await refusal(lone)).toEqual([4, "NAME_IN_USE"]);
  await using second = await ann.spawn(two.port, { name: "demo", machine: "desktop", args: shared });
  await second.waitFor("tunnel");
  const seen = new Set<string>();
  await until("both to serve", async () => {
    seen.add((await bodyAt(url)).split(" ")[0]!); // the origin's name
    return seen.size === 2;
  });
  // One leaves: the other carries on without a failed request.
  const leaving = first.stop();
  for (let i = 0; i < 50; i++) expect((await visit(url)).status).toBe(200);
  expect(await leaving).toBe(0);
  expect(await bodyAt(url)).toStartWith("two ");
}, 90_000);

describe.each(transports)("over %s", (transport) => {
  const args = ["--transport", transport];

  test("a newer process of the same machine takes over; the older ends with code 4 and stays away", async () => {
    await using node = await startNode();
    await using one = startOrigin("one");
    await using two = startOrigin("two");
    using ann = new Tenant(node, "ann");
    await using older = await ann.spawn(one.port, { name: "demo", args });
    const url = String((await older.waitFor("tunnel"))["url"]);
    await using newer = await ann.spawn(two.port, { name: "demo", args });
    await newer.waitFor("tunnel");
    expect(await refusal(older)).toEqual([4, "REPLACED"]);
    expect(older.events.filter(({ event }) => event === "retry")).toEqual([]);
    expect(await bodyAt(url)).toStartWith("two ");
  }, 60_000);

  test("an older process that wakes up does not take the name back", async () => {
    await using node = await startNode();
    await using one = startOrigin("one");
    await using two = startOrigin("two");
    using ann = new Tenant(node, "ann");
    await using older = await ann.spawn(one.port, { name: "demo", args });
    const url = String((await older.waitFor("tunnel"))["url"]);
    older.kill("SIGSTOP");
    await using newer = await ann.spawn(two.port, { name: "demo", args });
    await newer.waitFor("tunnel");
    older.kill("SIGCONT");
    expect(await refusal(older)).toEqual([4, "REPLACED"]);
    expect(await bodyAt(url)).toStartWith("two ");
    expect(newer.events.filter(({ event, state }) => event === "link" && state === "down")).toEqual([]);
  }, 60_000);

  test("a killed agent has its name back as soon as it is started again", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    using ann = new Tenant(node, "ann");
    const tookMs: number[] = [];
    for (let round = 0; round < 6; round++) {
      const startedMs = performance.now();
      await using agent = await ann.spawn(origin.port, { name: "demo", args });
      const url = String((await agent.waitFor("tunnel"))["url"]);
      tookMs.push(performance.now() - startedMs);
      expect(await bodyAt(url)).toStartWith("app ");
      await agent.stop("SIGKILL");
    }
    note(`a killed agent had its name back after ${tookMs.map((ms) => ms.toFixed(0)).join(", ")} ms`);
    expect(Math.max(...tookMs)).toBeLessThan(limits.linkDeadAfterMs); // nobody waited until the dead link was found
  }, 60_000);
});

test("without --name the name is stable for identity, folder and target, and differs with each", async () => {
  await using node = await startNode();
  using ann = new Tenant(node, "ann");
  using bob = new Tenant(node, "bob");
  const shop = ann.folder("shop");
  const nameOf = async (who: Tenant, target: number, cwd: string, machine?: string): Promise<string> => {
    await using agent = await who.spawn(target, { cwd, ...(machine === undefined ? {} : { machine }) });
    const name = String((await agent.waitFor("tunnel"))["name"]);
    await agent.stop();
    return name;
  };
  const name = await nameOf(ann, 3000, shop);
  expect(name).toMatch(/^[a-z]+-[a-z]+-[a-z2-9]{4}$/);
  expect(await nameOf(ann, 3000, shop)).toBe(name);
  const others = [
    await nameOf(ann, 3001, shop),
    await nameOf(ann, 3000, ann.folder("blog")),
    await nameOf(bob, 3000, shop),
  ];
  expect(new Set([name, ...others]).size).toBe(4);
}, 90_000);

test("a name that the operator took away is kept for its owner, and nobody else gets it meanwhile", async () => {
  using scratch = new Scratch();
  const config = scratch.join("node.yaml");
  writeFileSync(config, "limits:\n  nameQuarantineMs: 5000\n");
  await using node = await startNode({ args: ["--config", config] });
  await using origin = startOrigin("app");
  using ann = new Tenant(node, "ann");
  using bob = new Tenant(node, "bob");
  await using agent = await ann.spawn(origin.port, { name: "demo" });
  const url = String((await agent.waitFor("tunnel"))["url"]);
  expect((await callAdmin(node, "DELETE", "/api/tunnels/demo")).status).toBe(204);
  expect(await agent.exited).toBe(4);
  expect((await visit(url)).status).toBe(404);

  await using early = await bob.spawn(origin.port, { name: "demo" });
  expect(await refusal(early)).toEqual([4, "NAME_TAKEN"]);
  await using back = await ann.spawn(origin.port, { name: "demo" });
  await back.waitFor("tunnel");
  expect(await bodyAt(url)).toStartWith("app ");

  const closedMs = performance.now();
  expect((await callAdmin(node, "DELETE", "/api/tunnels/demo")).status).toBe(204);
  expect(await back.exited).toBe(4);
  await until("the quarantine to be over", async () => {
    await using patient = await bob.spawn(origin.port, { name: "demo" });
    const first = await Promise.race([patient.waitFor("tunnel"), patient.exited.then(() => undefined)]).catch(
      () => undefined,
    );
    return first !== undefined;
  });
  expect(performance.now() - closedMs).toBeGreaterThan(4_900);
}, 90_000);

describe("an agent that loses one of its names while a request of it runs", () => {
  /** Answers at once, but `/hold` only when told to. */
  function startHolding(name: string): { port: number; letGo: () => void } & AsyncDisposable {
    const held = Promise.withResolvers<void>();
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      async fetch(asked) {
        if (asked.url.endsWith("/hold")) await held.promise;
        return new Response(`${name} ${asked.headers.get("cookie") ?? ""}`);
      },
    });
    const port = server.port!; // it listens on TCP
    return { port, letGo: () => held.resolve(), [Symbol.asyncDispose]: () => server.stop(true) };
  }

  test.each(["process of its owner", "owner, after the admin closed it"])(
    "to another %s gets no request of it any more",
    async (whom) => {
      const isClosed = whom.startsWith("owner");
      using scratch = new Scratch();
      const nodeConfig = scratch.join("node.yaml");
      writeFileSync(nodeConfig, "limits:\n  nameQuarantineMs: 500\n");
      await using node = await startNode({ args: ["--config", nodeConfig] });
      await using old = startHolding("old");
      await using next = startOrigin("next");
      using ann = new Tenant(node, "ann");
      using bob = new Tenant(node, "bob");
      const config = `${ann.folder("config")}/sally.yaml`;
      const { tunnel, tokenFile } = await ann.join();
      const tunnels = ["shop", "other"].map((name) => `  - { name: ${name}, target: ${old.port} }\n`).join("");
      writeFileSync(config, `edge: ${tunnel}\ntokenFile: ${tokenFile}\ntunnels:\n${tunnels}`);
      await using both = new SallyProcess(["start", "-c", config, "--json"], { env: { SALLY_HOME: ann.home() } });
      await both.waitFor(({ event, name }) => event === "tunnel" && name === "other");
      const { url } = await both.waitFor(({ event, name }) => event === "tunnel" && name === "shop");
      const shop = String(url);

      const running = Promise.all([visit(`${shop}/hold`), visit(`${shop}/hold`)]);
      await Bun.sleep(200);
      if (isClosed) {
        expect((await callAdmin(node, "DELETE", "/api/tunnels/shop")).status).toBe(204);
        await Bun.sleep(600); // the quarantine
      }
      await using agent = await (isClosed ? bob : ann).spawn(next.port, { name: "shop" });
      await agent.waitFor("tunnel");
      expect(await both.waitFor("refused")).toMatchObject({ name: "shop", code: "REPLACED" });
      old.letGo();
      expect((await running).map(({ body }) => body)).toEqual(["old ", "old "]);
      for (let n = 0; n < 10; n++) {
        expect((await visit(shop, { headers: { cookie: `session=${n}` } })).body).toStartWith("next ");
      }
      expect(await bodyAt(shop.replace("shop", "other"))).toStartWith("old ");
    },
    60_000,
  );
});

test("names that cannot be, or that are too many, are refused with a reason", async () => {
  using scratch = new Scratch();
  const config = scratch.join("node.yaml");
  writeFileSync(config, "limits:\n  namesPerIdentity: 2\n");
  await using node = await startNode({ args: ["--config", config] });
  using ann = new Tenant(node, "ann");
  for (const [name, code] of [
    ["admin", "NAME_INVALID"],
    ["xn--80ak6aa92e", "NAME_INVALID"],
  ] as const) {
    await using agent = await ann.spawn(1, { name });
    expect(await refusal(agent)).toEqual([2, code]);
  }
  for (const name of ["a.b", "-a", "a_b", "ä", "a".repeat(64)]) {
    await using agent = await ann.spawn(1, { name });
    expect([name, await agent.exited, agent.events.at(-1)?.["code"]]).toEqual([name, 2, "USAGE"]);
    expect(agent.stderr).toContain("a name has 1 to 63 letters");
  }
  await using upper = await ann.spawn(1, { name: "Shop" });
  expect(await upper.waitFor("tunnel")).toMatchObject({ name: "shop" });
  await using second = await ann.spawn(1, { name: "blog" });
  await second.waitFor("tunnel");
  await using third = await ann.spawn(1, { name: "wiki" });
  expect(await refusal(third)).toEqual([3, "NAME_LIMIT"]);
}, 60_000);

test("the host name is matched without regard to case and port", async () => {
  await using node = await startNode();
  await using origin = startOrigin("app");
  await using agent = await startAgent({ node, target: origin.port, name: "demo" });
  for (const host of [
    "demo.localhost",
    "DEMO.LocalHost",
    `demo.localhost:${node.port}`,
    "demo.localhost:1",
    "demo.localhost.",
  ]) {
    expect([host, (await visit(`${node.http}/`, { headers: { host } })).status]).toEqual([host, 200]);
  }
  const own = await visit(`${node.http}/`, { headers: { host: "localhost" } });
  expect([own.status, own.body.includes("Sallyport node")]).toEqual([200, true]);
  for (const host of ["x.demo.localhost", "demo.localhost.evil.example", "demolocalhost", "127.0.0.1"]) {
    const { status, headers } = await visit(`${node.http}/`, { headers: { host } });
    expect([host, status, headers["sally-error"]]).toEqual([host, 404, expect.any(String)]);
  }
  expect(agent.url).toBe(`http://demo.localhost:${node.port}`);
}, 60_000);
