import { beforeEach, describe, expect, test } from "bun:test";
import { utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { silentLogger } from "../core/log.ts";
import { MemoryRegistry } from "../store/memory.ts";
import { hashSecret, parseJoinToken } from "../trust/join-token.ts";
import { sha256Hex } from "../trust/key-pair.ts";
import { type Bootstrapped, bootstrapNode, dataFiles, type Files } from "./bootstrap.ts";

class FakeFiles implements Files {
  readonly texts = new Map<string, string>();
  readonly modes = new Map<string, number>();
  /** Writes until the power goes. */
  writesLeft = Infinity;

  async read(name: string): Promise<string | undefined> {
    return this.texts.get(name);
  }

  async write(name: string, text: string, mode: number): Promise<void> {
    if (this.writesLeft-- <= 0) throw new Error("power cut");
    this.texts.set(name, text);
    this.modes.set(name, mode);
  }
}

const clock = new FakeClock();
let files: FakeFiles;
let registry: MemoryRegistry;

beforeEach(() => {
  files = new FakeFiles();
  registry = new MemoryRegistry();
});

const run = (): Promise<Bootstrapped> => bootstrapNode({ files, registry, clock, log: silentLogger });

async function isUsable(line: string | undefined): Promise<boolean> {
  const hash = await hashSecret(parseJoinToken(line ?? "").secret);
  const token = registry.findTokenByHash(hash);
  return token !== undefined && token.revokedMs === undefined;
}

describe("bootstrap", () => {
  test("makes everything on an empty folder, readable by the user only", async () => {
    const { ca, caPem, agentToken, adminTokenHash } = await run();
    expect(Object.fromEntries(files.modes)).toEqual({
      [dataFiles.caKey]: 0o600,
      [dataFiles.ca]: 0o600,
      [dataFiles.adminToken]: 0o600,
      [dataFiles.agentToken]: 0o600,
    });
    expect(files.texts.get(dataFiles.agentToken)).toBe(`${agentToken}\n`);
    expect(parseJoinToken(agentToken ?? "").caFingerprint).toBe(ca.fingerprint);
    expect(files.texts.get(dataFiles.ca)).toBe(caPem);
    expect(caPem).not.toContain("PRIVATE");
    expect(adminTokenHash).toBe(await sha256Hex(utf8Encode(files.texts.get(dataFiles.adminToken)?.trim() ?? "")));
    expect(registry.listTokens()).toMatchObject([{ identity: "owner", scope: { names: [], ports: [] } }]);
    expect(await isUsable(agentToken)).toBe(true);
  });

  test("changes nothing the second time", async () => {
    const first = await run();
    const texts = new Map(files.texts);
    files.writesLeft = 0;
    const second = await run();
    expect(second.ca.fingerprint).toBe(first.ca.fingerprint);
    expect(second).toMatchObject({ agentToken: first.agentToken, adminTokenHash: first.adminTokenHash });
    expect(files.texts).toEqual(texts);
    expect(registry.listTokens()).toHaveLength(1);
  });

  test("recovers from a power cut after any number of writes, keeping what was done", async () => {
    for (let writes = 0; writes < 4; writes++) {
      files = new FakeFiles();
      registry = new MemoryRegistry();
      files.writesLeft = writes;
      expect(await failure()).toContain("power cut");
      const before = new Map(files.texts);
      files.writesLeft = Infinity;
      const { agentToken } = await run();
      for (const [name, text] of before) expect(files.texts.get(name)).toBe(text);
      expect(await isUsable(agentToken)).toBe(true);
      expect(registry.listTokens()).toHaveLength(1);
    }
  });

  test("recovers from a cut between the token's file and the registry, and from a lost registry", async () => {
    const first = await run();
    const id = registry.listTokens()[0]?.id;
    registry = new MemoryRegistry();
    expect((await run()).agentToken).toBe(first.agentToken);
    expect(registry.listTokens()[0]?.id).toBe(id); // certificates enrolled with it name this id
  });

  test("makes a lost or damaged token file anew, and leaves agents of the old token alone", async () => {
    const first = await run();
    for (const text of [undefined, "", "sally_cut"]) {
      if (text === undefined) files.texts.delete(dataFiles.agentToken);
      else files.texts.set(dataFiles.agentToken, text);
      const { agentToken } = await run();
      expect(agentToken).not.toBe(first.agentToken);
      expect(await isUsable(agentToken)).toBe(true);
      expect(await isUsable(first.agentToken)).toBe(true);
    }
    files.texts.set(dataFiles.adminToken, "");
    expect((await run()).adminTokenHash).not.toBe(first.adminTokenHash);
  });

  test("does not bring back a token that the operator revoked", async () => {
    await run();
    const [token] = registry.listTokens();
    registry.revokeToken(token?.id ?? "", clock.wallMs());
    expect((await run()).agentToken).toBeUndefined();
    files.texts.delete(dataFiles.agentToken);
    expect((await run()).agentToken).toBeUndefined();
    expect(registry.listTokens()).toHaveLength(1);
  });

  test("never replaces a CA that agents may trust: a lost or damaged key stops the node, saying what to do", async () => {
    await run();
    const bundle = files.texts.get(dataFiles.caKey) ?? "";
    for (const text of ["", bundle.slice(0, 200), bundle.slice(0, -200)]) {
      files.texts.set(dataFiles.caKey, text);
      expect(await failure()).toMatch(/^STORE_FAILED .*is damaged.*backup/);
    }
    files.texts.delete(dataFiles.caKey);
    expect(await failure()).toMatch(/^STORE_FAILED .*is missing.*backup.*new token/);
    files.texts.delete(dataFiles.ca);
    const { ca, agentToken } = await run();
    expect(parseJoinToken(agentToken ?? "").caFingerprint).toBe(ca.fingerprint);
  });

  test("restores the public copy of the CA", async () => {
    const { caPem } = await run();
    files.texts.delete(dataFiles.ca);
    await run();
    expect(files.texts.get(dataFiles.ca)).toBe(caPem);
  });
});

async function failure(): Promise<string> {
  try {
    await run();
    return "none";
  } catch (error) {
    return error instanceof SallyError ? `${error.code} ${error.message}` : String(error);
  }
}
