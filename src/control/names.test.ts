import { describe, expect, test } from "bun:test";
import { allowsName, generatedPrefix, generateName, nameFault } from "./names.ts";

describe("names", () => {
  test("are one host label, at most 63 characters", () => {
    for (const name of ["a", "demo", "a-b", "a--b", "0", "a".repeat(63)]) expect(nameFault(name)).toBeUndefined();
    const wrong = [
      "",
      "a".repeat(64),
      "-a",
      "a-",
      "A",
      "a.b",
      "a_b",
      "a b",
      "ä",
      "a\n",
      "*",
      "xn--80ak6aa92e",
      "ab--c",
      "a/b",
    ];
    for (const name of wrong) expect(nameFault(name)).toBeString();
  });

  test("of the node itself are reserved", () => {
    for (const name of ["admin", "api", "www", "sally", "localhost"]) expect(nameFault(name)).toContain("reserved");
  });

  test("are allowed by patterns: exactly, by their beginning, or all when there is none", () => {
    expect(allowsName([], "any")).toBe(true);
    expect(allowsName(["*"], "any")).toBe(true);
    expect(allowsName(["demo"], "demo")).toBe(true);
    expect(allowsName(["demo"], "demo2")).toBe(false);
    expect(allowsName(["x", "ada-*"], "ada-1")).toBe(true);
    expect(allowsName(["ada-*"], "ada")).toBe(false);
    expect(allowsName(["ada-*"], "xada-1")).toBe(false);
  });

  test("are generated readable, stable, and apart for each identity, key and attempt", async () => {
    const seed = { identity: "ada", stableKey: "k", attempt: 0 };
    const name = await generateName(seed);
    expect(name).toMatch(/^[a-z]+-[a-z]+-[a-z2-9]{4}$/);
    expect(await generateName(seed)).toBe(name);
    const others = await Promise.all([
      generateName({ ...seed, identity: "eve" }),
      generateName({ ...seed, stableKey: "l" }),
      generateName({ ...seed, attempt: 1 }),
      generateName({ identity: "ad", stableKey: "ak", attempt: 0 }),
    ]);
    expect(new Set([name, ...others]).size).toBe(5);
    expect(nameFault(name)).toBeUndefined();
  });

  test("are generated under a pattern's beginning, where there is one", () => {
    expect(generatedPrefix([])).toBe("");
    expect(generatedPrefix(["x", "ada-*"])).toBe("ada-");
    expect(generatedPrefix(["x"])).toBeUndefined();
  });
});
