/** Which names there can be, which a token allows, and the readable ones made for tunnels that ask for none. */

import { utf8Encode } from "../core/bytes.ts";
import { limits } from "../core/limits.ts";

/** Kept for the node itself and for what people would take for it. */
const reserved = new Set(
  (
    "admin administrator api app auth autoconfig autodiscover cdn dashboard dns edge ftp health hostmaster imap inspect " +
    "isatap link localhost login mail metrics mx node ns ns1 ns2 pop postmaster root sally sallyport security smtp sso " +
    "ssl status support tunnel webmaster wpad www"
  ).split(" "),
);

/** Why a name cannot be used; undefined when it can. A name is one host label (RFC 1123), lower case. */
export function nameFault(name: string): string | undefined {
  if (name.length === 0 || name.length > limits.nameBytes) return `a name has 1 to ${limits.nameBytes} characters`;
  if (!/^[a-z0-9-]+$/.test(name)) return "a name has lower-case letters, digits and hyphens only";
  if (name.startsWith("-") || name.endsWith("-")) return "a name neither begins nor ends with a hyphen";
  // "--" in this place marks internationalised labels (RFC 5890 §2.3.1), which can look like somebody else's name.
  if (name.startsWith("--", 2)) return "the third and fourth character are not both hyphens";
  if (reserved.has(name)) return `"${name}" is reserved`;
  return undefined;
}

/** True when a token with these patterns may claim the name. None at all means any name. */
export function allowsName(patterns: readonly string[], name: string): boolean {
  if (patterns.length === 0) return true;
  return patterns.some((pattern) => {
    return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
  });
}

/** What a generated name must begin with to be allowed; undefined when the patterns leave no room for one. */
export function generatedPrefix(patterns: readonly string[]): string | undefined {
  if (patterns.length === 0) return "";
  return patterns.find((pattern) => pattern.endsWith("*"))?.slice(0, -1);
}

const adjectives = (
  "amber bold brave breezy bright brisk calm candid clever cosmic cozy crisp daring deft eager early fancy fleet fresh " +
  "gentle giddy glad golden grand happy hardy hazel humble jolly keen kind lively loyal lucid lucky mellow merry mighty " +
  "misty neat nimble noble placid plucky polite proud quick quiet rapid rosy royal sandy sharp shiny silver smooth " +
  "snowy solid steady sunny swift tidy vivid warm witty"
).split(" ");
const nouns = (
  "acorn anchor badger beacon birch bison brook canyon cedar cliff comet coral crane creek dolphin dune ember falcon " +
  "fern finch fjord forest fox garden glacier grove harbor hawk heron island jasper juniper lagoon lake lantern lark " +
  "maple meadow mesa moon oak ocean orchid otter owl panda pebble pine planet prairie quartz raven reef ridge river " +
  "robin sparrow spruce summit thistle tiger valley walrus willow"
).split(" ");
const digits = "abcdefghijkmnpqrstuvwxyz23456789"; // 32, without those that look alike

/** `brave-otter-x7kq`, always the same for the same identity, key and attempt. */
export async function generateName(seed: { identity: string; stableKey: string; attempt: number }): Promise<string> {
  const text = JSON.stringify(["sallyport name 1", seed.identity, seed.stableKey, seed.attempt]);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", utf8Encode(text) as Uint8Array<ArrayBuffer>));
  const tail = [...hash.subarray(2, 6)].map((byte) => digits[byte % 32]).join("");
  return `${adjectives[hash[0]! % adjectives.length]}-${nouns[hash[1]! % nouns.length]}-${tail}`; // 32 bytes
}
