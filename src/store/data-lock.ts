/**
 * Tells whether another node uses a data folder. The lock is SQLite's own file lock on an empty database, so it is gone when the process
 * is, whatever ended it.
 */

import { Database } from "bun:sqlite";
import { chmodSync, closeSync, openSync, truncateSync } from "node:fs";
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
  try {
    return takeLock(path, waitMs);
  } catch (cause) {
    if (codeOf(cause) === "SQLITE_BUSY") {
      throw new SallyError("DATA_IN_USE", `another node uses ${path}: stop it, or pass another --data`, { cause });
    }
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new SallyError(
      "STORE_FAILED",
      `cannot lock ${path} (${why}): check the folder, its permissions and its space`,
      {
        cause,
      },
    );
  }
}

function codeOf(thrown: unknown): unknown {
  return thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
}

function takeLock(path: string, waitMs: number): DataLock {
  let database: Database | undefined;
  try {
    closeSync(openSync(path, "a", 0o600));
    chmodSync(path, 0o600);
    database = new Database(path);
    database.run(`PRAGMA busy_timeout = ${waitMs}`);
    database.run("BEGIN EXCLUSIVE");
  } catch (cause) {
    database?.close();
    if (codeOf(cause) !== "SQLITE_NOTADB") throw cause;
    truncateSync(path); // damaged, and nothing is ever in it; the same file, so that a lock on it stays one
    return takeLock(path, waitMs);
  }
  const held = database;
  return { release: () => held.close() };
}
