/** The house rules of CONTRIBUTING.md that a compiler does not check. */

import { describe, expect, test } from "bun:test";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";
import { errorTable } from "../src/core/errors.ts";
import { limits } from "../src/core/limits.ts";
import { dependencies, fileLinesMax, rooms } from "./tidy-rules.ts";
import { hasComputedImport, importsOf, readsEnvironment, skipsTests } from "./tidy-scan.ts";

const root = join(import.meta.dir, "..");
const packageJson: { dependencies: Record<string, string>; devDependencies: Record<string, string> } = await Bun.file(
  join(root, "package.json"),
).json();

interface SourceFile {
  readonly path: string;
  readonly room: string;
  readonly isTest: boolean;
  readonly text: string;
  readonly imports: readonly string[];
}

async function readSources(): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  for await (const path of new Glob("src/**/*.{ts,tsx}").scan(root)) {
    const text = await Bun.file(join(root, path)).text();
    files.push({
      path,
      room: path.split("/")[1] ?? "",
      isTest: path.endsWith(".test.ts"),
      text,
      imports: importsOf(text),
    });
  }
  return files;
}

const sources = await readSources();

/**
 * `src/a/b.ts` importing `../c/d.ts` gives room `c`, and `../../tests/x.ts` gives `tests`, which is no room; undefined for
 * packages and package.json.
 */
function roomOf(file: Pick<SourceFile, "path">, specifier: string): string | undefined {
  if (!specifier.startsWith(".")) return undefined;
  const target = normalize(join(dirname(file.path), specifier));
  if (target === "package.json") return undefined;
  const [folder, room] = target.split("/");
  return folder === "src" ? room : folder;
}

describe("floors", () => {
  test("every file stands in a known room", () => {
    expect(sources.filter((file) => rooms[file.room] === undefined).map((file) => file.path)).toEqual([]);
  });

  test("imports point down, and rooms on one floor do not import each other", () => {
    const wrong: string[] = [];
    for (const file of sources) {
      for (const specifier of file.imports) {
        const target = roomOf(file, specifier);
        if (target === undefined || target === file.room) continue;
        const from = rooms[file.room];
        const to = rooms[target];
        const allowed = from !== undefined && to !== undefined && (to.floor < from.floor || file.isTest);
        if (!allowed) wrong.push(`${file.path} imports ${specifier}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("what is imported can be read from the text", () => {
    expect(sources.filter(({ text }) => hasComputedImport(text)).map((file) => file.path)).toEqual([]);
  });

  test("portable rooms name no runtime", () => {
    const wrong: string[] = [];
    for (const file of sources) {
      if (file.isTest || rooms[file.room]?.isPortable !== true) continue;
      for (const specifier of file.imports) {
        if (/^(node|bun)(:|$)/.test(specifier)) wrong.push(`${file.path} imports ${specifier}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("the portable rooms are those that the compiler checks without runtime types", async () => {
    const config: { include: string[] } = await Bun.file(join(root, "tsconfig.portable.json")).json();
    const portable = Object.entries(rooms).filter(([, room]) => room.isPortable);
    expect(config.include.toSorted()).toEqual(portable.map(([name]) => `src/${name}`).toSorted());
  });
});

describe("dependencies", () => {
  test("each package is used only in the rooms that may, with a reason", () => {
    const wrong: string[] = [];
    for (const file of sources) {
      if (file.isTest) continue;
      for (const specifier of file.imports) {
        if (specifier.startsWith(".") || /^(node|bun):/.test(specifier) || specifier === "bun") continue;
        const name = specifier.startsWith("@") ? specifier.split("/").slice(0, 2).join("/") : specifier.split("/")[0];
        if (dependencies[name ?? ""]?.rooms.includes(file.room) !== true)
          wrong.push(`${file.path} imports ${specifier}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("every run-time package is in the table, at an exact version", () => {
    expect(Object.keys(packageJson.dependencies).toSorted()).toEqual(Object.keys(dependencies).toSorted());
    for (const version of Object.values({ ...packageJson.dependencies, ...packageJson.devDependencies })) {
      expect(version).toMatch(/^\d+\.\d+\.\d+/);
    }
  });

  test("the lock file has an entry for every platform's package, or npm ci refuses it", async () => {
    interface Locked {
      readonly version?: string;
      readonly optionalDependencies?: Readonly<Record<string, string>>;
    }
    const lock: { packages: Record<string, Locked> } = await Bun.file(join(root, "package-lock.json")).json();
    const locked = Object.keys(lock.packages).filter(
      (path) => path === "" || lock.packages[path]?.version !== undefined,
    );
    const missing = Object.values(lock.packages)
      .flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}))
      .filter((name) => !locked.some((path) => path.endsWith(`node_modules/${name}`)));
    expect(missing).toEqual([]);
  });

  test("the lock file holds no address", async () => {
    expect(await Bun.file(join(root, "package-lock.json")).text()).not.toContain('"resolved": "http');
  });
});

describe("files", () => {
  test(`have at most ${fileLinesMax} lines and open with a comment that says what they hide`, () => {
    const wrong: string[] = [];
    for (const file of sources) {
      if (file.isTest) continue;
      if (file.text.split("\n").length > fileLinesMax + 1) wrong.push(`${file.path} is too long`);
      if (!/^(\/\*\*|\/\/|#!)/.test(file.text)) wrong.push(`${file.path} has no opening comment`);
    }
    expect(wrong).toEqual([]);
  });

  test("are not barrels, have no default export, and are not called utils", () => {
    const wrong = sources.filter(
      (file) => /\/(index|utils?|helpers?)\.ts$/.test(file.path) || /^export (default|\* from)/m.test(file.text),
    );
    expect(wrong.map((file) => file.path)).toEqual([]);
  });

  test("read the environment in one place only", () => {
    const readers = sources.filter((file) => !file.isTest && readsEnvironment(file.text));
    expect(readers.map((file) => file.path).filter((path) => path !== "src/apps/load-config.ts")).toEqual([]);
  });

  test("hold no silenced type and no unfinished note", () => {
    const banned = /@ts-(ignore|nocheck)|\bas any\b|\b(TO|FIX)(DO|ME)\b/; // split: this file is not searched, its text may be
    expect(sources.filter((file) => banned.test(file.text)).map((file) => file.path)).toEqual([]);
  });

  test("skip no test", async () => {
    const wrong: string[] = [];
    for await (const path of new Glob("{src,tests}/**/*.{ts,tsx}").scan(root)) {
      if (skipsTests(await Bun.file(join(root, path)).text())) wrong.push(path);
    }
    expect(wrong).toEqual([]);
  });
});

describe("tables", () => {
  test("wire codes of errors are unique", () => {
    const codes = Object.values(errorTable).map((row) => row.wire);
    expect(new Set(codes).size).toBe(codes.length);
  });

  test("every error code is used, and is in docs/errors.md", async () => {
    const text = sources.map((file) => (file.path === "src/core/errors.ts" ? "" : file.text)).join("\n");
    const page = await Bun.file(join(root, "docs/errors.md")).text();
    const codes = Object.keys(errorTable);
    expect(codes.filter((code) => !text.includes(`"${code}"`))).toEqual([]);
    expect(codes.filter((code) => !page.includes(`\`${code}\``))).toEqual([]);
  });

  test("every limit is used", () => {
    const text = sources.map((file) => (file.path === "src/core/limits.ts" ? "" : file.text)).join("\n");
    expect(Object.keys(limits).filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual([]);
  });
});

describe("these rules", () => {
  test("see every kind of import", () => {
    const found = (text: string): string[] => importsOf(text);
    expect(
      found('import "a";\nimport b, { type C } from "b";\nimport * as d from \'d\';\nimport type { E } from "e";'),
    ).toEqual(["a", "b", "d", "e"]);
    expect(found('export { f } from "f";\nexport * from "g";\nconst h = await import("h");')).toEqual(["f", "g", "h"]);
    expect(found('import {\n  a, // one; "two", `three`\n  /* four\'s; */ b,\n} from "c";\n')).toEqual(["c"]);
    expect(found('export const a = 1;\nimport "b";\nexport function c() {}\nexport { d } from "e";')).toEqual([
      "b",
      "e",
    ]);
    expect(found('const text = "not taken from \'a\'";\n// import b from "b"\n')).toEqual([]);
  });

  test("know which imports cannot be seen", () => {
    expect(hasComputedImport('await import("./a.ts"), import( /* why */ "./b.ts")')).toBe(false);
    for (const argument of ["`./a.ts`", "name", '"./a" + name']) {
      expect(hasComputedImport(`await import("./b.ts");\nawait import(${argument});`)).toBe(true);
    }
  });

  test("take what is outside src for no room", () => {
    const file = { path: "src/agent/agent.ts" };
    const targets = [
      "./origin.ts",
      "../wire/link.ts",
      "../../tests/support/sally.ts",
      "../../scripts/demo.ts",
      "../../..",
    ];
    expect(targets.map((target) => roomOf(file, target))).toEqual(["agent", "wire", "tests", "scripts", ".."]);
    expect(["zod", "node:fs", "../../package.json"].map((target) => roomOf(file, target))).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  test("see each way to the environment", () => {
    const ways = [
      "process.env",
      "globalThis.process?.env",
      'Bun["env"]',
      "const { argv, env } = process;",
      "const { env: { HOME } } = Bun;",
      'import { env } from "node:process";',
      'import { argv, env as e } from "bun";',
      'import process from "node:process";',
    ];
    expect(ways.filter((way) => !readsEnvironment(way))).toEqual([]);
    expect(["process.exit(1)", "spawn({ env: {} })", "const { env } = options;"].filter(readsEnvironment)).toEqual([]);
  });

  test("see tests that are skipped", () => {
    const skipped = ["skip", "only", "todo", "skip.each", "concurrent.skip"].flatMap((how) => [
      `test.${how}(`,
      `describe.${how}(`,
    ]);
    expect(skipped.filter((text) => !skipsTests(text))).toEqual([]);
    expect(['test("x", () => {', "test.each([1])(", "test.skipIf(isMac)("].filter(skipsTests)).toEqual([]);
  });
});
