/**
 * Who may call the admin API. Listening on loopback is not enough: a web page in the operator's browser can reach it
 * by a name that it rebinds to 127.0.0.1, or by a cross-site request, and so can any other user of the machine. So the
 * Host must be ours, no foreign page may be behind the request, and what changes something needs the admin token.
 */

import { equalConstantTime, hexDecode, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import type { Exchange } from "../http/exchange.ts";
import { sha256 } from "../trust/key-pair.ts";

export interface AdminGuardOptions {
  /** Lower-case hex SHA-256 of the admin token's text. */
  readonly adminTokenHash: string;
  /** The port we listen on; undefined when a proxy in front shows another. */
  readonly port: () => number | undefined;
}

/**
 * Refuses what did not come straight from a program of this machine or our own pages, also where the port is open to
 * the network. @throws SallyError MISDIRECTED, FORBIDDEN
 */
export function checkSource({ authority, scheme, request, connection }: Exchange, options: AdminGuardOptions): void {
  const { host, port } = splitAuthority(authority, scheme);
  const ownPort = options.port();
  const isOwn = isLoopbackHost(host) && (ownPort === undefined || port === ownPort);
  if (!isOwn) throw new SallyError("MISDIRECTED", "The admin API answers to http://127.0.0.1 and its port only.");
  if (!isLoopbackAddress(connection.remote.host)) {
    throw new SallyError("FORBIDDEN", "The admin API serves programs of its own machine only.");
  }
  const ownOrigin = `${scheme}://${authority}`;
  const isForeign = request.headers.getAll("origin").some((origin) => origin.toLowerCase() !== ownOrigin);
  const sites = request.headers.getAll("sec-fetch-site").map((site) => site.toLowerCase());
  if (isForeign || sites.some((site) => site !== "same-origin" && site !== "none")) {
    throw new SallyError("FORBIDDEN", "The admin API does not answer other web sites.");
  }
}

/**
 * For requests that change something: besides the token they carry what a cross-site form cannot send.
 * @throws SallyError FORBIDDEN
 */
export function checkIntent({ request }: Exchange): void {
  const type = request.headers.get("content-type")?.split(";", 1)[0]?.trim().toLowerCase();
  if (type === "application/json" || request.headers.get("sally-admin") === "1") return;
  const isPost = request.method === "POST"; // its body has to say what it is
  throw new SallyError(
    "FORBIDDEN",
    isPost ? "Send Content-Type: application/json." : "Send Sally-Admin: 1, or Content-Type: application/json.",
  );
}

/** @throws SallyError AUTH_FAILED without the admin token as bearer token */
export async function checkToken({ request }: Exchange, { adminTokenHash }: AdminGuardOptions): Promise<void> {
  const [field = "", ...others] = request.headers.getAll("authorization");
  const token = /^bearer +(\S+)$/i.exec(field)?.[1];
  if (token !== undefined && others.length === 0) {
    if (equalConstantTime(await sha256(utf8Encode(token)), hexDecode(adminTokenHash))) return;
  }
  throw new SallyError("AUTH_FAILED", "The line in DATA/admin.token is needed as bearer token.");
}

/** `localhost`, 127.0.0.0/8 and ::1, as they stand in a Host field; nothing that a name server could answer. */
export function isLoopbackHost(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127(?:\.(?:0|[1-9]\d{0,2})){3}$/.test(host);
}

/** An address in place of a name: no name server led here, so no page rebound its own name to us. */
export function isAddressedDirectly({ authority, scheme }: Exchange): boolean {
  const { host } = splitAuthority(authority, scheme);
  return isLoopbackHost(host) || host.startsWith("[") || /^\d{1,3}(?:\.\d{1,3}){3}$/.test(host);
}

/** As sockets report it. */
function isLoopbackAddress(host: string): boolean {
  return host === "::1" || host.startsWith("127.");
}

function splitAuthority(authority: string, scheme: "http" | "https"): { host: string; port: number } {
  const match = /^(\[[0-9a-f:.]+\]|[^:[\]]*)(?::(\d{1,5}))?$/.exec(authority.toLowerCase());
  const port = match?.[2] === undefined ? (scheme === "https" ? 443 : 80) : Number(match[2]);
  return { host: match?.[1] ?? "", port };
}
