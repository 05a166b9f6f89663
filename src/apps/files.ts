/**
 * Files that must survive a power cut and stay private: written beside their place, synced, then renamed over it, with
 * the mode set before the first byte is in them.
 */

import { chmod, mkdir, open, readFile, rename, stat, unlink } from "node:fs/promises";
import { randomUUID } from "node:crypto";
import { dirname, join } from "node:path";
import { SallyError } from "../core/errors.ts";

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function storeError(path: string, what: string, cause: unknown): SallyError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new SallyError("STORE_FAILED", `cannot ${what} ${path} (${why}): check the folder and its permissions`, {
    cause,
  });
}

/** The text of a file, or undefined when there is none. @throws SallyError STORE_FAILED */
export async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw storeError(path, "read", error);
  }
}

/** As `readText`, of a secret: a mode that lets others at it, such as a copied backup has, is mended and reported. */
export async function readSecret(path: string, onExposed: (path: string) => void): Promise<string | undefined> {
  const text = await readText(path);
  if (text === undefined) return undefined;
  const { mode } = await stat(path);
  if ((mode & 0o077) === 0) return text;
  onExposed(path);
  await chmod(path, mode & 0o700).catch(() => undefined); // a mounted secret is not ours to change: it was reported
  return text;
}

/** Replaces a file atomically; its folder is made, private, when absent. @throws SallyError STORE_FAILED */
export async function writeText(path: string, text: string, mode = 0o600): Promise<void> {
  const folder = dirname(path);
  const draft = join(folder, `.${randomUUID()}.tmp`);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = await open(draft, "wx", mode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await chmod(draft, mode);
    await rename(draft, path);
    await syncFolder(folder);
  } catch (error) {
    await unlink(draft).catch(() => undefined); // gone already, or never made: the first error tells
    throw storeError(path, "write", error);
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
