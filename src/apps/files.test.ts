import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SallyError } from "../core/errors.ts";
import { readSecret, readText, writeText } from "./files.ts";

const folder = mkdtempSync(join(tmpdir(), "sallyport-files-"));
afterEach(() => {
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => "done",
    (error: unknown) => (error instanceof SallyError ? error.code : error),
  );
}

describe("a private file", () => {
  test("is read as it was written, with its folders made, and is its owner's alone", async () => {
    const path = join(folder, "a", "b", "key.pem");
    await writeText(path, "secret\n");
    expect(await readText(path)).toBe("secret\n");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, "a")).mode & 0o077).toBe(0);
  });

  test("is replaced as a whole, and nothing is left beside it", async () => {
    const path = join(folder, "token");
    await Promise.all(Array.from({ length: 20 }, (_, i) => writeText(path, String(i).repeat(1_000))));
    const text = (await readText(path)) ?? "";
    expect(new Set(text.match(/\d{1,2}/g)).size).toBeLessThanOrEqual(2);
    expect(text.length).toBeOneOf([1_000, 2_000]);
    expect(readdirSync(folder)).toEqual(["token"]);
  });

  test("keeps its mode when it replaces one that others could read", async () => {
    const path = join(folder, "token");
    writeFileSync(path, "old", { mode: 0o644 });
    await writeText(path, "new");
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("that others could read, such as one from a backup, is theirs no more, and that is said", async () => {
    const exposed: string[] = [];
    const path = join(folder, "ca.key");
    expect(await readSecret(path, (at) => exposed.push(at))).toBeUndefined();
    await writeText(path, "secret");
    expect(await readSecret(path, (at) => exposed.push(at))).toBe("secret");
    expect(exposed).toEqual([]);
    chmodSync(path, 0o644);
    expect(await readSecret(path, (at) => exposed.push(at))).toBe("secret");
    expect(await readSecret(path, (at) => exposed.push(at))).toBe("secret");
    expect(exposed).toEqual([path]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("does not follow a link that lies in its place", async () => {
    const victim = join(folder, "victim");
    writeFileSync(victim, "untouched");
    symlinkSync(victim, join(folder, "token"));
    await writeText(join(folder, "token"), "secret");
    expect(await readText(victim)).toBe("untouched");
    expect(await readText(join(folder, "token"))).toBe("secret");
  });

  test("that is not there is undefined; trouble is STORE_FAILED with the path", async () => {
    expect(await readText(join(folder, "nothing"))).toBeUndefined();
    writeFileSync(join(folder, "file"), "");
    expect(await codeOf(readText(folder))).toBe("STORE_FAILED");
    expect(await codeOf(writeText(join(folder, "file", "below"), "x"))).toBe("STORE_FAILED");
    const error = await writeText(join(folder, "file", "below"), "x").catch((thrown: unknown) => thrown);
    expect(String(error)).toContain(join(folder, "file", "below"));
  });
});
