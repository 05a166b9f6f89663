/**
 * Runs the static checks, if `--static` is given, and the tests of the named folders; prints the true totals as
 * "N passed, N failed" and ends with 1 when anything failed. Each static check counts as one test.
 */

import { join } from "node:path";
import { finish, root, run, runTests, type Totals } from "./test-run.ts";

const bin = (name: string): string => join(root, "node_modules", ".bin", name);

const staticChecks: readonly (readonly [string, readonly string[]])[] = [
  ["types", [bin("tsc"), "-p", "tsconfig.json"]],
  ["types of portable rooms", [bin("tsc"), "-p", "tsconfig.portable.json"]],
  ["lint", [bin("oxlint"), "--type-aware", "--deny-warnings"]],
  ["format", [bin("oxfmt"), "--check", "."]],
  ["unused code and packages", [bin("knip")]],
  ["generated pages", [process.execPath, join(root, "scripts", "docs.ts"), "--check"]],
];

async function runStaticChecks(totals: Totals): Promise<void> {
  for (const [name, command] of staticChecks) {
    const isGood = (await run(command)) === 0;
    process.stdout.write(`${isGood ? "(pass)" : "(fail)"} ${name}\n`);
    if (isGood) totals.passed++;
    else totals.failed++;
  }
}

const args = process.argv.slice(2);
const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
if (args.includes("--static")) await runStaticChecks(totals);
const folders = args.filter((arg) => !arg.startsWith("--"));
if (folders.length > 0) await runTests(folders, totals);
finish(totals);
