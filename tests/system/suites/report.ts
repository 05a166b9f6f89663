/** Writes what the suites said, with what is needed to run them again. */

export interface Outcome {
  readonly suite: string;
  readonly target: string;
  readonly revision: string;
  readonly summary: string;
  readonly failures: readonly string[];
  readonly command: string;
}

export interface ConformanceReport {
  readonly command: string;
  readonly commit: string;
  readonly date: string;
  readonly outcomes: readonly Outcome[];
  readonly missing: readonly string[];
}

const failuresShown = 20;

export function formatConformance({ command, commit, date, outcomes, missing }: ConformanceReport): string {
  const rows = outcomes.map((outcome) => [
    outcome.suite,
    outcome.target,
    outcome.summary.replaceAll("|", "/"),
    outcome.failures.length === 0 ? "passed" : `**${outcome.failures.length} failed**`,
  ]);
  const commands = new Map(outcomes.map(({ suite, command: own, revision }) => [suite, { own, revision }]));
  const parts = [
    "# Conformance",
    "Suites that others wrote, run from checkouts outside this repository against the public listener with the whole" +
      " tunnel behind it, and for comparison against the same origin alone and behind nginx.",
    `\`SALLY_SUITES=FOLDER ${command}\`, ${date}, commit ${commit}.`,
    table(["suite", "against", "result", ""], rows),
    ...(missing.length === 0 ? [] : [`Not run: ${missing.join("; ")}.`]),
    "## What is run",
    [...commands].map(([suite, { own, revision }]) => `- ${suite} (revision ${revision}): \`${own}\``).join("\n"),
    ...outcomes.filter(({ failures }) => failures.length > 0).map(describeFailures),
  ];
  return `${parts.join("\n\n")}\n`;
}

function describeFailures({ suite, target, failures }: Outcome): string {
  const lines = failures.slice(0, failuresShown).map((line) => `- ${line.replaceAll(/\s+/g, " ").slice(0, 300)}`);
  const more = failures.length > failuresShown ? [`- and ${failures.length - failuresShown} more`] : [];
  return [`## Failed: ${suite}, ${target}`, [...lines, ...more].join("\n")].join("\n\n");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((text, column) => Math.max(3, text.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (cells[column] ?? "").padEnd(width)).join(" | ")} |`;
  return [line(head), `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...rows.map(line)].join("\n");
}
