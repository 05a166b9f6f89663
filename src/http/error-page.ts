/**
 * What a visitor sees when the edge itself answers: a small page that names the cause and what to try, or RFC 9457 JSON
 * for programs. Everything that came from outside is escaped, and no script, style or image is loaded from anywhere.
 */

import { utf8Encode } from "../core/bytes.ts";
import type { ErrorCode, SallyError } from "../core/errors.ts";
import { bytesBody } from "./body.ts";
import type { Reply } from "./exchange.ts";
import { HeaderList } from "./header-list.ts";

export interface ErrorPageContext {
  /** Request id. */
  readonly id: string;
  /** Accept field of the request. */
  readonly accept: string | undefined;
  /** Facts to list below the message, such as the host or the address of the local service. */
  readonly details?: Readonly<Record<string, string>> | undefined;
  /** The wall clock, for the Date field (RFC 9110 §6.6.1). */
  readonly nowMs?: number | undefined;
  /** Further members of the JSON, for programs. */
  readonly extra?: Readonly<Record<string, number>> | undefined;
}

/** Makes the reply for an error. */
export type ErrorPage = (error: SallyError, context: ErrorPageContext) => Reply & { readonly kind: "message" };

/** Content-Security-Policy of the pages: nothing but their own style. */
export const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'";

/** The reply for `error`: HTML where the visitor prefers it, `application/problem+json` otherwise. */
export const errorReply: ErrorPage = (error, context) => {
  const { status } = error.row;
  const isHtml = prefersHtml(context.accept);
  const text = isHtml ? htmlPage(error, context) : problemJson(error, context);
  const body = bytesBody(utf8Encode(text));
  const headers = new HeaderList([
    "Content-Type",
    isHtml ? "text/html; charset=utf-8" : "application/problem+json",
    "Content-Length",
    String(body.length),
    "Cache-Control",
    "no-store",
    "X-Content-Type-Options",
    "nosniff",
    "Sally-Error",
    error.code,
    "Sally-Request-Id",
    safeToken(context.id),
  ]);
  if (context.nowMs !== undefined) headers.append("Date", new Date(context.nowMs).toUTCString());
  if (isHtml) headers.append("Content-Security-Policy", pagePolicy);
  if (status === 503 || status === 429) headers.append("Retry-After", "1");
  return { kind: "message", head: { status, reason: reasonPhrase(status), headers }, body };
};

/** Browsers name text/html; a program that takes anything gets JSON. */
function prefersHtml(accept: string | undefined): boolean {
  if (accept === undefined) return false;
  const weights = weightsIn(accept);
  const weigh = (type: string, subtype: string): number =>
    weights.get(`${type}/${subtype}`) ?? weights.get(`${type}/*`) ?? 0;
  const html = weigh("text", "html");
  return html > 0 && html >= Math.max(weigh("application", "json"), weigh("application", "problem+json"));
}

/** The weights of the media ranges in an Accept field (RFC 9110 §12.5.1), the first of each. */
function weightsIn(accept: string): ReadonlyMap<string, number> {
  const weights = new Map<string, number>();
  for (const range of accept.toLowerCase().split(",").slice(0, 32)) {
    const [name = "", ...parameters] = range.split(";").map((part) => part.trim());
    if (weights.has(name)) continue;
    const weight = parameters.find((parameter) => parameter.startsWith("q="));
    const parsed = weight === undefined ? 1 : Number(weight.slice(2));
    weights.set(name, Number.isFinite(parsed) ? parsed : 0);
  }
  return weights;
}

function problemJson(error: SallyError, { id, details, extra }: ErrorPageContext): string {
  const { status, text } = error.row;
  // `<` is escaped although this is JSON: some visitor will sniff it.
  return `${JSON.stringify({
    type: `urn:sallyport:error:${error.code}`,
    title: text,
    status,
    detail: error.message,
    code: error.code,
    requestId: id,
    ...(details === undefined ? {} : { details }),
    ...extra,
  }).replaceAll("<", "\\u003c")}\n`;
}

const advice: Partial<Record<ErrorCode, string>> = {
  TUNNEL_UNKNOWN: "Check the address for typing errors, or start the tunnel that should serve it.",
  TUNNEL_OFFLINE: "The tunnel's owner can bring it back by starting the agent: sally http PORT.",
  ORIGIN_REFUSED: "Start the app, or pass another port to sally http.",
  ORIGIN_BAD_REPLY: "Check that the port belongs to an HTTP server, and use https:// in the target if it speaks TLS.",
  ORIGIN_CLOSED: "Look into the log of the local service: it may have crashed.",
  ORIGIN_RESET: "Look into the log of the local service: it may have crashed.",
  ORIGIN_TIMEOUT: "Look whether the local service is stuck, or raise the time-out.",
  ORIGIN_TLS: "Give the local service a certificate that the agent's machine trusts.",
  LINK_LOST: "Try again in a moment: the agent reconnects by itself.",
  OVERLOADED: "Try again in a moment.",
  DRAINING: "Try again in a moment.",
  TOO_MANY_CONNECTIONS: "Close some connections and try again.",
  HEADERS_TOO_LARGE: "Often too many cookies: clear those of this site.",
  INTERNAL: "Please report this with the request id.",
};

const style = `
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5d6b7e;--paper:#f4f6f9;--card:#fff;--line:#dde3ea;--mark:#b4472e}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf4;--dim:#94a2b5;--paper:#12161c;--card:#1a2029;--line:#2b3440;--mark:#ff9a7d}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{width:100%;max-width:36rem;background:var(--card);border:1px solid var(--line);border-radius:14px;padding:2rem}
p{margin:0 0 1rem;overflow-wrap:anywhere}
.status{color:var(--mark);font-weight:600;letter-spacing:.02em;margin:0}
h1{font-size:1.4rem;line-height:1.3;margin:.25rem 0 1rem;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem;margin:1.5rem 0 0;padding-top:1rem;border-top:1px solid var(--line);color:var(--dim);font-size:.85rem}
dd{margin:0;font-family:ui-monospace,monospace;overflow-wrap:anywhere}`;

function htmlPage(error: SallyError, { id, details }: ErrorPageContext): string {
  const { status, text } = error.row;
  const facts = { Code: error.code, ...details, "Request id": id };
  const rows = Object.entries(facts).map(
    ([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`,
  );
  const paragraphs = [error.message === text ? "" : error.message, advice[error.code] ?? ""]
    .filter((paragraph) => paragraph !== "")
    .map((paragraph) => `<p>${escapeHtml(paragraph)}</p>`);
  return htmlDocument(
    `${status} ${text}`,
    `<p class="status">${status} ${escapeHtml(reasonPhrase(status))}</p>
<h1>${escapeHtml(text)}</h1>
${paragraphs.join("\n")}
<dl>${rows.join("")}</dl>`,
  );
}

/** A page in the dress of the error pages. `content` is markup. */
export function htmlDocument(title: string, content: string): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex"><title>${escapeHtml(title)}</title><style>${style}</style></head>
<body><main>
${content}
</main></body>
</html>
`;
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Safe as element content and inside quoted attributes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => entities[char]!); // the class lists the keys
}

/** An id that may stand in a field, whatever was given. */
function safeToken(text: string): string {
  return text.replace(/[^\w.:-]/g, "").slice(0, 128);
}

const reasons: Readonly<Record<number, string>> = {
  200: "OK",
  201: "Created",
  204: "No Content",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  409: "Conflict",
  413: "Content Too Large",
  414: "URI Too Long",
  417: "Expectation Failed",
  421: "Misdirected Request",
  426: "Upgrade Required",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  499: "Client Closed Request",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
};

/** The usual words for a status of the error table, or of the node's own replies. */
export function reasonPhrase(status: number): string {
  return reasons[status] ?? "Error";
}
