/**
 * smuggler: hundreds of ways to write Transfer-Encoding next to Content-Length, to find a front and a back that disagree
 * about where a request ends. On top of the tool's own verdict the origin looks at every byte that reaches it.
 */

import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { execute, type Entry, type Suite, type SuiteEnvironment, type SuiteResult } from "./suite.ts";
import { startStrictOrigin } from "./strict-origin.ts";

const configurations = ["default", "doubles", "exhaustive"] as const;
const replySeconds = 3;
const timeoutMs = 3_600_000;

export const smuggler: Suite = {
  name: "smuggler",
  title: `smuggler, request smuggling: ${configurations.join(", ")}`,
  checkout: "smuggler",
  source: "github.com/defparam/smuggler",
  missing: async ({ python }) => {
    const { code } = await execute([python, "--version"], { timeoutMs: 10_000 });
    return code === 0 ? undefined : `Python 3 (${python})`;
  },
  startOrigin: startStrictOrigin,
  needsFront: true,
  run,
};

async function run(entry: Entry, environment: SuiteEnvironment): Promise<SuiteResult> {
  const results = await Promise.all(configurations.map((name) => runConfiguration(name, entry, environment)));
  const { complaints, requestCount } = environment.origin;
  const findings = results.flatMap((result) => result.findings);
  const counts = results.map(({ name, attempts, findings: own }) => `${name} ${own.length} of ${attempts}`).join(", ");
  const statuses = countStatuses(results.flatMap((result) => result.outcomes));
  return {
    summary: `findings: ${counts}; replies: ${statuses}; the origin saw ${requestCount} requests and ${complaints.length} it should not have`,
    failures: [...findings, ...complaints],
    command: `python3 smuggler.py -u http://HOST:PORT/ -v NAME -t ${replySeconds} --no-color -c CONFIG.py`,
  };
}

/** Which statuses the attempts were answered with: a pass in which nothing got through would say little. */
function countStatuses(outcomes: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const line of outcomes) {
    const replies = [...line.matchAll(/(?:TECL|CLTE): [\d.]+ - (\d{3})/g)].map((match) => match[1] ?? "");
    const kinds = replies.length > 0 ? replies : [/: ([A-Z ]+)/.exec(line)?.[1]?.trim().toLowerCase() ?? "other"];
    for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return [...counts]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([kind, count]) => `${count} × ${kind}`)
    .join(", ");
}

interface ConfigurationResult {
  readonly name: string;
  readonly attempts: number;
  readonly outcomes: readonly string[];
  readonly findings: readonly string[];
}

async function runConfiguration(
  name: string,
  entry: Entry,
  { checkout, scratch, python }: SuiteEnvironment,
): Promise<ConfigurationResult> {
  // The tool writes what it finds beside its own code, so it works in a copy.
  const copy = join(scratch, name);
  cpSync(checkout, copy, { recursive: true });
  const log = join(scratch, `${name}.log`);
  const target = ["-u", `http://${entry.host}:${entry.port}/`, "-v", entry.hostHeader];
  const settings = ["-t", String(replySeconds), "--no-color", "-l", log, "-c", `${name}.py`];
  const { code, output } = await execute([python, join(copy, "smuggler.py"), ...target, ...settings], { timeoutMs });
  const lines = readFileSync(log, "utf8").split("\n");
  const outcomes = lines.filter((line) => /^\[[^\]]+\]\s*: (OK|Potential|CLTE|TECL|DISC|SOCKET)/.test(line.trim()));
  if (code !== 0 || outcomes.length === 0) throw new Error(`smuggler did not run: ${output.trim().slice(-400)}`);
  const findings = outcomes.filter((line) => line.includes("Issue Found")).map((line) => `${name}: ${line.trim()}`);
  return { name, attempts: outcomes.length, outcomes, findings };
}
