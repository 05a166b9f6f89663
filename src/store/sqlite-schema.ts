/** The tables, as a list of steps that is only ever appended to: user_version says how many of them a file has had. */

import type { Database } from "bun:sqlite";
import { SallyError } from "../core/errors.ts";

/** "Sall": tells our files from other programs' databases. */
const applicationId = 0x53616c6c;

const steps = [
  `
  CREATE TABLE tokens (
    id TEXT PRIMARY KEY NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL CHECK (identity <> ''),
    label TEXT NOT NULL,
    names TEXT NOT NULL CHECK (json_valid(names)),
    ports TEXT NOT NULL CHECK (json_valid(ports)),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE enrolments (
    key_fingerprint TEXT PRIMARY KEY NOT NULL,
    token_id TEXT NOT NULL,
    identity TEXT NOT NULL CHECK (identity <> ''),
    installation TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    renewed_ms INTEGER NOT NULL,
    revoked_ms INTEGER
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE names (
    name TEXT PRIMARY KEY NOT NULL,
    identity TEXT NOT NULL CHECK (identity <> ''),
    lease_until_ms INTEGER NOT NULL,
    quarantine_until_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX names_by_identity ON names (identity);
  CREATE INDEX names_by_end ON names (quarantine_until_ms);
  CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL
  ) STRICT;
  `,
  `
  ALTER TABLE enrolments ADD COLUMN expires_ms INTEGER;
  CREATE INDEX enrolments_by_token ON enrolments (token_id);
  CREATE INDEX enrolments_by_end ON enrolments (coalesce(expires_ms, renewed_ms + 31536000000));
  `,
] as const;

/** Brings a file up to date in one transaction. @throws SallyError STORE_FAILED for newer and foreign files */
export function migrate(database: Database, path: string): void {
  if (numberOf(database, "PRAGMA user_version") === steps.length && isOurs(database)) return;
  database
    .transaction(() => {
      const version = numberOf(database, "PRAGMA user_version"); // again: another process may have been faster
      if (!isOurs(database) && numberOf(database, "SELECT count(*) FROM sqlite_schema") > 0) {
        throw new SallyError("STORE_FAILED", `${path} is another program's database: choose another data folder`);
      }
      if (version > steps.length) {
        const advice = "update this program, or choose another data folder";
        throw new SallyError("STORE_FAILED", `${path} was written by a newer version: ${advice}`);
      }
      for (const step of steps.slice(version)) database.run(step);
      database.run(`PRAGMA application_id = ${applicationId}`);
      database.run(`PRAGMA user_version = ${steps.length}`);
    })
    .exclusive();
}

function isOurs(database: Database): boolean {
  return numberOf(database, "PRAGMA application_id") === applicationId;
}

function numberOf(database: Database, sql: string): number {
  const row = database.query<Record<string, number>, []>(sql).get();
  return Object.values(row ?? {})[0] ?? 0;
}
