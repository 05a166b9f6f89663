/** The admin port of a running node: health and metrics for machines, and who may not use the rest. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { callAdmin, startOrigin, visit } from "../support/command.ts";
import { startAgent, startNode, type TestNode } from "../support/sally.ts";
import { until } from "../support/until.ts";

function adminToken(node: TestNode): string {
  return readFileSync(join(node.data, "admin.token"), "utf8").trim();
}

interface Tunnel {
  readonly name: string;
  readonly state: string;
}

describe("health", () => {
  test("says that the process runs and that it serves", async () => {
    await using node = await startNode();
    for (const [path, text] of [
      ["/healthz", "ok\n"],
      ["/readyz", "ready\n"],
    ] as const) {
      expect(await visit(`${node.admin}${path}`)).toMatchObject({ status: 200, body: text });
      // Probes of an orchestrator come by whatever name, without a token.
      expect((await visit(`${node.admin}${path}`, { headers: { host: "10.1.2.3:7080" } })).status).toBe(200);
    }
  }, 30_000);

  test("a node that drains is alive and not ready", async () => {
    await using node = await startNode();
    const stuck = Promise.withResolvers<Response>();
    const origin = Bun.serve({ port: 0, hostname: "127.0.0.1", idleTimeout: 0, fetch: () => stuck.promise });
    await using agent = await startAgent({ node, target: origin.port!, name: "demo" });
    const running = visit(agent.url);
    await until("the request to run", async () => {
      const links = JSON.parse((await callAdmin(node, "GET", "/api/links")).body) as { streams: number }[];
      return links.some(({ streams }) => streams > 0);
    });
    node.process.kill("SIGTERM");
    await node.process.waitFor("draining");
    expect((await visit(`${node.admin}/readyz`)).status).toBe(503);
    expect((await visit(`${node.admin}/healthz`)).status).toBe(200);
    stuck.resolve(new Response("late"));
    expect(await running).toMatchObject({ status: 200, body: "late" });
    expect(await node.process.exited).toBe(0);
    await origin.stop(true);
  }, 60_000);

  test("metrics are in Prometheus' text format, and count", async () => {
    await using node = await startNode();
    await using origin = startOrigin("app");
    await using agent = await startAgent({ node, target: origin.port, name: "demo" });
    const read = async (): Promise<Map<string, number>> => {
      const reply = await visit(`${node.admin}/metrics`);
      expect([reply.status, reply.headers["content-type"]]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"]);
      const values = new Map<string, number>();
      for (const line of reply.body.trimEnd().split("\n")) {
        if (line.startsWith("#")) {
          expect(line).toMatch(/^# (?:HELP [a-z_]+ \S.*|TYPE [a-z_]+ (?:counter|gauge))$/);
          continue;
        }
        expect(line).toMatch(/^[a-z_]+(?:\{[^}]*\})? [0-9.e+-]+$/);
        const [name, value] = line.split(" ");
        values.set(name!, Number(value)); // the pattern has both
      }
      return values;
    };
    const before = await read();
    expect([before.get("sally_tunnels"), before.get("sally_links")]).toEqual([1, 1]);
    for (let i = 0; i < 5; i++) await visit(agent.url);
    const after = await read();
    expect(after.get("sally_requests_total")! - before.get("sally_requests_total")!).toBe(5); // both are there
    expect(after.get("process_resident_memory_bytes")).toBeGreaterThan(1_000_000);
  }, 30_000);
});

describe("the API", () => {
  test("answers to its own address only, so that a rebound name gets nothing", async () => {
    await using node = await startNode();
    const { port } = new URL(node.admin);
    const authorization = `Bearer ${adminToken(node)}`;
    const paths = ["/api/status", "/api/tunnels", "/api/links", "/api/tokens", "/api/enrolments", "/api/audit"];
    for (const host of [
      "evil.example",
      `evil.example:${port}`,
      "127.0.0.1.evil.example",
      "127.0.0.1:1",
      "demo.localhost",
      "0.0.0.0",
    ]) {
      for (const path of paths) {
        const { status, headers } = await visit(`${node.admin}${path}`, { headers: { host, authorization } });
        expect([host, path, status, headers["sally-error"]]).toEqual([host, path, 421, "MISDIRECTED"]);
      }
    }
    for (const [host, status] of [
      ["evil.example", 421],
      ["demo.localhost", 421],
      ["10.1.2.3:7080", 200],
    ] as const) {
      expect([host, (await visit(`${node.admin}/metrics`, { headers: { host } })).status]).toEqual([host, status]);
    }
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `LOCALHOST:${port}`, `[::1]:${port}`]) {
      expect([host, (await visit(`${node.admin}/api/status`, { headers: { host } })).status]).toEqual([host, 200]);
    }
  }, 30_000);

  test("does not answer web pages of others, with or without a token", async () => {
    await using node = await startNode();
    const authorization = `Bearer ${adminToken(node)}`;
    const foreign: Record<string, string>[] = [
      { origin: "https://evil.example" },
      { origin: "null" },
      { origin: node.http },
      { "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" },
      { origin: node.admin, "sec-fetch-site": "cross-site" },
    ];
    for (const headers of foreign) {
      for (const method of ["GET", "POST", "DELETE"]) {
        const reply = await visit(`${node.admin}/api/tokens`, {
          method,
          headers: { authorization, "content-type": "application/json", ...headers },
          ...(method === "GET" ? {} : { body: "{}" }),
        });
        expect([headers, method, reply.status]).toEqual([headers, method, 403]);
        expect(reply.headers["access-control-allow-origin"]).toBeUndefined();
      }
    }
    const preflight = await visit(`${node.admin}/api/tokens`, {
      method: "OPTIONS",
      headers: { origin: "https://evil.example", "access-control-request-method": "POST" },
    });
    expect(preflight.status).toBeGreaterThanOrEqual(400);
    expect(JSON.parse((await callAdmin(node, "GET", "/api/tokens")).body)).toHaveLength(1); // none was made
  }, 30_000);

  test("needs the admin token where secrets or changes are, and never takes an agent's", async () => {
    await using node = await startNode();
    const agentToken = readFileSync(node.tokenFile, "utf8").trim();
    const wrong = [
      "",
      "Bearer",
      "Bearer x",
      `Basic ${btoa(`admin:${adminToken(node)}`)}`,
      `Bearer ${agentToken}`,
      `Bearer ${adminToken(node)}x`,
      `Bearer ${adminToken(node).slice(0, -1)}`,
    ];
    const guarded = [
      ["GET", "/api/tokens"],
      ["POST", "/api/tokens"],
      ["DELETE", "/api/tokens/tok_x"],
      ["GET", "/api/enrolments"],
      ["DELETE", `/api/enrolments/${"a".repeat(64)}`],
      ["DELETE", "/api/tunnels/demo"],
      ["GET", "/api/audit"],
    ] as const;
    for (const [method, path] of guarded) {
      for (const authorization of wrong) {
        const headers = { "content-type": "application/json", ...(authorization === "" ? {} : { authorization }) };
        const reply = await visit(`${node.admin}${path}`, {
          method,
          headers,
          ...(method === "GET" ? {} : { body: "{}" }),
        });
        expect([method, path, authorization, reply.status]).toEqual([method, path, authorization, 401]);
      }
    }
    // A form of a web page can send none of these.
    const plain = await visit(`${node.admin}/api/tokens`, {
      method: "POST",
      headers: { authorization: `Bearer ${adminToken(node)}`, "content-type": "text/plain" },
      body: '{"label":"x"}',
    });
    expect(plain.status).toBe(403);
    expect(JSON.parse((await callAdmin(node, "GET", "/api/tokens")).body)).toHaveLength(1);
  }, 30_000);

  test("takes ids from the path alone, and names what is wrong", async () => {
    await using node = await startNode();
    await using agent = await startAgent({ node, target: 1, name: "demo" });
    const tunnels = async (): Promise<Tunnel[]> =>
      JSON.parse((await callAdmin(node, "GET", "/api/tunnels")).body) as Tunnel[];
    expect((await callAdmin(node, "DELETE", "/api/tunnels/other", { name: "demo", id: "demo" })).status).toBe(404);
    for (const path of ["/api/tunnels/", "/api/tunnels/%64emo", "/api/tunnels/demo/", "/API/tunnels/demo", "/api"]) {
      expect([path, (await callAdmin(node, "DELETE", path)).status]).toEqual([path, 404]);
    }
    expect(await tunnels()).toMatchObject([{ name: "demo", state: "live" }]);
    for (const body of [
      { label: 7 },
      { label: "x", names: "all" },
      { label: "x", identity: "", names: [] },
      { label: "x", extra: true },
    ]) {
      const reply = await callAdmin(node, "POST", "/api/tokens", body);
      expect([reply.status, reply.headers["content-type"]]).toEqual([400, "application/problem+json"]);
    }
    const huge = await callAdmin(node, "POST", "/api/tokens", { label: "x".repeat(1_000_000) });
    expect(huge.status).toBe(413);
    await agent.process.stop();
    await until("the tunnel to be offline", async () => (await tunnels())[0]?.state === "offline");
  }, 30_000);

  test("keeps a record of what was changed, without secrets", async () => {
    await using node = await startNode();
    const made = JSON.parse(
      (await callAdmin(node, "POST", "/api/tokens", { label: "x", identity: "ann", names: [] })).body,
    ) as { token: string; info: { id: string } };
    await callAdmin(node, "DELETE", `/api/tokens/${made.info.id}`);
    await using _agent = await startAgent({ node, target: 1, name: "demo" });
    const { body } = await callAdmin(node, "GET", "/api/audit");
    const actions = (JSON.parse(body) as { action: string }[]).map(({ action }) => action);
    for (const action of ["ca.create", "token.create", "token.revoke", "agent.enrol", "name.reserve"])
      expect(actions).toContain(action);
    expect(body).not.toContain(made.token.slice(6, 30));
    expect(body).not.toContain(adminToken(node));
  }, 30_000);
});
