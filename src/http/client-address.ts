/**
 * Who asks, when proxies stand in between: what X-Forwarded-For says is believed as far as trusted proxies wrote it,
 * which is from its end to the first address that is none of theirs.
 */

import type { HeaderList } from "./header-list.ts";

/** The address of the client; `remote`, that of the connection, where no trusted proxy names another. */
export function clientAddress(
  remote: string,
  headers: HeaderList,
  isTrustedProxy: (address: string) => boolean,
): string {
  let client = remote;
  if (!isTrustedProxy(client)) return client;
  const named = headers.getAll("x-forwarded-for").join(",").split(",");
  for (const entry of named.toReversed()) {
    const address = plainAddress(entry.trim());
    if (address === undefined) return client;
    client = address;
    if (!isTrustedProxy(client)) return client;
  }
  return client;
}

/** Some proxies add the port, and then brackets around IPv6. Undefined for what is no address. */
function plainAddress(text: string): string | undefined {
  const [, inBrackets, v4] = /^(?:\[([\da-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+)(?::\d+)?)$/i.exec(text) ?? [];
  const address = inBrackets ?? v4 ?? text;
  if (address.includes(":")) {
    return /^[\da-f:.]+$/i.test(address) && URL.canParse(`http://[${address}]/`) ? address : undefined;
  }
  const octets = address.split(".");
  return octets.length === 4 && octets.every((octet) => /^\d{1,3}$/.test(octet) && Number(octet) <= 255)
    ? address
    : undefined;
}
