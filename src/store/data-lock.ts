/**
 * Tells whether another node uses a data folder. The lock is SQLite's own file lock on an empty database, so it is gone when the process
 * is, whatever ended it.
 */

import { Database } from "bun:sqlite";
import { chmodSync, closeSync, openSync } from "node:fs";
import { SallyError } from "../core/errors.ts";

export interface DataLock {
  /** Idempotent. */
  release(): void;
}

/**
 * Waits up to `waitMs` for another holder to go, blocking the process: call it before anything runs.
 * @throws SallyError DATA_IN_USE, STORE_FAILED
 */
export function lockData(path: string, waitMs: number): DataLock {
  let database: Database | undefined;
  try {
    closeSync(openSync(path, "a", 0o600));
    chmodSync(path, 0o600);
    database = new Database(path);
    database.run(`PRAGMA busy_timeout = ${waitMs}`);
    database.run("BEGIN EXCLUSIVE");
  } catch (cause) {
    database?.close();
    if (cause instanceof Error && "code" in cause && cause.code === "SQLITE_BUSY") {
      throw new SallyError("DATA_IN_USE", `another node uses ${path}: stop it, or pass another --data`, { cause });
    }
    throw new SallyError("STORE_FAILED", `cannot lock ${path}: check the folder and its permissions`, { cause });
  }
  const held = database;
  return { release: () => held.close() };
}
