/**
 * Runs the static checks and, unless `--static` is given, the tests of the named folders; prints the true totals as
 * "N passed, N failed" and ends with 1 when anything failed. Each static check counts as one test.
 */

import { tmpdir } from "node:os";
import { join } from "node:path";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

const root = join(import.meta.dir, "..");
const bin = (name: string): string => join(root, "node_modules", ".bin", name);

const staticChecks: readonly (readonly [string, readonly string[]])[] = [
  ["types", [bin("tsc"), "-p", "tsconfig.json"]],
  ["types of portable rooms", [bin("tsc"), "-p", "tsconfig.portable.json"]],
  ["lint", [bin("oxlint"), "--type-aware", "--deny-warnings"]],
  ["format", [bin("oxfmt"), "--check", "."]],
  ["unused code and packages", [bin("knip")]],
];

async function run(command: readonly string[]): Promise<number> {
  const child = Bun.spawn([...command], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  return await child.exited;
}

async function runStaticChecks(totals: Totals): Promise<void> {
  for (const [name, command] of staticChecks) {
    const isGood = (await run(command)) === 0;
    process.stdout.write(`${isGood ? "(pass)" : "(fail)"} ${name}\n`);
    if (isGood) totals.passed++;
    else totals.failed++;
  }
}

/** Adds up the attributes of the outermost element of a JUnit report. */
function addReport(xml: string, totals: Totals): void {
  const attributes = /<testsuites\b([^>]*)>/.exec(xml)?.[1] ?? "";
  const count = (name: string): number => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(attributes)?.[1] ?? 0);
  totals.failed += count("failures");
  totals.skipped += count("skipped");
  totals.passed += count("tests") - count("failures") - count("skipped");
}

async function runTests(folders: readonly string[], totals: Totals): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "sallyport-report-"));
  const report = join(scratch, "report.xml");
  const before = totals.failed;
  const paths = folders.map((folder) => `./${folder}`);
  const exitCode = await run([
    process.execPath,
    "test",
    "--timeout=120000",
    "--reporter=junit",
    `--reporter-outfile=${report}`,
    ...paths,
  ]);
  try {
    addReport(readFileSync(report, "utf8"), totals);
  } catch {
    process.stderr.write(`the test run left no report: it broke off with status ${exitCode}\n`);
  }
  rmSync(scratch, { recursive: true });
  if (exitCode !== 0 && totals.failed === before) totals.failed++; // a crash or an error outside of any test
}

const args = process.argv.slice(2);
const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
if (args.includes("--static")) await runStaticChecks(totals);
const folders = args.filter((arg) => !arg.startsWith("--"));
if (folders.length > 0) await runTests(folders, totals);
const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : "";
process.stdout.write(`\n${totals.passed} passed, ${totals.failed} failed${skipped}\n`);
process.exit(totals.failed > 0 || totals.passed === 0 ? 1 : 0);
