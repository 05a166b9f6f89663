/** One suite for the Registry port, run on every adapter. */

import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Database } from "bun:sqlite";
import { SallyError } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import type {
  EnrolmentBounds,
  EnrolmentRecord,
  Registry,
  ReserveRequest,
  TokenRecord,
} from "../../src/ports/registry.ts";
import { MemoryRegistry } from "../../src/store/memory.ts";
import { openSqliteRegistry } from "../../src/store/sqlite.ts";

const folder = mkdtempSync(join(tmpdir(), "sally-registry-"));
let fileCount = 0;
const newPath = (): string => join(folder, `r${++fileCount}.db`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const t0 = Date.UTC(2026, 0, 1);
const hour = 3_600_000;

const token: TokenRecord = {
  id: "tok_1",
  secretHash: "a".repeat(64),
  identity: "ada",
  label: "laptop",
  scope: { names: ["demo", "ada-*"], ports: [5000] },
  createdMs: t0,
  expiresMs: t0 + hour,
  revokedMs: undefined,
};

const enrolment: EnrolmentRecord = {
  keyFingerprint: "k1",
  tokenId: "tok_1",
  identity: "ada",
  installation: "i1",
  createdMs: t0,
  renewedMs: t0,
  expiresMs: t0 + hour,
  revokedMs: undefined,
};

const bounds: EnrolmentBounds = { forgetBeforeMs: t0, perTokenMax: 3 };

function reserve(overrides: Partial<ReserveRequest> = {}): ReserveRequest {
  return { name: "demo", identity: "ada", nowMs: t0, leaseMs: hour, quarantineMs: hour, namesMax: 3, ...overrides };
}

const adapters: Record<string, () => Registry> = {
  memory: () => new MemoryRegistry(),
  sqlite: () => openSqliteRegistry(newPath()),
};

for (const [adapter, open] of Object.entries(adapters)) {
  describe(`registry contract: ${adapter}`, () => {
    let registry: Registry;
    beforeEach(() => {
      registry = open();
    });
    afterEach(async () => {
      await registry.close();
    });

    test("a token is found by its hash and its id, and comes back whole", async () => {
      await registry.addToken(token);
      await registry.addToken({ ...token, id: "tok_2", secretHash: "b".repeat(64), expiresMs: undefined });
      expect(await registry.findTokenByHash("a".repeat(64))).toEqual(token);
      expect(await registry.findToken("tok_1")).toEqual(token);
      expect(await registry.findTokenByHash("A".repeat(64))).toBeUndefined();
      expect(await registry.findToken("nope")).toBeUndefined();
      expect((await registry.listTokens()).map(({ id }) => id)).toEqual(["tok_1", "tok_2"]);
    });

    test("two tokens cannot have one id or one secret", async () => {
      await registry.addToken(token);
      expect(await failure(() => registry.addToken({ ...token, secretHash: "c".repeat(64) }))).toBe("STORE_FAILED");
      expect(await failure(() => registry.addToken({ ...token, id: "tok_3" }))).toBe("STORE_FAILED");
    });

    test("revoking twice keeps the first time", async () => {
      await registry.addToken(token);
      expect(await registry.revokeToken("tok_1", t0 + 1)).toBe(true);
      expect(await registry.revokeToken("tok_1", t0 + 2)).toBe(true);
      expect((await registry.findToken("tok_1"))?.revokedMs).toBe(t0 + 1);
      expect((await registry.listTokens())[0]?.revokedMs).toBe(t0 + 1);
      expect(await registry.revokeToken("nope", t0)).toBe(false);
    });

    test("lists that were asked for before show what was written since", async () => {
      expect(await registry.listTokens()).toEqual([]);
      expect(await registry.listEnrolments()).toEqual([]);
      await registry.addToken(token);
      await registry.putEnrolment(enrolment, bounds);
      expect(await registry.listTokens()).toEqual([token]);
      expect(await registry.listEnrolments()).toEqual([enrolment]);
      await registry.revokeToken("tok_1", t0);
      await registry.revokeEnrolment("k1", t0);
      expect(await registry.listTokens()).toEqual([{ ...token, revokedMs: t0 }]);
      expect(await registry.listEnrolments()).toEqual([{ ...enrolment, revokedMs: t0 }]);
    });

    test("an enrolment renews under the same key", async () => {
      await registry.putEnrolment(enrolment, bounds);
      await registry.putEnrolment({ ...enrolment, createdMs: t0 + 5, renewedMs: t0 + 5, tokenId: "tok_2" }, bounds);
      expect(await registry.findEnrolment("k1")).toEqual({ ...enrolment, renewedMs: t0 + 5, tokenId: "tok_2" });
      expect(await registry.listEnrolments()).toHaveLength(1);
      expect(await registry.findEnrolment("nope")).toBeUndefined();
    });

    test("a revoked enrolment stays revoked when it is renewed", async () => {
      await registry.putEnrolment(enrolment, bounds);
      expect(await registry.revokeEnrolment("k1", t0 + 1)).toBe(true);
      expect(await registry.revokeEnrolment("k1", t0 + 2)).toBe(true);
      await registry.putEnrolment({ ...enrolment, renewedMs: t0 + 3 }, bounds);
      expect((await registry.findEnrolment("k1"))?.revokedMs).toBe(t0 + 1);
      expect((await registry.listEnrolments())[0]?.revokedMs).toBe(t0 + 1);
      expect(await registry.revokeEnrolment("nope", t0)).toBe(false);
    });

    test("a token has so many enrolments, and one past that is refused; revoked ones do not count", async () => {
      const put = async (key: string, tokenId = "tok_1"): Promise<boolean> =>
        registry.putEnrolment({ ...enrolment, keyFingerprint: key, tokenId }, bounds);
      for (const key of ["k1", "k2", "k3"]) expect(await put(key)).toBe(true);
      expect(await put("k4")).toBe(false);
      expect(await registry.findEnrolment("k4")).toBeUndefined();
      expect(await put("k3")).toBe(true); // a renewal
      expect(await put("k5", "tok_2")).toBe(true);
      await registry.revokeEnrolment("k1", t0);
      expect(await put("k4")).toBe(true);
      expect(await put("k6")).toBe(false);
      expect(await registry.listEnrolments()).toHaveLength(5);
    });

    test("enrolments that ended long ago are forgotten when a new one comes", async () => {
      const put = async (key: string, expiresMs: number, forgetBeforeMs = t0): Promise<boolean> =>
        registry.putEnrolment({ ...enrolment, keyFingerprint: key, expiresMs }, { forgetBeforeMs, perTokenMax: 2 });
      await put("k1", t0 + 5);
      await put("k2", t0 + 6);
      await registry.revokeEnrolment("k1", t0);
      expect(await registry.listEnrolments()).toHaveLength(2);
      expect(await put("k2", t0 + 7, t0 + 6)).toBe(true); // a renewal removes nothing
      expect(await registry.listEnrolments()).toHaveLength(2);
      expect(await put("k3", t0 + 9, t0 + 6)).toBe(true);
      expect(await registry.findEnrolment("k1")).toBeUndefined();
      expect((await registry.findEnrolment("k2"))?.expiresMs).toBe(t0 + 7);
      expect(await put("k4", t0 + 9, t0 + 7)).toBe(false);
      expect(await put("k4", t0 + 9, t0 + 8)).toBe(true);
      expect((await registry.listEnrolments()).map(({ keyFingerprint }) => keyFingerprint)).toEqual(["k3", "k4"]);
    });

    test("a free name is reserved, and lists show it", async () => {
      const record = { name: "demo", identity: "ada", leaseUntilMs: t0 + hour, quarantineUntilMs: t0 + 2 * hour };
      expect(await registry.reserveName(reserve())).toEqual({ kind: "reserved", record });
      expect(await registry.findName("demo")).toEqual(record);
      expect(await registry.listNames("ada")).toEqual([record]);
      expect(await registry.listNames()).toEqual([record]);
      expect(await registry.listNames("eve")).toEqual([]);
    });

    test("another's name is taken while lease and quarantine last, to the millisecond", async () => {
      await registry.reserveName(reserve());
      const taken = { kind: "taken", untilMs: t0 + 2 * hour } as const;
      for (const nowMs of [t0, t0 + hour, t0 + 2 * hour - 1]) {
        expect(await registry.reserveName(reserve({ identity: "eve", nowMs }))).toEqual(taken);
      }
      const late = await registry.reserveName(reserve({ identity: "eve", nowMs: t0 + 2 * hour }));
      expect(late).toMatchObject({ kind: "reserved", record: { identity: "eve" } });
      expect(await registry.reserveName(reserve({ nowMs: t0 + 2 * hour }))).toMatchObject({ kind: "taken" });
    });

    test("the owner extends, also in quarantine and after it", async () => {
      await registry.reserveName(reserve());
      for (const nowMs of [t0 + 1, t0 + hour + 1, t0 + 5 * hour]) {
        expect(await registry.reserveName(reserve({ nowMs }))).toMatchObject({
          kind: "reserved",
          record: { leaseUntilMs: nowMs + hour, quarantineUntilMs: nowMs + 2 * hour },
        });
      }
    });

    test("a clock that goes back does not shorten a lease", async () => {
      await registry.reserveName(reserve({ nowMs: t0 + hour }));
      expect(await registry.reserveName(reserve({ nowMs: t0 }))).toMatchObject({
        record: { leaseUntilMs: t0 + 2 * hour },
      });
    });

    test("release begins the quarantine once, and only for the owner", async () => {
      await registry.reserveName(reserve());
      expect(await registry.releaseName("demo", "eve", t0 + 1, hour)).toBe(false);
      expect(await registry.releaseName("nope", "ada", t0 + 1, hour)).toBe(false);
      expect((await registry.findName("demo"))?.leaseUntilMs).toBe(t0 + hour);
      expect(await registry.releaseName("demo", "ada", t0 + 10, hour)).toBe(true);
      expect(await registry.releaseName("demo", "ada", t0 + 20, hour)).toBe(true);
      expect(await registry.reserveName(reserve({ identity: "eve", nowMs: t0 + 21 }))).toEqual({
        kind: "taken",
        untilMs: t0 + 10 + hour,
      });
      expect(await registry.reserveName(reserve({ nowMs: t0 + 21 }))).toMatchObject({ kind: "reserved" });
    });

    test("the limit counts held and quarantined names, not lapsed ones, and never stops an extension", async () => {
      for (const name of ["a", "b", "c"]) await registry.reserveName(reserve({ name }));
      expect(await registry.reserveName(reserve({ name: "d" }))).toEqual({ kind: "limit", max: 3 });
      await registry.releaseName("a", "ada", t0, hour);
      expect(await registry.reserveName(reserve({ name: "d" }))).toEqual({ kind: "limit", max: 3 });
      expect(await registry.reserveName(reserve({ name: "b" }))).toMatchObject({ kind: "reserved" });
      expect(await registry.reserveName(reserve({ name: "d", identity: "eve" }))).toMatchObject({ kind: "reserved" });
      expect(await registry.reserveName(reserve({ name: "e", nowMs: t0 + hour }))).toMatchObject({ kind: "reserved" });
    });

    test("the audit lists the newest first, as many as asked for", async () => {
      for (let i = 0; i < 5; i++)
        await registry.audit({ atMs: t0 + i, actor: "ada", action: "claim", subject: `n${i}` });
      expect((await registry.listAudit(2)).map(({ subject }) => subject)).toEqual(["n4", "n3"]);
      expect(await registry.listAudit(100)).toHaveLength(5);
    });
  });
}

describe("sqlite registry", () => {
  test("two connections race for a name: one gets it", () => {
    const path = newPath();
    const [one, two] = [openSqliteRegistry(path), openSqliteRegistry(path)];
    for (let i = 0; i < 20; i++) {
      const results = [
        one.reserveName(reserve({ name: `n${i}`, namesMax: 100 })),
        two.reserveName(reserve({ name: `n${i}`, identity: "eve", namesMax: 100 })),
      ];
      expect(results.map((result) => (result as { kind: string }).kind)).toEqual(["reserved", "taken"]);
    }
    one.close();
    two.close();
  });

  test("two processes race for names: each has exactly one owner", async () => {
    const path = newPath();
    openSqliteRegistry(path).close();
    const worker = `
      const { openSqliteRegistry } = await import(${JSON.stringify(join(import.meta.dir, "../../src/store/sqlite.ts"))});
      const registry = openSqliteRegistry(${JSON.stringify(path)});
      const won = [];
      for (let i = 0; i < 100; i++) {
        const { kind } = registry.reserveName({ name: "n" + i, identity: process.argv.at(-1), nowMs: 1, leaseMs: 10, quarantineMs: 10, namesMax: 1000 });
        if (kind === "reserved") won.push(i);
      }
      console.log(JSON.stringify(won));`;
    const run = (identity: string): Promise<number[]> => {
      const child = Bun.spawn([process.execPath, "-e", worker, identity], { stdout: "pipe", stderr: "inherit" });
      return new Response(child.stdout).json() as Promise<number[]>;
    };
    const [ada, eve] = await Promise.all([run("ada"), run("eve")]);
    expect([...ada, ...eve].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    const registry = openSqliteRegistry(path);
    expect(registry.listNames("ada")).toHaveLength(ada.length);
    registry.close();
  });

  test("lists see what another connection wrote", () => {
    const path = newPath();
    const [one, two] = [openSqliteRegistry(path), openSqliteRegistry(path)];
    expect(one.listTokens()).toHaveLength(0);
    two.addToken(token);
    two.putEnrolment(enrolment, bounds);
    expect(one.listTokens()).toHaveLength(1);
    expect(one.listTokens()).toBe(one.listTokens()); // unchanged: not read again
    two.revokeToken("tok_1", t0);
    two.revokeEnrolment("k1", t0);
    expect(one.listTokens()[0]?.revokedMs).toBe(t0);
    expect(one.listEnrolments()[0]?.revokedMs).toBe(t0);
    one.close();
    two.close();
  });

  test("what was written is there after reopening, in files that only the user may read", () => {
    const path = newPath();
    const first = openSqliteRegistry(path);
    first.addToken(token);
    first.reserveName(reserve());
    const mine = readdirSync(folder).filter((name) => join(folder, name).startsWith(path));
    for (const name of mine) expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
    expect(mine.length).toBeGreaterThan(1); // the write-ahead log too
    first.close();
    const again = openSqliteRegistry(path);
    expect(again.findToken("tok_1")).toEqual(token);
    expect(again.findName("demo")?.identity).toBe("ada");
    again.close();
  });

  test("a damaged file is refused, saying what to do", async () => {
    const path = newPath();
    writeFileSync(path, "this is not a database, ".repeat(500));
    expect(await failure(() => openSqliteRegistry(path))).toBe("STORE_FAILED");
    expect(await message(() => openSqliteRegistry(path))).toMatch(/is damaged .*backup/);
  });

  test("a file that breaks while it is open gives STORE_FAILED, not a crash", async () => {
    const path = newPath();
    const registry = openSqliteRegistry(path);
    registry.close();
    expect(await failure(() => registry.reserveName(reserve()))).toBe("STORE_FAILED");
  });

  test("a file that another program holds is waited for so long, and then said to be locked", async () => {
    const path = newPath();
    const registry = openSqliteRegistry(path);
    const other = new Database(path);
    other.run("BEGIN IMMEDIATE");
    const startedMs = performance.now();
    expect(await message(() => registry.reserveName(reserve()))).toMatch(/is locked by another program/);
    const waitedMs = performance.now() - startedMs;
    expect(waitedMs).toBeGreaterThan(limits.storeLockMs - 200);
    other.run("COMMIT");
    expect(registry.reserveName(reserve()).kind).toBe("reserved");
    other.close();
    registry.close();
  }, 20_000);

  test("a newer file and another program's database are refused and stay untouched", async () => {
    const newer = newPath();
    openSqliteRegistry(newer).close();
    run(newer, "PRAGMA user_version = 99");
    expect(await message(() => openSqliteRegistry(newer))).toMatch(/newer version: update/);
    const foreign = newPath();
    run(foreign, "CREATE TABLE accounts (id INTEGER)");
    expect(await message(() => openSqliteRegistry(foreign))).toMatch(/another program's/);
  });

  test("a file of the first version is brought up to date, and its enrolments last as long as they might", async () => {
    const path = newPath();
    openSqliteRegistry(path).close();
    for (const index of ["enrolments_by_token", "enrolments_by_end"]) run(path, `DROP INDEX ${index}`);
    run(path, "ALTER TABLE enrolments DROP COLUMN expires_ms");
    run(path, `INSERT INTO enrolments VALUES ('k1', 'tok_1', 'ada', 'i1', ${t0}, ${t0}, NULL)`);
    run(path, "PRAGMA user_version = 1");
    const registry = openSqliteRegistry(path);
    const yearMs = 365 * 24 * hour;
    expect(registry.listEnrolments()).toEqual([{ ...enrolment, expiresMs: t0 + yearMs }]);
    const put = (key: string, forgetBeforeMs: number): boolean =>
      registry.putEnrolment({ ...enrolment, keyFingerprint: key }, { forgetBeforeMs, perTokenMax: 9 });
    put("k2", t0 + yearMs);
    expect(registry.findEnrolment("k1")).toBeDefined();
    put("k3", t0 + yearMs + 1);
    expect(registry.findEnrolment("k1")).toBeUndefined();
    registry.close();
  });

  test("a folder that is not there is refused, saying what to do", async () => {
    expect(await message(() => openSqliteRegistry(join(folder, "no", "such", "r.db")))).toMatch(
      /check that the folder/,
    );
  });

  test("the audit is bounded, and forgets the oldest", () => {
    const path = newPath();
    const registry = openSqliteRegistry(path);
    const audit = (action: string): void => registry.audit({ atMs: 1, actor: "a", action, subject: "s" });
    const actions = (): string[] => registry.listAudit(10).map(({ action }) => action);
    audit("first");
    run(path, `UPDATE sqlite_sequence SET seq = ${limits.auditRecordsMax - 1} WHERE name = 'audit'`);
    audit("last within");
    expect(actions()).toEqual(["last within", "first"]);
    audit("one more");
    expect(actions()).toEqual(["one more", "last within"]);
    registry.close();
  });
});

function run(path: string, sql: string): void {
  const database = new Database(path);
  database.run(sql);
  database.close();
}

async function failure(work: () => unknown): Promise<string> {
  try {
    await work();
    return "none";
  } catch (error) {
    return error instanceof SallyError ? error.code : String(error);
  }
}

async function message(work: () => unknown): Promise<string> {
  try {
    await work();
    return "none";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
