/**
 * The registry in one SQLite file. Several processes may have it open: what must be atomic runs in one immediate
 * transaction, and a committed change survives a power cut (WAL with synchronous=FULL).
 */

import { type Changes, Database, type SQLQueryBindings, SQLiteError } from "bun:sqlite";
import { chmodSync, closeSync, openSync } from "node:fs";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type {
  AuditRecord,
  EnrolmentBounds,
  EnrolmentRecord,
  NameRecord,
  Registry,
  ReserveRequest,
  ReserveResult,
  TokenRecord,
} from "../ports/registry.ts";
import { migrate } from "./sqlite-schema.ts";

type Row = Readonly<Record<string, string | number | null>>;

/** A version that did not write the end may still have the file open: no certificate lasts longer than 365 days. */
const expiresSql = "coalesce(expires_ms, renewed_ms + 31536000000)";
const selectEnrolments = `SELECT *, ${expiresSql} AS ends_ms FROM enrolments`;

/** Opens or creates the file with mode 0600. @throws SallyError STORE_FAILED, saying what to do */
export function openSqliteRegistry(path: string): SqliteRegistry {
  let database: Database | undefined;
  try {
    // SQLite would create it with the umask's mode; its -wal and -shm files copy the mode of the main file.
    closeSync(openSync(path, "a", 0o600));
    chmodSync(path, 0o600);
    database = new Database(path, { strict: true });
    database.run(`PRAGMA busy_timeout = ${limits.storeLockMs}`);
    database.run("PRAGMA journal_mode = WAL");
    database.run("PRAGMA synchronous = FULL");
    migrate(database, path);
    return new SqliteRegistry(database, path);
  } catch (error) {
    database?.close();
    throw storeError(error, path);
  }
}

function storeError(error: unknown, path: string): SallyError {
  if (error instanceof SallyError) return error;
  const code = error instanceof SQLiteError ? (error.code ?? "") : "";
  const what = error instanceof Error ? error.message : String(error);
  if (code === "SQLITE_NOTADB" || code.startsWith("SQLITE_CORRUPT")) {
    const advice = "restore it from a backup, or move it away to start with an empty registry (agents log in again)";
    return new SallyError("STORE_FAILED", `${path} is damaged (${what}): ${advice}`, { cause: error });
  }
  if (code.startsWith("SQLITE_BUSY")) {
    return new SallyError("STORE_FAILED", `${path} is locked by another program: stop it`, { cause: error });
  }
  const advice = "check that the folder exists, belongs to this user and has free space";
  return new SallyError("STORE_FAILED", `${path} cannot be used (${what}): ${advice}`, { cause: error });
}

export class SqliteRegistry implements Registry {
  readonly #database: Database;
  readonly #path: string;
  /** Lists that are asked for every second, kept until this or another connection writes. */
  #cachedVersion = "";
  #cachedTokens: readonly TokenRecord[] | undefined;
  #cachedEnrolments: readonly EnrolmentRecord[] | undefined;

  constructor(database: Database, path: string) {
    this.#database = database;
    this.#path = path;
  }

  addToken(token: TokenRecord): void {
    this.#writeListed(
      `INSERT INTO tokens (id, secret_hash, identity, label, names, ports, created_ms, expires_ms, revoked_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      [
        token.id,
        token.secretHash,
        token.identity,
        token.label,
        JSON.stringify(token.scope.names),
        JSON.stringify(token.scope.ports),
        token.createdMs,
        token.expiresMs ?? null,
        token.revokedMs ?? null,
      ],
    );
  }

  findTokenByHash(secretHash: string): TokenRecord | undefined {
    return this.#rows("SELECT * FROM tokens WHERE secret_hash = ?", [secretHash]).map(tokenOf)[0];
  }

  findToken(id: string): TokenRecord | undefined {
    return this.#rows("SELECT * FROM tokens WHERE id = ?", [id]).map(tokenOf)[0];
  }

  listTokens(): readonly TokenRecord[] {
    this.#forgetStale();
    this.#cachedTokens ??= this.#rows("SELECT * FROM tokens ORDER BY created_ms, id", []).map(tokenOf);
    return this.#cachedTokens;
  }

  revokeToken(id: string, nowMs: number): boolean {
    return (
      this.#writeListed("UPDATE tokens SET revoked_ms = coalesce(revoked_ms, ?) WHERE id = ?", [nowMs, id]).changes > 0
    );
  }

  putEnrolment(enrolment: EnrolmentRecord, bounds: EnrolmentBounds): boolean {
    return this.#guard(() =>
      this.#database
        .transaction(() => {
          const isNew = this.findEnrolment(enrolment.keyFingerprint) === undefined;
          if (isNew && !this.#hasRoom(enrolment.tokenId, bounds)) return false;
          this.#writeEnrolment(enrolment);
          return true;
        })
        .immediate(),
    );
  }

  #hasRoom(tokenId: string, { forgetBeforeMs, perTokenMax }: EnrolmentBounds): boolean {
    this.#writeListed(`DELETE FROM enrolments WHERE ${expiresSql} < ?`, [forgetBeforeMs]);
    const sql = "SELECT count(*) AS held FROM enrolments WHERE token_id = ? AND revoked_ms IS NULL";
    return Number(this.#rows(sql, [tokenId])[0]?.["held"]) < perTokenMax;
  }

  #writeEnrolment(enrolment: EnrolmentRecord): void {
    // What was revoked stays so: a renewal that runs at the same time must not bring the key back.
    this.#writeListed(
      `INSERT INTO enrolments
         (key_fingerprint, token_id, identity, installation, created_ms, renewed_ms, expires_ms, revoked_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (key_fingerprint) DO UPDATE SET token_id = excluded.token_id, identity = excluded.identity,
         installation = excluded.installation, renewed_ms = excluded.renewed_ms, expires_ms = excluded.expires_ms,
         revoked_ms = coalesce(revoked_ms, excluded.revoked_ms)`,
      [
        enrolment.keyFingerprint,
        enrolment.tokenId,
        enrolment.identity,
        enrolment.installation,
        enrolment.createdMs,
        enrolment.renewedMs,
        enrolment.expiresMs,
        enrolment.revokedMs ?? null,
      ],
    );
  }

  findEnrolment(keyFingerprint: string): EnrolmentRecord | undefined {
    return this.#rows(`${selectEnrolments} WHERE key_fingerprint = ?`, [keyFingerprint]).map(enrolmentOf)[0];
  }

  listEnrolments(): readonly EnrolmentRecord[] {
    this.#forgetStale();
    this.#cachedEnrolments ??= this.#rows(`${selectEnrolments} ORDER BY created_ms, key_fingerprint`, []).map(
      enrolmentOf,
    );
    return this.#cachedEnrolments;
  }

  revokeEnrolment(keyFingerprint: string, nowMs: number): boolean {
    const sql = "UPDATE enrolments SET revoked_ms = coalesce(revoked_ms, ?) WHERE key_fingerprint = ?";
    return this.#writeListed(sql, [nowMs, keyFingerprint]).changes > 0;
  }

  reserveName(request: ReserveRequest): ReserveResult {
    // Immediate: the lock is taken before the first read, so two processes cannot both find the name free.
    return this.#guard(() => this.#database.transaction(() => this.#reserve(request)).immediate());
  }

  #reserve({ name, identity, nowMs, leaseMs, quarantineMs, namesMax }: ReserveRequest): ReserveResult {
    const known = this.findName(name);
    const isHeld = known !== undefined && known.quarantineUntilMs > nowMs;
    if (isHeld && known.identity !== identity) return { kind: "taken", untilMs: known.quarantineUntilMs };
    if (!isHeld) {
      this.#write("DELETE FROM names WHERE quarantine_until_ms <= ?", [nowMs]);
      const held = this.#rows("SELECT count(*) AS held FROM names WHERE identity = ?", [identity])[0]?.["held"];
      if (Number(held) >= namesMax) return { kind: "limit", max: namesMax };
    }
    const leaseUntilMs = Math.max(nowMs + leaseMs, isHeld ? known.leaseUntilMs : 0);
    const record = { name, identity, leaseUntilMs, quarantineUntilMs: leaseUntilMs + quarantineMs };
    this.#write(
      `INSERT INTO names (name, identity, lease_until_ms, quarantine_until_ms) VALUES (?, ?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET lease_until_ms = excluded.lease_until_ms,
         quarantine_until_ms = excluded.quarantine_until_ms`,
      [name, identity, record.leaseUntilMs, record.quarantineUntilMs],
    );
    return { kind: "reserved", record };
  }

  findName(name: string): NameRecord | undefined {
    return this.#rows("SELECT * FROM names WHERE name = ?", [name]).map(nameOf)[0];
  }

  listNames(identity?: string): readonly NameRecord[] {
    return identity === undefined
      ? this.#rows("SELECT * FROM names ORDER BY name", []).map(nameOf)
      : this.#rows("SELECT * FROM names WHERE identity = ? ORDER BY name", [identity]).map(nameOf);
  }

  releaseName(name: string, identity: string, nowMs: number, quarantineMs: number): boolean {
    return this.#guard(() =>
      this.#database
        .transaction(() => {
          const known = this.findName(name);
          if (known === undefined || known.identity !== identity) return false;
          if (known.leaseUntilMs <= nowMs) return true; // the quarantine runs already and is not prolonged
          const sql = "UPDATE names SET lease_until_ms = ?, quarantine_until_ms = ? WHERE name = ? AND identity = ?";
          this.#write(sql, [nowMs, nowMs + quarantineMs, name, identity]);
          return true;
        })
        .immediate(),
    );
  }

  audit({ atMs, actor, action, subject }: AuditRecord): void {
    const insert = "INSERT INTO audit (at_ms, actor, action, subject) VALUES (?, ?, ?, ?)";
    this.#guard(() =>
      this.#database
        .transaction(() => {
          const { lastInsertRowid } = this.#write(insert, [atMs, actor, action, subject]);
          this.#write("DELETE FROM audit WHERE id <= ?", [Number(lastInsertRowid) - limits.auditRecordsMax]);
        })
        .immediate(),
    );
  }

  listAudit(limit: number): readonly AuditRecord[] {
    return this.#rows("SELECT * FROM audit ORDER BY id DESC LIMIT ?", [limit]).map((row) => ({
      atMs: Number(row["at_ms"]),
      actor: String(row["actor"]),
      action: String(row["action"]),
      subject: String(row["subject"]),
    }));
  }

  close(): void {
    this.#database.close();
  }

  #rows(sql: string, values: SQLQueryBindings[]): Row[] {
    return this.#guard(() => this.#database.query<Row, SQLQueryBindings[]>(sql).all(...values)); // query() keeps prepared statements
  }

  #write(sql: string, values: SQLQueryBindings[]): Changes {
    return this.#guard(() => this.#database.query(sql).run(...values));
  }

  /** A write to what the cached lists show. */
  #writeListed(sql: string, values: SQLQueryBindings[]): Changes {
    this.#cachedVersion = "";
    return this.#write(sql, values);
  }

  #guard<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw storeError(error, this.#path);
    }
  }

  /** data_version changes when another connection commits; our own writes go through #writeListed. */
  #forgetStale(): void {
    const other = this.#rows("PRAGMA data_version", [])[0]?.["data_version"];
    const version = String(other);
    if (version === this.#cachedVersion) return;
    this.#cachedVersion = version;
    this.#cachedTokens = undefined;
    this.#cachedEnrolments = undefined;
  }
}

function optionalNumber(value: string | number | null | undefined): number | undefined {
  return value === null || value === undefined ? undefined : Number(value);
}

function tokenOf(row: Row): TokenRecord {
  return {
    id: String(row["id"]),
    secretHash: String(row["secret_hash"]),
    identity: String(row["identity"]),
    label: String(row["label"]),
    // Written by addToken, and the schema checks that both are JSON.
    scope: { names: JSON.parse(String(row["names"])) as string[], ports: JSON.parse(String(row["ports"])) as number[] },
    createdMs: Number(row["created_ms"]),
    expiresMs: optionalNumber(row["expires_ms"]),
    revokedMs: optionalNumber(row["revoked_ms"]),
  };
}

function enrolmentOf(row: Row): EnrolmentRecord {
  return {
    keyFingerprint: String(row["key_fingerprint"]),
    tokenId: String(row["token_id"]),
    identity: String(row["identity"]),
    installation: String(row["installation"]),
    createdMs: Number(row["created_ms"]),
    renewedMs: Number(row["renewed_ms"]),
    expiresMs: Number(row["ends_ms"]),
    revokedMs: optionalNumber(row["revoked_ms"]),
  };
}

function nameOf(row: Row): NameRecord {
  return {
    name: String(row["name"]),
    identity: String(row["identity"]),
    leaseUntilMs: Number(row["lease_until_ms"]),
    quarantineUntilMs: Number(row["quarantine_until_ms"]),
  };
}
