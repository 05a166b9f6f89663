import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SallyError } from "../core/errors.ts";
import { lockData } from "./data-lock.ts";

function codeOf(work: () => unknown): string {
  try {
    work();
    return "none";
  } catch (error) {
    return error instanceof SallyError ? error.code : String(error);
  }
}

test("a data folder has one holder, and is free again once released", () => {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-lock-"));
  const path = join(folder, "node.lock");
  const first = lockData(path, 0);
  expect(codeOf(() => lockData(path, 0))).toBe("DATA_IN_USE");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  first.release();
  first.release();
  lockData(path, 0).release();
  rmSync(folder, { recursive: true });
});

test("a damaged lock is made anew", () => {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-lock-"));
  const path = join(folder, "node.lock");
  writeFileSync(path, "no database".repeat(1_000));
  const lock = lockData(path, 0);
  expect(codeOf(() => lockData(path, 0))).toBe("DATA_IN_USE");
  lock.release();
  rmSync(folder, { recursive: true });
});

test("a folder that is not there is said so", () => {
  expect(codeOf(() => lockData("/nonexistent/node.lock", 0))).toBe("STORE_FAILED");
});
