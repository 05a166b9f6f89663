import { beforeEach, describe, expect, test } from "bun:test";
import { FakeClock } from "../core/fake-clock.ts";
import type { PeerIdentity } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { SallyError } from "../core/errors.ts";
import { parseJoinToken } from "../trust/join-token.ts";
import { MemoryRegistry } from "../store/memory.ts";
import { type PeerPredicate, Revocations } from "./revocations.ts";
import { TokenService } from "./token-service.ts";

let clock: FakeClock;
let registry: MemoryRegistry;
let revocations: Revocations;
let tokens: TokenService;

beforeEach(() => {
  clock = new FakeClock();
  registry = new MemoryRegistry();
  revocations = new Revocations({ registry, clock, log: silentLogger, pollMs: limits.revocationPollMs });
  tokens = new TokenService({ registry, revocations, clock, caFingerprint: "ab".repeat(32) });
});

async function agent(identity: string, expiresMs?: number): Promise<PeerIdentity> {
  const { record } = await tokens.create({ label: "t", identity, names: [], ports: [], expiresMs }, "test");
  const keyFingerprint = `key of ${identity}`;
  enrol(identity, keyFingerprint, record.id);
  return { role: "agent", identity, installation: "i1", keyFingerprint, notAfterMs: 1e15, tokenId: record.id };
}

function enrol(identity: string, keyFingerprint: string, tokenId: string): void {
  const times = { createdMs: 0, renewedMs: 0, expiresMs: 1e15, revokedMs: undefined };
  const record = { keyFingerprint, tokenId, identity, installation: "i1", ...times };
  registry.putEnrolment(record, { forgetBeforeMs: 0, perTokenMax: 10 });
}

/** Which of the peers were to be shut out, one set for each time that the listener was called. */
function record(peers: readonly PeerIdentity[]): string[] {
  const shutOut: string[] = [];
  revocations.onRevoked((isRevoked: PeerPredicate) => {
    for (const peer of peers) if (isRevoked(peer)) shutOut.push(peer.identity);
  });
  return shutOut;
}

/** Lets the poll that the clock started finish. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

describe("revocations", () => {
  test("a peer on record is welcome, at once", async () => {
    const ada = await agent("ada");
    await revocations.start();
    expect(revocations.isRevoked(ada)).toBe(false);
  });

  test("a peer that enrolled after the last poll is looked up, and not shut out by its absence", async () => {
    await revocations.start();
    const [ada, eve] = [await agent("ada"), await agent("eve")];
    expect(await revocations.isRevoked(ada)).toBe(false);
    const shutOut = record([ada, eve]);
    await tokens.revoke(eve.tokenId ?? "", "test");
    expect(shutOut).toEqual(["eve"]);
    expect(await revocations.isRevoked(eve)).toBe(true);
  });

  test("unknown tokens, unknown keys, and identities that do not fit are revoked", async () => {
    const ada = await agent("ada");
    await revocations.start();
    expect(await revocations.isRevoked({ ...ada, tokenId: "tok_none" })).toBe(true);
    expect(await revocations.isRevoked({ ...ada, tokenId: undefined })).toBe(true);
    expect(await revocations.isRevoked({ ...ada, keyFingerprint: "none" })).toBe(true);
    expect(await revocations.isRevoked({ ...ada, identity: "eve" })).toBe(true);
  });

  test("a token revoked here is known and announced before the call returns", async () => {
    const [ada, bob] = [await agent("ada"), await agent("bob")];
    await revocations.start();
    const shutOut = record([ada, bob]);
    expect(await tokens.revoke(ada.tokenId ?? "", "test")).toBe(true);
    expect(shutOut).toEqual(["ada"]);
    expect(revocations.isRevoked(ada)).toBe(true);
    expect(revocations.isRevoked(bob)).toBe(false);
    expect(await tokens.revoke("tok_none", "test")).toBe(false);
    expect(registry.listAudit(9).filter(({ action }) => action === "token.revoke")).toHaveLength(1);
  });

  test("one installation's key can be shut out alone", async () => {
    const ada = await agent("ada");
    const other = { ...ada, keyFingerprint: "second" };
    enrol("ada", "second", ada.tokenId ?? "");
    await revocations.start();
    const keys: string[] = [];
    revocations.onRevoked((isRevoked) => {
      for (const peer of [ada, other]) if (isRevoked(peer)) keys.push(peer.keyFingerprint);
    });
    await revocations.revokeEnrolment("second");
    expect(keys).toEqual(["second"]);
    expect(revocations.isRevoked(other)).toBe(true);
    expect(revocations.isRevoked(ada)).toBe(false);
  });

  test("what another process revoked is announced with the next poll", async () => {
    const ada = await agent("ada");
    await revocations.start();
    const shutOut = record([ada]);
    registry.revokeToken(ada.tokenId ?? "", clock.wallMs());
    expect(shutOut).toEqual([]);
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(shutOut).toEqual(["ada"]);
    expect(revocations.isRevoked(ada)).toBe(true);
  });

  test("a token's end is announced within a second, and holds from the millisecond on", async () => {
    const ada = await agent("ada", clock.wallMs() + 1_500);
    await revocations.start();
    const shutOut = record([ada]);
    clock.advance(1_499);
    await settle();
    expect(revocations.isRevoked(ada)).toBe(false);
    clock.advance(1);
    expect(revocations.isRevoked(ada)).toBe(true);
    expect(shutOut).toEqual([]);
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(shutOut).toEqual(["ada"]);
  });

  test("a poll that began before a revocation does not undo it", async () => {
    const ada = await agent("ada");
    await revocations.start();
    const before = registry.listTokens();
    let answer: (() => void) | undefined;
    const real = registry.listTokens.bind(registry);
    registry.listTokens = (() => {
      registry.listTokens = real;
      return new Promise((resolve) => (answer = () => resolve(before)));
    }) as unknown as typeof registry.listTokens; // the port allows a promise
    const polling = revocations.poll();
    await tokens.revoke(ada.tokenId ?? "", "test");
    answer?.();
    await polling;
    expect(revocations.isRevoked(ada)).toBe(true);
  });

  test("a registry that fails for a while does not shut everybody out, and polling goes on", async () => {
    const ada = await agent("ada");
    await revocations.start();
    const real = registry.listTokens.bind(registry);
    registry.listTokens = () => {
      throw new SallyError("STORE_FAILED");
    };
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(revocations.isRevoked(ada)).toBe(false);
    registry.listTokens = real;
    registry.revokeToken(ada.tokenId ?? "", clock.wallMs());
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(revocations.isRevoked(ada)).toBe(true);
  });

  test("closing ends the polling", async () => {
    await revocations.start();
    revocations.close();
    expect(clock.pending).toBe(0);
  });
});

describe("tokens", () => {
  test("show their secret once and store only its hash", async () => {
    const { token, record: stored } = await tokens.create({ label: "l", names: [], ports: [] }, "admin");
    const { secret, caFingerprint } = parseJoinToken(token);
    expect(caFingerprint).toBe("ab".repeat(32));
    expect(stored.identity).toMatch(/^id-[0-9a-f]{12}$/);
    const { record: other } = await tokens.create({ label: "l", names: [], ports: [] }, "admin");
    expect(other.identity).not.toBe(stored.identity); // who is not named shares nobody's names
    expect(await tokens.authenticate(secret)).toEqual(stored);
    const everything = JSON.stringify([registry.listTokens(), registry.listAudit(10)]);
    expect(everything).not.toContain(token.slice(6, 49));
    expect(everything).not.toContain(secret.toHex());
  });

  test("that are unknown, expired or revoked are refused alike", async () => {
    const reasons: string[] = [];
    const attempt = async (secret: Uint8Array): Promise<void> => {
      await tokens.authenticate(secret).catch((error: SallyError) => reasons.push(`${error.code} ${error.message}`));
    };
    await attempt(new Uint8Array(32));
    const lapsing = await tokens.create({ label: "l", names: [], ports: [], expiresMs: clock.wallMs() + 5 }, "admin");
    const revoked = await tokens.create({ label: "l", names: [], ports: [] }, "admin");
    await tokens.revoke(revoked.record.id, "admin");
    clock.advance(5);
    await attempt(parseJoinToken(lapsing.token).secret);
    await attempt(parseJoinToken(revoked.token).secret);
    expect(reasons).toHaveLength(3);
    expect(new Set(reasons).size).toBe(1);
    expect(reasons[0]).toStartWith("TOKEN_INVALID");
  });

  test("cannot be made with an end in the past, nor without bound", async () => {
    const past = tokens.create({ label: "l", names: [], ports: [], expiresMs: clock.wallMs() }, "admin");
    expect(await past.catch((error: unknown) => error)).toMatchObject({ code: "USAGE" });
    registry.listTokens = () => Array.from({ length: limits.tokensMax }, () => ({}) as never);
    const full = tokens.create({ label: "l", names: [], ports: [] }, "admin");
    expect(await full.catch((error: unknown) => error)).toMatchObject({ code: "OVERLOADED" });
  });
});
