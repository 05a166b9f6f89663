/** The shapes that configuration values share: addresses, durations, byte counts, names. All of them parse text. */

import { z } from "zod";
import type { Address } from "../core/address.ts";

const addressPattern = /^(?:\[(?<v6>[0-9a-fA-F:.]+)\]|(?<host>[^\s:/[\]]+)):(?<port>\d{1,5})$/;

/** Parses `HOST:PORT` or `[IPv6]:PORT`; undefined when it is neither, or the port is above 65535. */
export function parseAddress(text: string): Address | undefined {
  const groups = addressPattern.exec(text)?.groups;
  if (groups === undefined) return undefined;
  const port = Number(groups["port"]);
  const host = groups["v6"] ?? groups["host"];
  return host === undefined || port > 65_535 ? undefined : { host, port };
}

/** `127.0.0.1:8080` as an address; port 0 means "pick one". */
export const addressField = z.string().transform((text, context): Address => {
  const address = parseAddress(text);
  if (address !== undefined) return address;
  context.addIssue({ code: "custom", message: `"${text}" is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080` });
  return z.NEVER;
});

/** An address on loopback, or every address of the machine. */
export const adminAddressField = addressField.refine(
  ({ host }) =>
    host === "localhost" || host === "::1" || host.startsWith("127.") || host === "0.0.0.0" || host === "::",
  "the admin port listens on loopback: use 127.0.0.1:PORT, or 0.0.0.0:PORT to show health and metrics to the network",
);

/** The name of a tunnel: one host label in lower case (RFC 1123). */
export const nameField = z
  .string()
  .toLowerCase()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, "a name has 1 to 63 letters, digits and hyphens, as in a host name");

/** A domain: labels with dots, lower case, without a trailing dot. */
export const domainField = z
  .string()
  .toLowerCase()
  .max(253)
  .regex(
    /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/,
    "a domain looks like tunnels.example.com",
  );

/** A positive whole number with an upper bound. */
export function countField(max: number): z.ZodNumber {
  return z.number().int().min(1).max(max);
}
