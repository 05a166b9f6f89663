/** Which fields may not come in a trailer (RFC 9110 §6.5.1): framing, routing, authentication, content, control. */

const forbidden = new Set([
  "accept-encoding",
  "age",
  "authorization",
  "cache-control",
  "connection",
  "content-encoding",
  "content-length",
  "content-location",
  "content-range",
  "content-type",
  "cookie",
  "date",
  "expect",
  "expires",
  "forwarded",
  "host",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "keep-alive",
  "location",
  "max-forwards",
  "pragma",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "range",
  "retry-after",
  "set-cookie",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "vary",
  "via",
  "warning",
  "www-authenticate",
  "x-real-ip",
]);

const forbiddenPrefixes = ["x-forwarded-", "sally-", "sec-"];

/** The trailer fields that may be passed on, as alternating names and values. */
export function withoutForbiddenTrailers(raw: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase().replaceAll("_", "-"); // pairs; some origins read _ as -
    if (forbidden.has(name) || forbiddenPrefixes.some((prefix) => name.startsWith(prefix))) continue;
    kept.push(raw[i]!, raw[i + 1]!);
  }
  return kept;
}
