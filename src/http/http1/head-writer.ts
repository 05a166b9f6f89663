/**
 * Serialises heads, chunks and trailers, each to one array of bytes in one pass. Whatever is written has been checked:
 * no CR, LF, NUL or other control character can come from a name, a value, a target or a reason, so nothing that a
 * visitor or an origin sends can become a line of its own.
 */

import { assert } from "../../core/errors.ts";
import { utf8Encode } from "../../core/bytes.ts";
import type { ReplyHead, RequestHead } from "../exchange.ts";
import type { HeaderList } from "../header-list.ts";
import { encodeLatin1Into } from "./latin1.ts";

const none: readonly string[] = [];

/** Always HTTP/1.1. `body` is appended, so that a small message goes out in one write. */
export function encodeRequestHead(head: Omit<RequestHead, "minorVersion">, body?: Uint8Array): Uint8Array {
  assert(!head.method.includes(" ") && !head.target.includes(" "), "no space in a method or target");
  return encodeHead(`${head.method} ${head.target} HTTP/1.1\r\n`, head.headers.raw, body);
}

/**
 * Always HTTP/1.1, as RFC 9112 §2.3 wants it whatever the request's version. `extra` fields (alternating names and
 * values) follow those of the head.
 */
export function encodeReplyHead(head: ReplyHead, extra: readonly string[] = none, body?: Uint8Array): Uint8Array {
  const { status, reason, headers } = head;
  assert(status >= 100 && status <= 599, "the status has three digits");
  return encodeHead(`HTTP/1.1 ${status} ${reason}\r\n`, headers.raw, body, extra);
}

// hot: one string, one allocation, one pass of the encoder; checked against an array-of-lines oracle in the test.
function encodeHead(firstLine: string, raw: readonly string[], body?: Uint8Array, extra = none): Uint8Array {
  let text = firstLine;
  for (let i = 0; i < raw.length; i += 2) text += `${raw[i]!}: ${raw[i + 1]!}\r\n`; // pairs
  for (let i = 0; i < extra.length; i += 2) text += `${extra[i]!}: ${extra[i + 1]!}\r\n`; // pairs
  text += "\r\n";
  const bytes = new Uint8Array(text.length + (body?.length ?? 0));
  encodeLatin1Into(text, bytes);
  assertLines(bytes, text.length, (raw.length + extra.length) / 2 + 2);
  if (body !== undefined) bytes.set(body, text.length);
  return bytes;
}

/** Every line adds one CR and one LF; any other control character but the tab is one too many. */
function assertLines(bytes: Uint8Array, end: number, lines: number): void {
  let controls = 0;
  for (let i = 0; i < end; i++) {
    const byte = bytes[i]!; // i is in range
    if ((byte < 32 && byte !== 9) || byte === 127) controls++;
  }
  assert(controls === 2 * lines, "a head holds no control characters");
}

/** One chunk of the chunked coding; `data` must not be empty, since an empty chunk ends the body. */
export function encodeChunk(data: Uint8Array): Uint8Array {
  assert(data.length > 0, "a chunk is not empty");
  const size = data.length.toString(16);
  const bytes = new Uint8Array(size.length + data.length + 4);
  encodeLatin1Into(`${size}\r\n`, bytes);
  const end = size.length + 2 + data.length;
  bytes.set(data, size.length + 2);
  bytes[end] = 13;
  bytes[end + 1] = 10;
  return bytes;
}

const lastChunk = utf8Encode("0\r\n\r\n");

/** The last chunk with the trailer section. */
export function encodeLastChunk(trailers: HeaderList | undefined): Uint8Array {
  return trailers === undefined || trailers.size === 0 ? lastChunk : encodeHead("0\r\n", trailers.raw);
}
