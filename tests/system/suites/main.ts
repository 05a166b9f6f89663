/**
 * `npm run suites`: runs the conformance suites that others wrote and writes docs/conformance.md. Their code is never
 * part of this repository and nothing is fetched: $SALLY_SUITES names a folder with the checkouts, $SALLY_PYTHON a
 * Python 3 with what they import. What is missing is named and makes the run fail.
 */

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Scratch } from "../../support/sally.ts";
import { autobahn } from "./autobahn.ts";
import { h1spec } from "./h1spec.ts";
import { formatConformance, type Outcome } from "./report.ts";
import { smuggler } from "./smuggler.ts";
import { execute, type Suite, type SuiteResult } from "./suite.ts";
import { targets, type Target } from "./targets.ts";

const root = join(import.meta.dir, "..", "..", "..");
const suites: readonly Suite[] = [h1spec, autobahn, smuggler];
const ownHost = { name: "suite", domain: "localhost" };

const usage = `SALLY_SUITES=FOLDER npm run suites [-- OPTIONS]

  --only NAMES      ${suites.map(({ name }) => name).join(", ")} (default: all)
  --against NAMES   ${targets.map(({ name }) => name).join(", ")} (default: all)
  --output FILE     where the report goes (default docs/conformance.md for a full run, else only the screen)
`;

interface Selection {
  readonly suites: readonly Suite[];
  readonly targets: readonly Target[];
  readonly output: string | undefined;
}

function select(argv: readonly string[]): Selection {
  const { values } = parseArgs({
    args: [...argv],
    options: { only: { type: "string" }, against: { type: "string" }, output: { type: "string" } },
  });
  const isFull = values.only === undefined && values.against === undefined;
  return {
    suites: pick(suites, values.only),
    targets: pick(targets, values.against),
    output: values.output ?? (isFull ? join(root, "docs", "conformance.md") : undefined),
  };
}

function pick<T extends { readonly name: string }>(all: readonly T[], names: string | undefined): readonly T[] {
  if (names === undefined) return all;
  return names.split(",").map((name) => {
    const found = all.find((one) => one.name === name.trim());
    if (found === undefined) throw new Error(`there is no ${name}; there are ${all.map((one) => one.name).join(", ")}`);
    return found;
  });
}

/** A suite against a target, in a folder of its own. */
async function runOne(suite: Suite, target: Target, { checkout, python }: Place): Promise<SuiteResult> {
  using scratch = new Scratch();
  const origin = suite.startOrigin();
  try {
    await using open = await target.open({ originPort: origin.port, host: suite.host ?? ownHost });
    return await suite.run(open.entry, { checkout, python, origin, scratch: scratch.path });
  } catch (error) {
    const failure = error instanceof Error ? error.message : String(error);
    return { summary: "did not run", failures: [failure], command: "" };
  } finally {
    origin.stop();
  }
}

interface Place {
  readonly checkout: string;
  readonly python: string;
}

/** What keeps a suite from running, or undefined. */
async function whatIsMissing(suite: Suite, place: Place): Promise<string | undefined> {
  if (!existsSync(place.checkout)) return `${suite.name}: no checkout of ${suite.source} at ${place.checkout}`;
  using scratch = new Scratch();
  const origin = { port: 0, complaints: [], requestCount: 0, stop: () => {} };
  const reason = await suite.missing({ ...place, origin, scratch: scratch.path });
  return reason === undefined ? undefined : `${suite.name}: ${reason}`;
}

async function revisionOf(folder: string): Promise<string> {
  const { code, output } = await execute(["git", "-C", folder, "rev-parse", "--short", "HEAD"], { timeoutMs: 10_000 });
  return code === 0 ? output.trim() : "unknown";
}

async function main(): Promise<number> {
  let selection: Selection;
  try {
    selection = select(Bun.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`);
    return 2;
  }
  const folder = process.env["SALLY_SUITES"];
  if (folder === undefined) {
    process.stderr.write(`SALLY_SUITES is not set\n\n${usage}`);
    return 2;
  }
  const outcomes: Outcome[] = [];
  const missing: string[] = [];
  for (const suite of selection.suites) {
    const place = { checkout: join(folder, suite.checkout), python: process.env["SALLY_PYTHON"] ?? "python3" };
    const reason = await whatIsMissing(suite, place);
    if (reason !== undefined) {
      missing.push(reason);
      process.stderr.write(`missing: ${reason}\n`);
      continue;
    }
    const revision = await revisionOf(place.checkout);
    for (const target of selection.targets) {
      if (suite.needsFront === true && target.isOriginAlone === true) continue;
      process.stderr.write(`== ${suite.title} against ${target.title}\n`);
      const result = await runOne(suite, target, place);
      process.stderr.write(`${result.summary}\n${result.failures.slice(0, 20).join("\n")}\n`);
      outcomes.push({ suite: suite.title, target: target.title, revision, ...result });
    }
  }
  const command = ["npm run suites", ...(Bun.argv.length > 2 ? ["--", ...Bun.argv.slice(2)] : [])].join(" ");
  const date = new Date().toISOString().slice(0, 10);
  const text = formatConformance({ command, date, commit: await revisionOf(root), outcomes, missing });
  process.stdout.write(text);
  if (selection.output !== undefined) {
    mkdirSync(join(root, "docs"), { recursive: true });
    writeFileSync(selection.output, text);
  }
  const ours = outcomes.filter(({ target }) => target.startsWith("Sallyport"));
  const isGood = missing.length === 0 && ours.every(({ failures }) => failures.length === 0);
  return isGood ? 0 : 1;
}

process.exit(await main());
