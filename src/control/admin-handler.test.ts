import { beforeEach, describe, expect, test } from "bun:test";
import { createAdminClient } from "../api/admin-client.ts";
import type { ApiRequest } from "../api/request.ts";
import { utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import type { PeerIdentity } from "../core/identity.ts";
import { MemoryRegistry } from "../store/memory.ts";
import { type Ca, createCa } from "../trust/certificates.ts";
import { parseJoinToken } from "../trust/join-token.ts";
import { sha256Hex } from "../trust/key-pair.ts";
import { isLoopbackHost } from "./admin-guard.ts";
import { type Control, createControl } from "./control.ts";
import { fakeCall, type FakeReply, type FakeRequest } from "./fake-exchange.ts";

const adminToken = "t".repeat(43);
const bearer = ["Authorization", `Bearer ${adminToken}`];
const json = ["Content-Type", "application/json"];
const tokenBody = JSON.stringify({ label: "laptop", identity: "ada", names: ["ada-*"] });

let ca: Ca;
let clock: FakeClock;
let registry: MemoryRegistry;
let control: Control;
let isReady: boolean;
let closed: string[];

beforeEach(async () => {
  clock = new FakeClock();
  registry = new MemoryRegistry();
  isReady = true;
  closed = [];
  ca ??= (await createCa({ nowMs: clock.wallMs() })).ca;
  control = createControl({
    registry,
    ca,
    clock,
    log: silentLogger,
    limits,
    admin: { adminTokenHash: await sha256Hex(utf8Encode(adminToken)), port: () => 7080 },
    node: {
      status: () => ({ version: "1", domain: "localhost", startedMs: 0, isReady, links: 1, tunnels: 1, streams: 0 }),
      isReady: () => isReady,
      metrics: () => "sally_links 1\n",
      links: () => [],
      liveTunnel: (name) =>
        name === "live" ? { url: "http://live.localhost:8080", origin: "localhost:3000" } : undefined,
      closeTunnel: (name) => closed.push(name) > 0,
    },
  });
  await control.start();
});

const call = (request: FakeRequest): Promise<FakeReply> => fakeCall(control.adminHandler, request);
const mint = (request: FakeRequest = {}): Promise<FakeReply> =>
  call({ method: "POST", target: "/api/tokens", body: tokenBody, headers: [...bearer, ...json], ...request });

const transport: ApiRequest = async (method, target, { body, headers = {} }) => {
  const all = [...(body === undefined ? [] : json), ...Object.entries(headers).flat()];
  const { status, text } = await call({ method, target, headers: all, ...(body !== undefined && { body }) });
  return { status, body: text };
};

function reserve(name: string, identity: string, nowMs = clock.wallMs()): void {
  const times = { leaseMs: limits.nameLeaseMs, quarantineMs: limits.nameQuarantineMs, namesMax: 10 };
  registry.reserveName({ name, identity, nowMs, ...times });
}

describe("the admin API", () => {
  test("serves its typed client", async () => {
    const client = createAdminClient({ request: transport, adminToken: `${adminToken}\n` });
    const { token, info } = await client.createToken({
      label: "laptop",
      identity: "ada",
      names: ["ada-*"],
      ports: [5000],
    });
    expect(parseJoinToken(token).caFingerprint).toBe(ca.fingerprint);
    expect(info).toMatchObject({ identity: "ada", names: ["ada-*"], ports: [5000] });
    expect(await client.tokens()).toEqual([info]);
    await client.revokeToken(info.id);
    expect((await client.tokens())[0]?.revokedMs).toBe(clock.wallMs());
    reserve("live", "ada");
    reserve("quiet", "ada");
    reserve("lapsed", "eve", clock.wallMs() - limits.nameLeaseMs);
    expect((await client.tunnels()).map(({ name, state }) => `${name} ${state}`)).toEqual([
      "live live",
      "quiet offline",
    ]);
    await client.closeTunnel("live");
    expect(closed).toEqual(["live"]);
    expect(await client.links()).toEqual([]);
    expect(await client.enrolments()).toEqual([]);
    expect((await client.status()).domain).toBe("localhost");
    const actions = (await client.audit()).map(({ action }) => action);
    expect(actions).toEqual(["tunnel.close", "token.revoke", "token.create"]);
    expect(await codeOf(client.revokeToken("tok_none"))).toBe("NOT_FOUND");
    expect(await codeOf(client.closeTunnel("none"))).toBe("NOT_FOUND");
    expect(await codeOf(client.revokeEnrolment("none"))).toBe("NOT_FOUND");
  });

  test("lists so much and no more: the newest, where there is an order", async () => {
    const client = createAdminClient({ request: transport, adminToken });
    const count = limits.apiListMax + 1;
    const atMs = clock.wallMs();
    for (let i = 0; i < count; i++) {
      reserve(`name-${i}`, `owner-${Math.floor(i / 10)}`);
      const times = { createdMs: atMs, renewedMs: atMs + i, expiresMs: atMs + i, revokedMs: undefined };
      const enrolment = { keyFingerprint: `k${i}`, tokenId: "tok_1", identity: "ada", installation: "i", ...times };
      registry.putEnrolment(enrolment, { forgetBeforeMs: 0, perTokenMax: count });
      registry.audit({ atMs, actor: "test", action: `act-${i}`, subject: "x" });
    }
    expect(await client.tunnels()).toHaveLength(limits.apiListMax);
    const keys = (await client.enrolments()).map(({ keyFingerprint }) => keyFingerprint);
    expect([keys.length, keys[0], keys.at(-1)]).toEqual([limits.apiListMax, `k${count - 1}`, "k1"]);
    const actions = (await client.audit()).map(({ action }) => action);
    expect([actions.length, actions[0], actions.at(-1)]).toEqual([limits.apiListMax, `act-${count - 1}`, "act-1"]);
  });

  test("tells health to anybody and readiness as it is", async () => {
    expect(await call({ target: "/healthz", authority: "10.0.0.1" })).toMatchObject({ status: 200, text: "ok\n" });
    expect((await call({ target: "/readyz" })).status).toBe(200);
    isReady = false;
    expect((await call({ target: "/readyz" })).status).toBe(503);
    expect((await call({ target: "/metrics" })).text).toBe("sally_links 1\n");
    expect((await call({ method: "HEAD", target: "/readyz" })).status).toBe(503);
    isReady = true;
    for (const target of ["/healthz", "/readyz"]) {
      expect((await call({ method: "HEAD", target, authority: "10.0.0.1" })).status).toBe(200);
    }
    expect((await call({ method: "HEAD", target: "/api/tokens" })).code).toBe("AUTH_FAILED");
  });

  test("refuses names that were rebound to loopback, and other ports", async () => {
    const wrong = [
      "evil.example:7080",
      "127.0.0.1.evil.example:7080",
      "localhost.evil:7080",
      "127.0.0.1:8080",
      "127.0.0.1",
    ];
    wrong.push("localhost", "0.0.0.0:7080", "[::]:7080", "", "127.0.0.1:7080:7080", "[::1", "2130706433:7080");
    for (const authority of wrong) {
      expect((await call({ target: "/api/status", authority })).code).toBe("MISDIRECTED");
      const isName = authority.startsWith("evil") || authority.includes(".evil");
      expect((await call({ target: "/metrics", authority })).code === "MISDIRECTED" || !isName).toBe(true);
      expect((await mint({ authority })).code).toBe("MISDIRECTED");
    }
    const right = ["127.0.0.1:7080", "localhost:7080", "[::1]:7080", "127.8.9.1:7080", "LOCALHOST:7080"];
    for (const authority of right) expect((await call({ target: "/api/status", authority })).status).toBe(200);
    expect(registry.listTokens()).toHaveLength(0);
  });

  test("serves programs of its own machine only, where the port is open to the network", async () => {
    const remote = "192.0.2.7";
    for (const authority of ["127.0.0.1:7080", "192.0.2.1:7080"]) {
      const from = { remote, authority, headers: [...bearer, ...json] };
      for (const target of ["/api/status", "/api/links", "/api/tokens"]) {
        expect((await call({ ...from, target })).code).toBe(authority.startsWith("127") ? "FORBIDDEN" : "MISDIRECTED");
      }
      for (const target of ["/healthz", "/readyz", "/metrics"]) {
        expect((await call({ ...from, target })).status).toBe(200);
      }
    }
    expect((await call({ remote, target: "/metrics", authority: "evil.example:7080" })).code).toBe("MISDIRECTED");
  });

  test("refuses other sites' pages, even with the token", async () => {
    const foreign = [
      ["Origin", "http://evil.example"],
      ["Origin", "null"],
      ["Origin", "https://127.0.0.1:7080"],
      ["Origin", "http://127.0.0.1:3000"],
      ["Origin", "http://127.0.0.1:7080", "Origin", "http://evil.example"],
      ["Sec-Fetch-Site", "cross-site"],
      ["sec-fetch-site", "same-site"],
    ];
    for (const headers of foreign) {
      expect((await call({ target: "/api/status", headers })).code).toBe("FORBIDDEN");
      expect((await mint({ headers: [...bearer, ...json, ...headers] })).code).toBe("FORBIDDEN");
    }
    expect(registry.listTokens()).toHaveLength(0);
    const own = ["Origin", "http://127.0.0.1:7080", "Sec-Fetch-Site", "same-origin"];
    expect((await mint({ headers: [...bearer, ...json, ...own] })).status).toBe(201);
  });

  test("does what changes something, or shows tokens, only with the admin token", async () => {
    const wrong: string[][] = [
      [],
      ["Authorization", `Bearer ${"u".repeat(43)}`],
      ["Authorization", `Bearer ${adminToken.slice(1)}`],
      ["Authorization", "Bearer "],
      ["Authorization", `Basic ${adminToken}`],
      ["Authorization", adminToken],
      [...bearer, ...bearer],
    ];
    reserve("live", "ada");
    const guarded: FakeRequest[] = [
      { method: "POST", target: "/api/tokens", body: tokenBody },
      { method: "DELETE", target: "/api/tokens/tok_1" },
      { method: "DELETE", target: "/api/tunnels/live" },
      { method: "DELETE", target: "/api/enrolments/k" },
      { target: "/api/tokens" },
      { target: "/api/enrolments" },
      { target: "/api/audit" },
    ];
    for (const request of guarded) {
      for (const headers of wrong) {
        const reply = await call({ ...request, headers: [...json, ...headers] });
        expect(reply).toMatchObject({ status: 401, code: "AUTH_FAILED" });
      }
    }
    expect(registry.listTokens()).toHaveLength(0);
    expect(closed).toEqual([]);
  });

  test("wants what a cross-site form cannot send", async () => {
    expect((await mint({ headers: [...bearer, "Content-Type", "text/plain"] })).code).toBe("FORBIDDEN");
    expect((await call({ method: "DELETE", target: "/api/tokens/tok_1", headers: bearer })).code).toBe("FORBIDDEN");
    const marked = await call({
      method: "DELETE",
      target: "/api/tokens/tok_1",
      headers: [...bearer, "Sally-Admin", "1"],
    });
    expect(marked.code).toBe("NOT_FOUND");
  });

  test("asks for no more than what it then takes", async () => {
    const posted = await mint({ headers: bearer });
    expect(posted).toMatchObject({ status: 403, code: "FORBIDDEN" });
    expect(posted.text).toContain('"Send Content-Type: application/json."');
    const untold = await call({ method: "DELETE", target: "/api/tokens/tok_1", headers: bearer });
    expect(untold.text).toContain('"Send Sally-Admin: 1, or Content-Type: application/json."');
  });

  test("takes ids from the path, whatever the body says", async () => {
    const [one, two] = [JSON.parse((await mint()).text), JSON.parse((await mint()).text)];
    const body = JSON.stringify({ id: two.info.id, identity: "eve" });
    const target = `/api/tokens/${one.info.id}`;
    expect((await call({ method: "DELETE", target, body, headers: [...bearer, ...json] })).status).toBe(204);
    expect(registry.findToken(one.info.id)?.revokedMs).toBeNumber();
    expect(registry.findToken(two.info.id)?.revokedMs).toBeUndefined();
    const odd = JSON.stringify({ label: "x", id: "tok_1", secretHash: "00" });
    expect((await mint({ body: odd })).code).toBe("BAD_REQUEST");
  });

  test("refuses patterns, identities and times that make no sense", async () => {
    const wrong = [
      { label: "" },
      { label: "x", names: ["a*b"] },
      { label: "x", names: ["A"] },
      { label: "x", names: ["a.b"] },
      { label: "x", names: ["-a*"] },
      { label: "x", identity: "A/B" },
      { label: "x", identity: "" },
      { label: "x", ports: [0] },
      { label: "x", ports: [65_536] },
      { label: "x", expiresMs: -1 },
    ];
    for (const body of wrong) expect((await mint({ body: JSON.stringify(body) })).code).toBe("BAD_REQUEST");
    expect((await mint({ body: JSON.stringify({ label: "x", expiresMs: 1 }) })).code).toBe("USAGE");
    expect((await mint({ body: JSON.stringify({ label: "x", names: ["*", "a", "a-*"] }) })).status).toBe(201);
  });

  test("takes so many patterns and ports for a token, and no more", async () => {
    const of = (count: number) => Array.from({ length: count }, (_, i) => i + 1);
    const most = limits.tokenPatternsMax;
    const full = { label: "x", names: of(most).map((n) => `n${n}`), ports: of(most) };
    expect((await mint({ body: JSON.stringify(full) })).status).toBe(201);
    for (const more of [{ names: of(most + 1).map((n) => `n${n}`) }, { ports: of(most + 1) }]) {
      expect((await mint({ body: JSON.stringify({ ...full, ...more }) })).code).toBe("BAD_REQUEST");
    }
  });

  test("knows its paths exactly", async () => {
    const odd = [
      "/",
      "/api",
      "/api/tokens/",
      "/api/status/",
      "/API/status",
      "/api/tunnels/..%2ftokens",
      "/api//status",
    ];
    for (const target of odd) expect((await call({ target, headers: bearer })).code).toBe("NOT_FOUND");
    expect((await call({ target: "/api/status?x=1" })).status).toBe(200);
  });

  test("names the methods that a path takes to who uses another, and to nobody from elsewhere", async () => {
    const allowed = {
      "/healthz": "GET, HEAD",
      "/api/status": "GET, HEAD",
      "/api/tokens": "GET, HEAD, POST",
      "/api/tokens/tok_1": "DELETE",
      "/api/enrolments/k": "DELETE",
    };
    for (const [target, allow] of Object.entries(allowed)) {
      const reply = await call({ method: "PUT", target });
      expect(reply).toMatchObject({ status: 405, code: "METHOD_NOT_ALLOWED" });
      expect(reply.headers.getAll("allow")).toEqual([allow]);
      expect((await call({ method: "PUT", target, remote: "192.0.2.7" })).code).toBe("FORBIDDEN");
    }
  });

  test("shows no secret and no hash in what it lists", async () => {
    const secret = (JSON.parse((await mint()).text) as { token: string }).token.slice(6, 49);
    const hash = registry.listTokens()[0]?.secretHash ?? "";
    for (const target of ["/api/tokens", "/api/audit", "/api/status"]) {
      const { text } = await call({ target, headers: bearer });
      expect(text).not.toContain(secret);
      expect(text).not.toContain(hash);
    }
  });

  test("shuts agents out as soon as their token is revoked", async () => {
    const { info } = JSON.parse((await mint()).text) as { info: { id: string } };
    const peer: PeerIdentity = {
      role: "agent",
      identity: "ada",
      installation: "i1",
      keyFingerprint: "k1",
      notAfterMs: 1e15,
      tokenId: info.id,
    };
    const times = { createdMs: 0, renewedMs: 0, expiresMs: 1e15, revokedMs: undefined };
    const record = { keyFingerprint: "k1", tokenId: info.id, identity: "ada", installation: "i1", ...times };
    registry.putEnrolment(record, { forgetBeforeMs: 0, perTokenMax: 10 });
    expect(await control.isRevoked(peer)).toBe(false);
    let hit = 0;
    control.onRevoked((isRevoked) => void (hit += isRevoked(peer) ? 1 : 0));
    await call({ method: "DELETE", target: `/api/tokens/${info.id}`, headers: [...bearer, ...json] });
    expect(hit).toBe(1);
    expect(await control.isRevoked(peer)).toBe(true);
    control.close();
    expect(clock.pending).toBe(0);
  });
});

test("loopback names are those that no name server answers", () => {
  for (const host of ["localhost", "127.0.0.1", "127.255.0.9", "[::1]"]) expect(isLoopbackHost(host)).toBe(true);
  for (const host of ["a.localhost", "127.0.0.1.nip.io", "127.1", "0127.0.0.1", "127.0.0.01", "::1", "128.0.0.1", ""]) {
    expect(isLoopbackHost(host)).toBe(false);
  }
});

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    if (error instanceof SallyError) return error.code;
    throw error;
  }
}
