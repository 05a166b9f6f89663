/** Runs test files with Bun and counts truly: from the report, so that a run which breaks off counts as failed. */

import { tmpdir } from "node:os";
import { join } from "node:path";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";

export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

export const root: string = join(import.meta.dir, "..");

/** The status of a command that speaks for itself. */
export async function run(command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<number> {
  const child = Bun.spawn([...command], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit"],
  });
  return await child.exited;
}

/** Adds up the attributes of the outermost element of a JUnit report. */
function addReport(xml: string, totals: Totals): void {
  const attributes = /<testsuites\b([^>]*)>/.exec(xml)?.[1] ?? "";
  const count = (name: string): number => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(attributes)?.[1] ?? 0);
  totals.failed += count("failures");
  totals.skipped += count("skipped");
  totals.passed += count("tests") - count("failures") - count("skipped");
}

/** Runs files, or all tests of folders, given from the root of the repository. */
export async function runTests(paths: readonly string[], totals: Totals): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "sallyport-report-"));
  const report = join(scratch, "report.xml");
  const before = totals.failed;
  const flags = ["--timeout=120000", "--reporter=junit", `--reporter-outfile=${report}`];
  const exitCode = await run([process.execPath, "test", ...flags, ...paths.map((path) => `./${path}`)]);
  try {
    addReport(readFileSync(report, "utf8"), totals);
  } catch {
    process.stderr.write(`the test run left no report: it broke off with status ${exitCode}\n`);
  }
  rmSync(scratch, { recursive: true });
  if (exitCode !== 0 && totals.failed === before) totals.failed++; // a crash or an error outside of any test
}

/** Prints the totals as the last line and ends the process: 1 when anything failed, or nothing was run. */
export function finish({ passed, failed, skipped }: Totals): never {
  process.stdout.write(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`);
  process.exit(failed > 0 || passed === 0 ? 1 : 0);
}
