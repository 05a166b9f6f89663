/** The chunked coding, read and written plainly: what the tests compare the product's own with. */

export interface Dechunked {
  readonly body: string;
  /** Lines of the trailer section. */
  readonly trailers: readonly string[];
  readonly sizes: readonly number[];
}

/** Decodes a complete chunked body without extensions; throws if it is anything else. */
export function dechunk(text: string): Dechunked {
  let body = "";
  const sizes: number[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = text.indexOf("\r\n", at);
    const line = text.slice(at, lineEnd);
    if (lineEnd < 0 || !/^[0-9a-f]+$/i.test(line)) throw new Error(`no chunk size: ${JSON.stringify(text.slice(at))}`);
    const size = Number.parseInt(line, 16);
    at = lineEnd + 2;
    if (size === 0) break;
    body += text.slice(at, at + size);
    sizes.push(size);
    if (text.slice(at + size, at + size + 2) !== "\r\n") throw new Error("a chunk does not end with CR LF");
    at += size + 2;
  }
  const rest = text.slice(at);
  if (!rest.endsWith("\r\n")) throw new Error(`the trailer section has no end: ${JSON.stringify(rest)}`);
  return { body, trailers: rest.split("\r\n").slice(0, -2), sizes };
}

/** One chunk. */
export function chunk(data: string): string {
  return `${data.length.toString(16)}\r\n${data}\r\n`;
}
