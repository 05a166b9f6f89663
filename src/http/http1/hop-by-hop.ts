/**
 * Removes the fields that belong to one connection (RFC 9110 §7.6.1) before a head goes to the next one. A visitor
 * cannot use Connection to remove what others rely on: fields that carry the message's meaning stay whatever it names.
 */

import { HeaderList, isNamed } from "../header-list.ts";
import { listMembers } from "./field-list.ts";

/** Stay even when Connection names them. */
const neverRemoved = new Set([
  "accept",
  "authorization",
  "cache-control",
  "content-encoding",
  "content-length",
  "content-location",
  "content-range",
  "content-type",
  "cookie",
  "date",
  "etag",
  "expect",
  "expires",
  "forwarded",
  "host",
  "location",
  "origin",
  "range",
  "referer",
  "set-cookie",
  "trailer",
  "user-agent",
  "vary",
  "via",
  "www-authenticate",
]);
const neverRemovedPrefixes = ["access-control-", "if-", "sally-", "sec-", "x-forwarded-"];

/**
 * A new list without hop-by-hop fields. `nominated` are the names that Connection lists, as the parser collected them.
 * With `keepsUpgrade` Upgrade stays, and Connection becomes `Upgrade` where it stood.
 */
export function withoutHopByHop(headers: HeaderList, nominated: readonly string[], keepsUpgrade: boolean): HeaderList {
  const { raw } = headers;
  const kept: string[] = [];
  let wroteConnection = !keepsUpgrade;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!; // pairs
    let value = raw[i + 1]!;
    switch (name.length) {
      case 2:
        if (isNamed(name, "te")) {
          if (!listMembers(value).includes("trailers")) continue;
          value = "trailers";
        }
        break;
      case 7:
        if (isNamed(name, "upgrade") && !keepsUpgrade) continue;
        break;
      case 10:
        if (isNamed(name, "keep-alive")) continue;
        if (isNamed(name, "connection")) {
          if (wroteConnection) continue;
          wroteConnection = true;
          value = "Upgrade";
        }
        break;
      case 11:
        if (isNamed(name, "sally-error")) continue; // what an edge says of its own reply
        break;
      case 16:
        if (isNamed(name, "proxy-connection")) continue;
        break;
      case 17:
        if (isNamed(name, "transfer-encoding")) continue;
        break;
      default:
    }
    if (nominated.length > 0 && isNominated(name, nominated)) continue;
    kept.push(name, value);
  }
  return new HeaderList(kept);
}

function isNominated(name: string, nominated: readonly string[]): boolean {
  const lowerCase = name.toLowerCase();
  if (lowerCase === "te" || lowerCase === "upgrade" || lowerCase === "connection") return false; // decided above
  if (!nominated.includes(lowerCase) || neverRemoved.has(lowerCase)) return false;
  return !neverRemovedPrefixes.some((prefix) => lowerCase.startsWith(prefix));
}
