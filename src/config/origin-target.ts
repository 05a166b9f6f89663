/** What a tunnel points to: PORT, HOST:PORT, http(s)://HOST[:PORT][/prefix] or unix:PATH, parsed once. */

import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { formatAddress } from "../core/address.ts";
import { isHostField, isPathPrefix } from "../core/uri-syntax.ts";
import { parseAddress } from "./fields.ts";

export interface OriginTarget {
  readonly endpoint:
    | { readonly kind: "tcp"; readonly host: string; readonly port: number }
    | { readonly kind: "unix"; readonly path: string };
  /** TLS to the origin, with its certificate verified. */
  readonly isTls: boolean;
  /**
   * Put before every request target; without a slash at the end, empty for none. No boundary: targets are not normalised,
   * so an origin that resolves `..` may be led out of it.
   */
  readonly pathPrefix: string;
  /** How people write it: `localhost:3000`. */
  readonly label: string;
  /** What the Host field says when it is rewritten: the default port of the scheme is left out. */
  readonly hostHeader: string;
}

function usage(text: string, why: string): SallyError {
  return new SallyError(
    "USAGE",
    `"${text}" is not a target (${why}): use PORT, HOST:PORT, http(s)://HOST[:PORT][/prefix] or unix:PATH`,
  );
}

/** By hand: `/\/+$/` looks at a run of slashes once for each of them. */
function withoutEndSlashes(path: string): string {
  let end = path.length;
  while (end > 0 && path.charCodeAt(end - 1) === 0x2f) end--;
  return path.slice(0, end);
}

function tcpTarget(host: string, port: number, isTls: boolean, pathPrefix: string): OriginTarget {
  const label = formatAddress({ host, port });
  const isDefaultPort = port === (isTls ? 443 : 80);
  const hostHeader = isDefaultPort ? label.slice(0, label.lastIndexOf(":")) : label;
  return { endpoint: { kind: "tcp", host, port }, isTls, pathPrefix, label, hostHeader };
}

function parseUrl(text: string): OriginTarget {
  // URL drops line breaks and tabs without a word.
  if (/\p{Cc}/u.test(text)) throw usage(text, "it holds a control character");
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined) throw usage(text, "the URL is malformed");
  if (url.username !== "" || url.password !== "") throw usage(text, "a target holds no user or password");
  if (url.search !== "" || url.hash !== "") throw usage(text, "a target has no query or fragment");
  const isTls = url.protocol === "https:";
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = url.port === "" ? (isTls ? 443 : 80) : Number(url.port);
  return tcpTarget(host, port, isTls, withoutEndSlashes(url.pathname));
}

/** @throws SallyError USAGE with the forms that are understood */
export function parseOriginTarget(text: string): OriginTarget {
  const target = readTarget(text);
  if (target.hostHeader.length > limits.hostFieldChars) throw usage(text, "its host is too long");
  if (target.pathPrefix.length > limits.pathPrefixChars) {
    throw usage(text, `its path has more than ${limits.pathPrefixChars} characters`);
  }
  // Both go into request heads as they are.
  if (!isHostField(target.hostHeader)) throw usage(text, "a host name is ASCII: write others as xn--…");
  if (!isPathPrefix(target.pathPrefix)) {
    throw usage(text, "percent-encode what stands in its path besides letters, digits and -._~!$&'()*+,;=:@");
  }
  return target;
}

function readTarget(text: string): OriginTarget {
  if (/^https?:\/\//i.test(text)) return parseUrl(text);
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "") throw usage(text, "the path is missing");
    return { endpoint: { kind: "unix", path }, isTls: false, pathPrefix: "", label: text, hostHeader: "localhost" };
  }
  const address = /^\d+$/.test(text) ? parseAddress(`localhost:${text}`) : parseAddress(text);
  if (address === undefined) throw usage(text, "the port is missing or out of range");
  if (address.port === 0) throw usage(text, "port 0 is nobody's");
  return tcpTarget(address.host, address.port, false, "");
}
