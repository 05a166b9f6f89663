/** Host names to addresses, fresh on every call: Bun's own connect caches names for 30 s, which hides a moved node. */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { SallyError } from "../core/errors.ts";

/** Addresses to try in order, families alternating (RFC 8305 §4). Rejects with the resolver's error. */
export async function resolveHost(host: string): Promise<readonly string[]> {
  const known = knownAddresses(host);
  if (known !== undefined) return known;
  const found = await lookup(host, { all: true, order: "verbatim" });
  return alternate(found);
}

/** As `resolveHost`, for who is to connect there. @throws SallyError CONNECT_FAILED, saying what is wrong with the name */
export async function findAddresses(host: string): Promise<readonly string[]> {
  try {
    const addresses = await resolveHost(host);
    if (addresses.length > 0) return addresses;
  } catch (cause) {
    throw new SallyError("CONNECT_FAILED", `the name ${host} was not found: check it and the network`, { cause });
  }
  throw new SallyError("CONNECT_FAILED", `the name ${host} has no address`);
}

/** Literals and localhost need no resolver; localhost may be listened on by either family only (RFC 6761 §6.3). */
export function knownAddresses(host: string): readonly string[] | undefined {
  if (isIP(host) !== 0) return [host];
  const lower = host.toLowerCase();
  return lower === "localhost" || lower.endsWith(".localhost") ? ["127.0.0.1", "::1"] : undefined;
}

/** Starts with the family that the resolver prefers. */
export function alternate(found: readonly { readonly address: string; readonly family: number }[]): string[] {
  const first = found.filter((entry) => entry.family === found[0]?.family);
  const second = found.filter((entry) => entry.family !== found[0]?.family);
  const order: string[] = [];
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    if (i < first.length) order.push(first[i]!.address);
    if (i < second.length) order.push(second[i]!.address);
  }
  return [...new Set(order)];
}
