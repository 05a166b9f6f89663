/** Says in plain words what is wrong with a setting, where its schema has no words of its own. */

import type { z } from "zod";

const kinds: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "settings of its own, each as NAME: VALUE",
};

/** A message for the raw issue of a parse; undefined where zod's own is kept. */
export function explainIssue(issue: z.core.$ZodRawIssue): string | undefined {
  const { input } = issue;
  switch (issue.code) {
    case "invalid_type": {
      const wanted = kinds[issue.expected] ?? issue.expected;
      return input === undefined ? `missing: give ${wanted}` : `must be ${wanted}, not ${show(input)}`;
    }
    case "invalid_value":
      return `must be one of ${issue.values.map(String).join(", ")}, not ${show(input)}`;
    case "invalid_union":
      return input === undefined ? "missing" : `${show(input)} does not fit: docs/config.md says what does`;
    case "too_small":
      return `${show(input)} is too ${sizeOf(input, "small", "short")}: ${boundOf(input, "at least", issue.minimum)}`;
    case "too_big":
      return `${show(input)} is too ${sizeOf(input, "large", "long")}: ${boundOf(input, "at most", issue.maximum)}`;
    case "unrecognized_keys":
      return `unknown: ${issue.keys.join(", ")}; docs/config.md lists what there is`;
    case "custom":
    case "invalid_element":
    case "invalid_format":
    case "invalid_key":
    case "not_multiple_of":
  }
  return undefined;
}

function sizeOf(input: unknown, ofNumbers: string, ofOthers: string): string {
  return typeof input === "number" ? ofNumbers : ofOthers;
}

function boundOf(input: unknown, word: string, bound: number | bigint): string {
  if (typeof input === "number") return `give ${word} ${bound}`;
  return `give ${word} ${bound} ${Array.isArray(input) ? "of them" : "characters"}`;
}

/** Values can be long, and secrets stand in files of their own. */
function show(input: unknown): string {
  const text = Array.isArray(input) ? `a list of ${input.length}` : (JSON.stringify(input) ?? String(input));
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
