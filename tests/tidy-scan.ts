/** What tests/tidy.test.ts finds in the text of a source file. Text in, findings out: no file is read here. */

const comment = String.raw`\/\/[^\n]*\n|\/\*[\s\S]*?\*\/`;
const gap = String.raw`(?:\s|${comment})*`;
const literal = String.raw`["']([^"'\n]+)["']`;

const statements = [
  // The names between the keyword and `from` may have comments among them, with anything in those.
  String.raw`^[ \t]*(?:import|export)\b(?:[\w$*,{}\s]|${comment})*?\bfrom${gap}${literal}`,
  String.raw`^[ \t]*import${gap}${literal}`,
  String.raw`\bimport\(${gap}${literal}${gap}[,)]`,
];
const importPattern = new RegExp(statements.join("|"), "gm");
const dynamicPattern = /\bimport\(/g;

/** Where the imports of a file lead, types included, as written. */
export function importsOf(text: string): string[] {
  return [...text.matchAll(importPattern)].map((match) => match[1] ?? match[2] ?? match[3] ?? "");
}

/** True when an `import()` names something that is known only when it runs. */
export function hasComputedImport(text: string): boolean {
  const plain = [...text.matchAll(importPattern)].filter((match) => match[3] !== undefined);
  return [...text.matchAll(dynamicPattern)].length > plain.length;
}

const environmentReads = [
  /\b(?:process|Bun|import\.meta)\s*\??\.\s*env\b/,
  /\b(?:process|Bun)\s*(?:\?\.)?\s*\[\s*["'`]env/,
  /\benv\b[^;]*\}\s*=\s*(?:globalThis\.)?(?:process|Bun)\s*[,;)]/,
  /\bimport\s*\{[^{}]*\benv\b[^{}]*\}\s*from\s*["']bun["']/,
];

/** The environment, however it is asked for. `node:process` has no other use here: `process` is global. */
export function readsEnvironment(text: string): boolean {
  const names = importsOf(text);
  return (
    names.includes("node:process") || names.includes("process") || environmentReads.some((read) => read.test(text))
  );
}

/** A test that is left out, or that leaves out all others; one that runs on some platforms only is neither. */
export function skipsTests(text: string): boolean {
  return /\b(?:test|it|describe)(?:\.\w+)*\.(?:only|skip|todo)\b/.test(text);
}
