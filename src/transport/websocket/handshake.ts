/** The HTTP request that opens a lane and its answers (RFC 6455 §4): what both ends must agree on, as plain texts. */

import { createHash } from "node:crypto";
import { formatAddress } from "../../core/address.ts";
import { errorTable, SallyError, type ErrorCode } from "../../core/errors.ts";
import { reasonPhrase } from "../../http/error-page.ts";
import type { HeaderList } from "../../http/header-list.ts";
import type { ParsedReply } from "../../http/http1/head-parser.ts";

export const linkPath = "/_sally/link";
export const subprotocol = "sallyport.1";
const acceptSuffix = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Which session a connection belongs to. */
export interface LaneRequest {
  /** 128 random bits in hex, chosen by the agent. */
  readonly session: string;
  /** Counts from 0; 0 opens the session, the others join it. Lost lanes are replaced, so it has no small bound. */
  readonly lane: number;
}

export function randomHex(byteCount: number): string {
  return crypto.getRandomValues(new Uint8Array(byteCount)).toHex();
}

/** A fresh Sec-WebSocket-Key. */
export function createKey(): string {
  return crypto.getRandomValues(new Uint8Array(16)).toBase64();
}

/** What the server must answer to a key (§4.2.2). */
export function acceptFor(key: string): string {
  return createHash("sha1")
    .update(key + acceptSuffix)
    .digest("base64");
}

export interface UpgradeRequest extends LaneRequest {
  readonly path: string;
  readonly host: string;
  readonly key: string;
}

export function upgradeRequest({ path, host, key, session, lane }: UpgradeRequest): string {
  return (
    `GET ${path}?session=${session}&lane=${lane} HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\n` +
    `Connection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n` +
    `Sec-WebSocket-Protocol: ${subprotocol}\r\n\r\n`
  );
}

export function switchingReply(accept: string): string {
  return (
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: ${subprotocol}\r\n\r\n`
  );
}

/** A refusal that a person with curl can read too; `Sally-Error` carries the code to the agent. */
export function refusalReply(error: SallyError): string {
  const body = `${error.code}: ${error.message}\n`;
  const version = error.code === "VERSION_MISMATCH" ? "Sec-WebSocket-Version: 13\r\n" : "";
  const status = error.code === "VERSION_MISMATCH" ? 426 : error.row.status;
  return (
    `HTTP/1.1 ${status} ${reasonPhrase(status)}\r\nSally-Error: ${error.code}\r\n${version}Content-Type: text/plain; charset=utf-8\r\n` +
    `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`
  );
}

/** Reads a request's head. @throws SallyError BAD_REQUEST, VERSION_MISMATCH */
export function parseUpgrade(
  method: string,
  target: string,
  headers: HeaderList,
): LaneRequest & { readonly key: string } {
  if (method !== "GET" || !lists(headers, "upgrade", "websocket") || !lists(headers, "connection", "upgrade")) {
    throw new SallyError("BAD_REQUEST", "this address takes WebSocket connections of Sallyport agents only");
  }
  if (headers.get("sec-websocket-version") !== "13") throw new SallyError("VERSION_MISMATCH");
  if (!lists(headers, "sec-websocket-protocol", subprotocol)) {
    throw new SallyError("VERSION_MISMATCH", `the agent must offer the WebSocket subprotocol ${subprotocol}`);
  }
  const keys = headers.getAll("sec-websocket-key");
  const key = keys[0] ?? "";
  if (keys.length !== 1 || !/^[A-Za-z0-9+/]{22}==$/.test(key)) {
    throw new SallyError("BAD_REQUEST", "Sec-WebSocket-Key is not 16 bytes in base64");
  }
  const query = new URLSearchParams(target.slice(target.indexOf("?") + 1));
  const session = query.get("session") ?? "";
  const lane = query.get("lane") ?? "";
  if (!/^[0-9a-f]{32}$/.test(session) || !/^\d{1,9}$/.test(lane)) {
    throw new SallyError("BAD_REQUEST", "session must be 32 hex digits and lane a small number");
  }
  return { session, lane: Number(lane), key };
}

/** Checks the answer to our request. @throws SallyError: the node's own code, or CONNECT_FAILED */
export function checkReply(reply: ParsedReply, accept: string, label: string): void {
  if (reply.status !== 101) throw refusal(reply, label);
  const { headers } = reply;
  const isRight =
    lists(headers, "upgrade", "websocket") &&
    lists(headers, "connection", "upgrade") &&
    headers.get("sec-websocket-accept") === accept &&
    headers.get("sec-websocket-protocol") === subprotocol &&
    !headers.has("sec-websocket-extensions");
  if (!isRight) throw new SallyError("CONNECT_FAILED", `${label} answered the WebSocket request wrongly`);
}

function refusal(reply: ParsedReply, label: string): SallyError {
  const code = reply.headers.get("sally-error") ?? "";
  if (Object.hasOwn(errorTable, code)) return new SallyError(code as ErrorCode); // its keys are the codes
  return new SallyError(
    "CONNECT_FAILED",
    `${label} answered ${reply.status} to the WebSocket request: is it a Sallyport node, and its tunnel address?`,
  );
}

function lists(headers: HeaderList, name: string, token: string): boolean {
  return headers.getAll(name).some((value) => value.split(",").some((item) => item.trim().toLowerCase() === token));
}

export function labelOfUrl(url: URL): string {
  return formatAddress({ host: url.hostname.replace(/^\[|\]$/g, ""), port: portOf(url) });
}

export function portOf(url: URL): number {
  if (url.port !== "") return Number(url.port);
  return url.protocol === "wss:" || url.protocol === "https:" ? 443 : 80;
}
