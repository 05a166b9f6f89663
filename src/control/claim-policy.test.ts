import { beforeEach, describe, expect, test } from "bun:test";
import { FakeClock } from "../core/fake-clock.ts";
import type { PeerIdentity } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { MemoryRegistry } from "../store/memory.ts";
import { type ClaimDecision, type ClaimPolicy, createClaimPolicy } from "./claim-policy.ts";
import { generateName } from "./names.ts";
import { Revocations } from "./revocations.ts";
import { TokenService } from "./token-service.ts";

let clock: FakeClock;
let registry: MemoryRegistry;
let revocations: Revocations;
let tokens: TokenService;
let claims: ClaimPolicy;

beforeEach(async () => {
  clock = new FakeClock();
  registry = new MemoryRegistry();
  revocations = new Revocations({ registry, clock, log: silentLogger, pollMs: limits.revocationPollMs });
  tokens = new TokenService({ registry, revocations, clock, caFingerprint: "ab".repeat(32) });
  claims = createClaimPolicy({ registry, revocations, clock, limits: { ...limits, namesPerIdentity: 3 } });
});

async function agent(identity: string, scope: { names?: string[]; expiresMs?: number } = {}): Promise<PeerIdentity> {
  const { record } = await tokens.create({ label: "t", identity, names: [], ports: [], ...scope }, "test");
  const keyFingerprint = `key of ${identity} ${record.id}`;
  const nowMs = clock.wallMs();
  const times = { createdMs: nowMs, renewedMs: nowMs, expiresMs: nowMs + 1e9, revokedMs: undefined };
  const enrolment = { keyFingerprint, tokenId: record.id, identity, installation: "i1", ...times };
  registry.putEnrolment(enrolment, { forgetBeforeMs: 0, perTokenMax: 10 });
  return { role: "agent", identity, installation: "i1", keyFingerprint, notAfterMs: nowMs + 1e9, tokenId: record.id };
}

function outcome(decision: ClaimDecision): string {
  return decision.ok ? decision.name : decision.code;
}

const claim = async (peer: PeerIdentity, name?: string, stableKey?: string): Promise<string> =>
  outcome(await claims.claim(peer, { name, stableKey }));

describe("claims", () => {
  test("reserve a free name, and again and again for its owner", async () => {
    const ada = await agent("ada");
    expect(await claim(ada, "demo")).toBe("demo");
    expect(await claim(ada, "demo")).toBe("demo");
    expect(registry.findName("demo")?.identity).toBe("ada");
    expect(registry.listAudit(10).filter(({ action }) => action === "name.reserve")).toHaveLength(1);
  });

  test("of another's name are refused during lease and quarantine, and say until when", async () => {
    const [ada, eve] = [await agent("ada"), await agent("eve")];
    await claim(ada, "demo");
    const decision = await claims.claim(eve, { name: "demo" });
    expect(decision).toMatchObject({ ok: false, code: "NAME_TAKEN" });
    clock.advance(limits.nameLeaseMs + limits.nameQuarantineMs - 1);
    expect(await claim(eve, "demo")).toBe("NAME_TAKEN");
    clock.advance(1);
    expect(await claim(eve, "demo")).toBe("demo");
    expect(await claim(ada, "demo")).toBe("NAME_TAKEN");
  });

  test("bring an own name back at once after its lease lapsed", async () => {
    const ada = await agent("ada");
    await claim(ada, "demo");
    clock.advance(limits.nameLeaseMs + 1);
    expect(await claim(ada, "demo")).toBe("demo");
  });

  test("are bound to the token's names", async () => {
    const ada = await agent("ada", { names: ["demo", "ada-*"] });
    expect(await claim(ada, "demo")).toBe("demo");
    expect(await claim(ada, "ada-1")).toBe("ada-1");
    expect(await claim(ada, "other")).toBe("NAME_NOT_ALLOWED");
    expect(registry.findName("other")).toBeUndefined();
  });

  test("refuse what is no name before anything is asked of the registry", async () => {
    const ada = await agent("ada");
    for (const name of ["www", "A", "a.b", "", "xn--a"]) expect(await claim(ada, name)).toBe("NAME_INVALID");
    expect(registry.listNames()).toHaveLength(0);
  });

  test("are limited for each identity", async () => {
    const ada = await agent("ada");
    for (const name of ["a", "b", "c"]) expect(await claim(ada, name)).toBe(name);
    expect(await claim(ada, "d")).toBe("NAME_LIMIT");
    expect(await claim(ada, "a")).toBe("a");
    expect(await claim(await agent("eve"), "d")).toBe("d");
  });

  test("by a peer without token, identity or the agent's role are refused, and release nothing", async () => {
    const ada = await agent("ada");
    await claim(ada, "demo");
    const odd: PeerIdentity[] = [
      { ...ada, tokenId: undefined },
      { ...ada, identity: "" },
      { ...ada, role: "node" },
    ];
    for (const peer of odd) {
      expect(await claim(peer, "free")).toBe("FORBIDDEN");
      await claims.release(peer, "demo");
    }
    expect(registry.findName("demo")?.leaseUntilMs).toBeGreaterThan(clock.wallMs());
    expect(registry.findName("free")).toBeUndefined();
  });

  test("by a revoked, expired, unknown or foreign token are refused", async () => {
    const ada = await agent("ada");
    expect(await claim({ ...ada, identity: "eve" }, "x")).toBe("CERTIFICATE_REVOKED");
    expect(await claim({ ...ada, tokenId: "tok_none" }, "x")).toBe("CERTIFICATE_REVOKED");
    expect(await claim({ ...ada, keyFingerprint: "another key" }, "x")).toBe("CERTIFICATE_REVOKED");
    const eve = await agent("eve");
    expect(await claim({ ...eve, tokenId: ada.tokenId }, "x")).toBe("CERTIFICATE_REVOKED"); // ada's token, eve's key
    expect(await revocations.isRevoked({ ...eve, tokenId: ada.tokenId })).toBe(true);
    await tokens.revoke(ada.tokenId ?? "", "test");
    expect(await claim(ada, "x")).toBe("CERTIFICATE_REVOKED");
    const bob = await agent("bob", { expiresMs: clock.wallMs() + 1_000 });
    expect(await claim(bob, "x")).toBe("x");
    clock.advance(1_000);
    expect(await claim(bob, "x")).toBe("CERTIFICATE_REVOKED");
  });

  test("another's name is not released", async () => {
    const [ada, eve] = [await agent("ada"), await agent("eve")];
    await claim(ada, "demo");
    const before = registry.findName("demo");
    await claims.release(eve, "demo");
    expect(registry.findName("demo")).toEqual(before);
    registry.releaseName = () => true; // the policy checks for itself, not only the registry
    await claims.release(eve, "demo");
    expect(registry.listAudit(10).map(({ action }) => action)).not.toContain("name.release");
  });

  test("a released name is in quarantine for others and free for its owner", async () => {
    const [ada, eve] = [await agent("ada"), await agent("eve")];
    await claim(ada, "demo");
    await claims.release(ada, "demo");
    expect(await claim(eve, "demo")).toBe("NAME_TAKEN");
    expect(await claim(ada, "demo")).toBe("demo");
    expect(registry.listAudit(10).map(({ action }) => action)).toContain("name.release");
  });

  test("touching extends leases and gives nobody anything", async () => {
    const ada = await agent("ada");
    await claim(ada, "demo");
    clock.advance(limits.nameLeaseMs * 0.1);
    await claims.touch(["demo", "nobody-has-this"]);
    expect(registry.findName("demo")).toMatchObject({
      identity: "ada",
      leaseUntilMs: clock.wallMs() + limits.nameLeaseMs,
    });
    expect(registry.findName("nobody-has-this")).toBeUndefined();
    await claims.release(ada, "demo");
    await claims.touch(["demo"]);
    expect(registry.findName("demo")?.leaseUntilMs).toBe(clock.wallMs());
  });
});

test("a fresh lease is not written again, neither by touching nor by claiming", async () => {
  const ada = await agent("ada");
  await claim(ada, "demo");
  let writes = 0;
  const real = registry.reserveName.bind(registry);
  registry.reserveName = (request) => {
    writes += 1;
    return real(request);
  };
  clock.advance(60_000);
  await claims.touch(["demo"]);
  expect(await claim(ada, "demo")).toBe("demo");
  expect(writes).toBe(0);
  clock.advance(limits.nameLeaseMs * (1 - limits.nameLeaseFreshShare));
  await claims.touch(["demo"]);
  expect(writes).toBe(1);
});

describe("generated names", () => {
  test("are the same every time for the same key", async () => {
    const ada = await agent("ada");
    const name = await claim(ada, undefined, "folder:3000");
    expect(name).toMatch(/^[a-z]+-[a-z]+-[a-z2-9]{4}$/);
    expect(await claim(ada, undefined, "folder:3000")).toBe(name);
    expect(await claim(ada, undefined, "folder:4000")).not.toBe(name);
  });

  test("give way to another's name, and stay when that one becomes free", async () => {
    const [ada, eve] = [await agent("ada"), await agent("eve")];
    const first = await generateName({ identity: "ada", stableKey: "k", attempt: 0 });
    await claim(eve, first);
    const second = await claim(ada, undefined, "k");
    expect(second).toBe(await generateName({ identity: "ada", stableKey: "k", attempt: 1 }));
    clock.advance(limits.nameLeaseMs + limits.nameQuarantineMs);
    expect(await claim(ada, undefined, "k")).toBe(second);
  });

  test("keep to the token's names", async () => {
    expect(await claim(await agent("ada", { names: ["ada-*"] }), undefined, "k")).toStartWith("ada-");
    expect(await claim(await agent("bob", { names: ["bob"] }), undefined, "k")).toBe("NAME_NOT_ALLOWED");
    const long = await agent("eve", { names: [`${"e".repeat(60)}*`] });
    expect(await claim(long, undefined, "k")).toBe("NAME_NOT_ALLOWED");
  });

  test("end after a bounded number of candidates", async () => {
    const [ada, eve] = [await agent("ada"), await agent("eve")];
    claims = createClaimPolicy({ registry, revocations, clock, limits });
    for (let attempt = 0; attempt < limits.generatedNameAttempts; attempt++) {
      await claim(eve, await generateName({ identity: "ada", stableKey: "k", attempt }));
    }
    expect(await claim(ada, undefined, "k")).toBe("NAME_TAKEN");
  });
});
