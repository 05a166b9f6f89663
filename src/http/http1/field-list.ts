/** Cuts checked field lines into the alternating names and values of a HeaderList. */

import type { SallyError } from "../../core/errors.ts";

/**
 * Fields of a scanned head from `from` to its empty line. The scanner has checked the bytes, so this only cuts; values
 * lose the white space around them and nothing else.
 */
export function cutFields(text: string, from: number, fieldCount: number): string[] {
  const raw: string[] = [];
  let at = from;
  for (let n = 0; n < fieldCount; n++) {
    const colon = text.indexOf(":", at);
    const lineEnd = text.indexOf("\r", colon);
    raw.push(text.slice(at, colon), sliceTrimmed(text, colon + 1, lineEnd));
    at = lineEnd + 2;
  }
  return raw;
}

/** Cuts without the white space at both ends. By hand: `/[ \t]+$/` looks at a run of blanks once for each of them. */
function sliceTrimmed(text: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

/** Without the spaces and tabs around it. */
export function trimBlanks(text: string): string {
  return sliceTrimmed(text, 0, text.length);
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9;
}

/** The lower-case members of a comma-separated list, without the empty ones. */
export function listMembers(value: string): string[] {
  const members: string[] = [];
  for (const member of value.split(",")) {
    const trimmed = trimBlanks(member).toLowerCase();
    if (trimmed !== "") members.push(trimmed);
  }
  return members;
}

/** Makes the error for a malformed message; who sent it decides the code. */
export type Refuse = (what: string) => SallyError;

/** RFC 9110 §8.6, strictly: 1 to 15 digits, nothing else. */
export function parseContentLength(value: string, refuse: Refuse): number {
  if (!/^[0-9]{1,15}$/.test(value)) throw refuse("Content-Length is not a plain number of at most 15 digits");
  return Number(value);
}
