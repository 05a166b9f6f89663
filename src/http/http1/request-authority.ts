/** Checks the form of a request target and the host it names, so that no later part can read them differently. */

import { charClass, digitBit, hostBit, isAll } from "./char-class.ts";
import type { Refuse } from "./field-list.ts";

/**
 * The host and optional port of an authority in lower case; undefined if it is not exactly `host`, `host:port`,
 * `[v6]` or `[v6]:port`. User names, empty or overlong ports, percent-encoding and lists are no hosts here.
 */
export function parseAuthority(value: string): string | undefined {
  if (value.length === 0 || value.length > 261) return undefined; // 255 of name, colon, five of port
  let hostEnd = 0;
  if (value.charCodeAt(0) === 91) {
    hostEnd = value.indexOf("]") + 1;
    if (!isIpv6(value.slice(1, hostEnd - 1))) return undefined;
  } else {
    while (hostEnd < value.length && ((charClass[value.charCodeAt(hostEnd)] ?? 0) & hostBit) !== 0) hostEnd++;
    if (hostEnd === 0 || value.charCodeAt(0) === 46) return undefined;
    if (value.slice(0, hostEnd).includes("..")) return undefined;
  }
  if (hostEnd < value.length && !isPort(value, hostEnd)) return undefined;
  return value.toLowerCase();
}

function isPort(value: string, colon: number): boolean {
  if (value.charCodeAt(colon) !== 58) return false;
  const port = value.slice(colon + 1);
  return port.length <= 5 && isAll(port, digitBit) && port.charCodeAt(0) !== 48 && Number(port) <= 65_535;
}

/** RFC 4291 §2.2 without zones: eight groups, or fewer with one `::`; the last two may be dotted IPv4. */
function isIpv6(text: string): boolean {
  const dotted = /:([0-9]{1,3}(?:\.[0-9]{1,3}){3})$/.exec(text);
  if (dotted !== null && dotted[1]!.split(".").some((octet) => Number(octet) > 255)) return false; // group 1 takes part
  const hex = dotted === null ? text : `${text.slice(0, dotted.index + 1)}0:0`;
  if (!/^[0-9A-Fa-f:]+$/.test(hex)) return false;
  const halves = hex.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  if (groups.some((group) => group.length < 1 || group.length > 4)) return false;
  return halves.length === 2 ? groups.length <= 7 : groups.length === 8;
}

/**
 * Checks the target's form against the method (RFC 9112 §3.2). Returns the authority that an absolute-form target
 * names, undefined for the other forms.
 */
export function checkTarget(method: string, target: string, refuse: Refuse): string | undefined {
  if (target.charCodeAt(0) === 47) return undefined; // origin-form
  if (target === "*") {
    if (method !== "OPTIONS") throw refuse("the target * belongs to OPTIONS only");
    return undefined;
  }
  const match = /^https?:\/\/([^/?]*)(?:[/?]|$)/i.exec(target);
  const authority = match === null ? undefined : parseAuthority(match[1]!); // group 1 always takes part
  if (authority === undefined) throw refuse("the target is neither a path nor an http or https URL with a plain host");
  return authority;
}
