import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type ErrorCode, SallyError } from "../../core/errors.ts";
import { type Limits, limits } from "../../core/limits.ts";
import { encodeReplyHead, encodeRequestHead } from "./head-writer.ts";
import { type ParsedReply, type ParsedRequest, ReplyParser, RequestParser } from "./head-parser.ts";

function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

function parse(text: string, small: Limits = limits): ParsedRequest | undefined {
  return new RequestParser(small).push(latin1(text), 0);
}

function codeOf(work: () => unknown): ErrorCode | "accepted" {
  try {
    work();
    return "accepted";
  } catch (thrown) {
    if (thrown instanceof SallyError) return thrown.code;
    throw thrown;
  }
}

/** Parses with the bytes cut into pieces of the given sizes (repeated). */
function parseCut(text: string, sizes: readonly number[]): ParsedRequest | undefined {
  const parser = new RequestParser(limits);
  const bytes = latin1(text);
  let at = 0;
  for (let n = 0; at < bytes.length; n++) {
    const piece = bytes.subarray(at, at + (sizes[n % sizes.length] ?? 1));
    const parsed = parser.push(piece, 0);
    if (parsed !== undefined) return parsed;
    at += piece.length;
  }
  return undefined;
}

test("a reply that does not begin as HTTP is refused before its head is complete", () => {
  for (const start of ["SSH-2.0-OpenSSH", "\u0016\u0003\u0001", "<html>", " HTTP/1.1", "HTTQ"]) {
    const parser = new ReplyParser(limits);
    expect(codeOf(() => parser.push(latin1(start), 0))).toBe("ORIGIN_BAD_REPLY");
  }
  const parser = new ReplyParser(limits);
  for (const piece of ["H", "TT", "P/1.1 200 OK\r\n"]) expect(parser.push(latin1(piece), 0)).toBeUndefined();
  expect(parser.push(latin1("\r\n"), 0)?.status).toBe(200);
  const reply = "\r\nHTTP/1.1 204 No Content\r\n\r\n";
  for (let cut = 1; cut < reply.length; cut++) {
    expect(parser.push(latin1(reply.slice(0, cut)), 0)).toBeUndefined();
    expect(parser.push(latin1(reply.slice(cut)), 0)?.status).toBe(204);
  }
  expect(codeOf(() => parser.push(latin1("X"), 0))).toBe("ORIGIN_BAD_REPLY");
});

const get = (fields: string) => `GET / HTTP/1.1\r\nHost: a.example\r\n${fields}\r\n`;
const post = (fields: string) => `POST / HTTP/1.1\r\nHost: a.example\r\n${fields}\r\n`;
const line = (first: string) => `${first}\r\nHost: a.example\r\n\r\n`;
const host = (value: string) => `GET / HTTP/1.1\r\nHost: ${value}\r\n\r\n`;
const te = (value: string) => post(`Transfer-Encoding: ${value}\r\n`);
const cl = (value: string) => post(`Content-Length: ${value}\r\n`);

const controls = [...Array(32).keys(), 127].filter((code) => code !== 9 && code !== 10 && code !== 13);
const hex = (code: number) => `0x${code.toString(16).padStart(2, "0")}`;

const refused: readonly (readonly [name: string, bytes: string, code: ErrorCode])[] = [
  // Two lengths.
  ["Content-Length and Transfer-Encoding", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["Transfer-Encoding and Content-Length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), "BAD_REQUEST"],
  ["the same in other case", post("content-LengtH: 5\r\nTransFer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  [
    "Content-Length 0 and Transfer-Encoding",
    post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    "BAD_REQUEST",
  ],
  ["two different Content-Lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n"), "BAD_REQUEST"],
  ["two equal Content-Lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n"), "BAD_REQUEST"],
  ["two Content-Lengths in other case", post("Content-Length: 5\r\ncontent-length: 5\r\n"), "BAD_REQUEST"],
  ["two Content-Lengths apart", post("Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\n"), "BAD_REQUEST"],
  // One length, badly written.
  ...[
    "5, 5",
    "5,5",
    "5,6",
    "+5",
    "-5",
    "-0",
    "0x5",
    "5 5",
    "5a",
    "a5",
    "5.0",
    "5e3",
    "",
    '"5"',
    "5;q=1",
    "5,",
    ",5",
    "18446744073709551621",
    "9007199254740993000",
    "1234567890123456",
    "0000000000000005",
    "٥",
    "5\t5",
    "NaN",
    "Infinity",
    "5_0",
    "05h",
    "0b1",
    "1 ,",
    "chunked",
    "-123456789123456789123456789",
  ].map((value) => [`Content-Length: ${value}`, cl(value.replace("٥", "\xd9\xa5")), "BAD_REQUEST"] as const),
  // Codings.
  ...[
    "gzip, chunked",
    "chunked, gzip",
    "gzip",
    "xchunked",
    "chunkedx",
    "chunked, chunked",
    "chunked,chunked",
    ",chunked",
    "chunked,",
    "identity",
    "identity, chunked",
    "chunked, identity",
    "chunked;q=1",
    "chunked; a=b",
    '"chunked"',
    "'chunked'",
    "chun ked",
    "\x0bchunked",
    "\x0cchunked",
    "chunked\x0b",
    "chunked\x00",
    "cow",
    "",
    "deflate",
    "x",
    "compress, chunked",
    "chunked \xa0",
    "\xa0chunked",
    "\xffchunked",
    "chunKed, cow",
    "chunked\x7f",
    "c\thunked",
    "trailers",
  ].map((value) => [`Transfer-Encoding: ${JSON.stringify(value)}`, te(value), "BAD_REQUEST"] as const),
  ["two Transfer-Encodings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["chunked then identity", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), "BAD_REQUEST"],
  ["identity then chunked", post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["chunked then cow", post("Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n"), "BAD_REQUEST"],
  ["an empty one and chunked", post("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["chunked on HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "BAD_REQUEST"],
  ["gzip on HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "BAD_REQUEST"],
  // Names that are nearly Transfer-Encoding or Content-Length.
  ["a space before the colon", post("Transfer-Encoding : chunked\r\n"), "BAD_REQUEST"],
  ["a tab before the colon", post("Transfer-Encoding\t: chunked\r\n"), "BAD_REQUEST"],
  ["a space before the colon of Content-Length", post("Content-Length : 5\r\n"), "BAD_REQUEST"],
  ["a space before the name", get(" Transfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["a tab before the name", get("\tTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["a vertical tab before the name", get("\x0bTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["a NUL in the name", get("Transfer\0Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["a space in the name", get("Transfer Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["a name with 0x80", get("Transfer-Encoding\x80: chunked\r\n"), "BAD_REQUEST"],
  ["a name with 0xa0", get("Transfer-Encoding\xa0: chunked\r\n"), "BAD_REQUEST"],
  ["a name with 0xff", get("\xffTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["a fold behind Transfer-Encoding", get("Transfer-Encoding:\r\n chunked\r\n"), "BAD_REQUEST"],
  ["a tab fold behind Transfer-Encoding", get("Transfer-Encoding:\r\n\tchunked\r\n"), "BAD_REQUEST"],
  ["a fold in a value", get("X: a\r\n b\r\n"), "BAD_REQUEST"],
  ["a fold directly behind the request line", "GET / HTTP/1.1\r\n Host: a.example\r\n\r\n", "BAD_REQUEST"],
  ["a line of one space", get(" \r\n"), "BAD_REQUEST"],
  // Names that are no tokens.
  ...["(", ")", "<", ">", "@", ",", ";", "\\", '"', "/", "[", "]", "?", "=", "{", "}"].map(
    (char) => [`${char} in a name`, get(`X${char}Y: z\r\n`), "BAD_REQUEST"] as const,
  ),
  ["an empty name", get(": z\r\n"), "BAD_REQUEST"],
  ["a line without a colon", get("X\r\n"), "BAD_REQUEST"],
  ["a line without a colon before Host", "GET / HTTP/1.1\r\nX\r\nHost: a\r\n\r\n", "BAD_REQUEST"],
  // Line ends.
  ["bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "BAD_REQUEST"],
  ["bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", "BAD_REQUEST"],
  ["bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", "BAD_REQUEST"],
  ["only bare LF", "GET / HTTP/1.1\nHost: a\n\n", "BAD_REQUEST"],
  ["LF CR", "GET / HTTP/1.1\n\rHost: a\n\r\n\r", "BAD_REQUEST"],
  ["bare CR in the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", "BAD_REQUEST"],
  ["bare CR in a value", get("X: a\rTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  ["bare CR in a name", get("X\rY: a\r\n"), "BAD_REQUEST"],
  ["CR CR LF behind a value", get("X: a\r\r\n"), "BAD_REQUEST"],
  ["CR CR LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", "BAD_REQUEST"],
  ["a CR before a name", "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", "BAD_REQUEST"],
  ["LF in a value", get("X: a\nTransfer-Encoding: chunked\r\n"), "BAD_REQUEST"],
  // Control characters.
  ...controls.map(
    (code) => [`${hex(code)} in a value`, get(`X: a${String.fromCharCode(code)}b\r\n`), "BAD_REQUEST"] as const,
  ),
  ...controls.map(
    (code) =>
      [`${hex(code)} in a target`, line(`GET /a${String.fromCharCode(code)}b HTTP/1.1`), "BAD_REQUEST"] as const,
  ),
  // Hosts.
  ["no Host", "GET / HTTP/1.1\r\n\r\n", "BAD_REQUEST"],
  ["two Hosts", get("Host: b.example\r\n"), "BAD_REQUEST"],
  ["two equal Hosts", get("host: a.example\r\n"), "BAD_REQUEST"],
  ["two Hosts on HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "BAD_REQUEST"],
  ...[
    "",
    "a b",
    "user@a",
    "user:pw@a",
    "a/b",
    "a/",
    "/",
    "a?b",
    "a#b",
    "a\\b",
    "a,b",
    "a, b",
    "http://a",
    "a:",
    "a:x",
    "a:80x",
    "a:65536",
    "a:123456",
    "a:-1",
    "a:+1",
    "a:0",
    "a:080",
    "a:80:80",
    ":80",
    "[::1",
    "::1]",
    "::1",
    "[::1]x",
    "[::1]:",
    "[::1]:x",
    "[]",
    "[::1%25eth0]",
    "[:::1]",
    "[1::2::3]",
    "[g::1]",
    "[1:2:3:4:5:6:7]",
    "[1:2:3:4:5:6:7:8:9]",
    "[::1.2.3.256]",
    "[1.2.3.4]",
    "[v1.x]",
    "[[::1]]",
    "a%2eb",
    "a%00",
    "a..b",
    ".a",
    "a\x80",
    "\xe4.example",
    "a;b",
    "a'b",
    "a(b",
    "a*",
    "*",
    "a|b",
    '"a"',
    "<a>",
    "a\tb",
    "a@",
    "@a",
    "a".repeat(262),
  ].map((value) => [`Host: ${JSON.stringify(value)}`, host(value), "BAD_REQUEST"] as const),
  ["a bad Host on HTTP/1.0", "GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", "BAD_REQUEST"],
  // Targets.
  ["absolute-form with another host", line("GET http://b.example/ HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form with another port", line("GET http://a.example:81/ HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form with a user", line("GET http://u@a.example/ HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form without a host", line("GET http:///a HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form with another scheme", line("GET ftp://a.example/ HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form with one slash", line("GET http:/a.example/ HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form with a backslash", line("GET http:\\\\a.example/ HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form, host then backslash", line("GET http://a.example\\@b/ HTTP/1.1"), "BAD_REQUEST"],
  ["absolute-form without Host on 1.1", "GET http://a.example/ HTTP/1.1\r\n\r\n", "BAD_REQUEST"],
  ["authority-form for GET", line("GET a.example:80 HTTP/1.1"), "BAD_REQUEST"],
  ["* for GET", line("GET * HTTP/1.1"), "BAD_REQUEST"],
  ["** for OPTIONS", line("OPTIONS ** HTTP/1.1"), "BAD_REQUEST"],
  ["a target without a slash", line("GET a HTTP/1.1"), "BAD_REQUEST"],
  ["a query only", line("GET ?a HTTP/1.1"), "BAD_REQUEST"],
  ["a fragment", line("GET /a#b HTTP/1.1"), "BAD_REQUEST"],
  ["UTF-8 in the host of a target", line("GET http://\xc3\xa4.example/ HTTP/1.1"), "BAD_REQUEST"],
  ["a space in a target", line("GET /a b HTTP/1.1"), "BAD_REQUEST"],
  ["a tab in a target", line("GET /a\tb HTTP/1.1"), "BAD_REQUEST"],
  // Request lines.
  ["two spaces before the target", line("GET  / HTTP/1.1"), "BAD_REQUEST"],
  ["two spaces behind the target", line("GET /  HTTP/1.1"), "BAD_REQUEST"],
  ["a tab before the target", line("GET\t/ HTTP/1.1"), "BAD_REQUEST"],
  ["a tab behind the target", line("GET /\tHTTP/1.1"), "BAD_REQUEST"],
  ["a space behind the version", line("GET / HTTP/1.1 "), "BAD_REQUEST"],
  ["a space before the method", line(" GET / HTTP/1.1"), "BAD_REQUEST"],
  ["no target", line("GET HTTP/1.1"), "BAD_REQUEST"],
  ["an empty target", line("GET  HTTP/1.1"), "BAD_REQUEST"],
  ["no version (HTTP/0.9)", "GET /\r\n\r\n", "BAD_REQUEST"],
  ["a missing version", "GET / \r\n\r\n", "BAD_REQUEST"],
  ["only a method", line("GET"), "BAD_REQUEST"],
  ["a method that is no token", line("GE(T / HTTP/1.1"), "BAD_REQUEST"],
  ["a method with 0xff", line("G\xffT / HTTP/1.1"), "BAD_REQUEST"],
  ["a method with a colon", line("GET: / HTTP/1.1"), "BAD_REQUEST"],
  ["a byte order mark", `\xef\xbb\xbf${line("GET / HTTP/1.1")}`, "BAD_REQUEST"],
  ["a lower-case version", line("GET / http/1.1"), "BAD_REQUEST"],
  ["a mixed-case version", line("GET / Http/1.1"), "BAD_REQUEST"],
  ["no minor version", line("GET / HTTP/1"), "BAD_REQUEST"],
  ["an empty minor version", line("GET / HTTP/1."), "BAD_REQUEST"],
  ["two minor digits", line("GET / HTTP/1.10"), "BAD_REQUEST"],
  ["two major digits", line("GET / HTTP/01.1"), "BAD_REQUEST"],
  ["a comma in the version", line("GET / HTTP/1,1"), "BAD_REQUEST"],
  ["another protocol", line("GET / HTTQ/1.1"), "BAD_REQUEST"],
  ["a prefixed protocol", line("GET / XHTTP/1.1"), "BAD_REQUEST"],
  ["HTTP/0.9 written out", line("GET / HTTP/0.9"), "VERSION_UNSUPPORTED"],
  ["HTTP/1.2", line("GET / HTTP/1.2"), "VERSION_UNSUPPORTED"],
  ["HTTP/2.0", line("GET / HTTP/2.0"), "VERSION_UNSUPPORTED"],
  ["HTTP/9.9", line("GET / HTTP/9.9"), "VERSION_UNSUPPORTED"],
  ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "VERSION_UNSUPPORTED"],
  ["CONNECT", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "METHOD_REFUSED"],
  ["TRACE", line("TRACE / HTTP/1.1"), "METHOD_REFUSED"],
  ["three empty lines first", `\r\n\r\n\r\n${line("GET / HTTP/1.1")}`, "BAD_REQUEST"],
  ["a bare LF first", `\n${line("GET / HTTP/1.1")}`, "BAD_REQUEST"],
  ["a bare CR first", `\r${line("GET / HTTP/1.1")}`, "BAD_REQUEST"],
  ["a TLS ClientHello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "BAD_REQUEST"],
  [
    "65 names in Connection",
    get(`Connection: ${Array.from({ length: 65 }, (_, n) => `x${n}`).join(",")}\r\n`),
    "BAD_REQUEST",
  ],
];

describe("refused requests", () => {
  test.each(refused.map((row) => [...row] as const))("%s", (_name, bytes, code) => {
    expect(codeOf(() => parse(bytes))).toBe(code);
    // The same answer byte by byte.
    expect(codeOf(() => parseCut(bytes, [1]))).toBe(code);
  });

  test("the table has no row twice", () => {
    expect(new Set(refused.map(([, bytes]) => bytes)).size).toBe(refused.length);
  });

  test("a malformed line is refused before the head is complete", () => {
    expect(codeOf(() => parse("GET / HTTP/1.1\r\nHost: a\r\nBad Name"))).toBe("BAD_REQUEST");
    expect(codeOf(() => parse("GET / HTTP/1.1\n"))).toBe("BAD_REQUEST");
  });
});

describe("the Accept field of a refused head", () => {
  const accept = "Accept: text/html;q=0.9, */*";
  test.each([
    ["malformed in a later line", `GET / HTTP/1.1\r\n${accept}\r\nBad Line\r\n\r\n`, "text/html;q=0.9, */*"],
    ["malformed as a whole", `GET / HTTP/1.1\r\n${accept}\r\n\r\n`, "text/html;q=0.9, */*"],
    ["too large behind it", `GET / HTTP/1.1\r\n${accept}\r\nX: ${"a".repeat(70_000)}`, "text/html;q=0.9, */*"],
    ["malformed before it", `GET /a b HTTP/1.1\r\n${accept}\r\n\r\n`, "text/html;q=0.9, */*"],
    ["without it", "GET / HTTP/1.1\r\n\r\n", undefined],
    ["cut in it", "GET / HTTP/1.1\r\nAccept: text/h\n", undefined],
  ])("is found where the head is %s, however it is cut", (_name, text, expected) => {
    const bytes = latin1(text);
    for (const size of [1, 10, bytes.length]) {
      const parser = new RequestParser(limits);
      let at = 0;
      const refused = (): Uint8Array => bytes.subarray(at, at + size);
      const code = codeOf(() => {
        for (; at < bytes.length; at += size) parser.push(refused(), 0);
      });
      expect(code).not.toBe("accepted");
      expect(parser.acceptOfRefused(refused())).toBe(expected);
    }
  });

  test("is found in a head that never came to its end", () => {
    const parser = new RequestParser(limits);
    parser.push(latin1(`GET / HTTP/1.1\r\n${accept}\r\nHost: a`), 0);
    expect(parser.acceptOfRefused()).toBe("text/html;q=0.9, */*");
  });
});

describe("accepted requests", () => {
  test("method, target, fields, order, case and duplicates arrive as sent", () => {
    const parsed = parse(
      "PURGE //a/../%2e%2E?q=%00&x=[{|}] HTTP/1.1\r\nX-b: 1\r\nHOST: A.Example:8080\r\nx-B:  \t2 \t\r\nX-b:\r\n\r\n",
    );
    expect(parsed?.method).toBe("PURGE");
    expect(parsed?.target).toBe("//a/../%2e%2E?q=%00&x=[{|}]");
    expect(parsed?.headers.raw).toEqual(["X-b", "1", "HOST", "A.Example:8080", "x-B", "2", "X-b", ""]);
    expect(parsed?.authority).toBe("a.example:8080");
    expect(parsed?.bodyLength).toBe(0);
  });

  test("bytes above 0x7f in values stay what they are", () => {
    const value = String.fromCharCode(...Array.from({ length: 128 }, (_, n) => 128 + n));
    expect(parse(get(`X: ${value}!\r\n`))?.headers.get("x")).toBe(`${value}!`);
    expect(parse(get("X: \xef\xbb\xbfa\r\n"))?.headers.get("x")).toBe("\xef\xbb\xbfa");
  });

  test("bytes above 0x7f in a target stay what they are", () => {
    expect(parse(line("GET /\x80\xff?gr\xc3\xb6\xc3\x9fe HTTP/1.1"))?.target).toBe("/\x80\xff?gr\xc3\xb6\xc3\x9fe");
  });

  test("bytes behind the head are left", () => {
    const parser = new RequestParser(limits);
    const bytes = latin1(`xx${post("Content-Length: 3\r\n")}abc`);
    expect(parser.push(bytes, 2)?.bodyLength).toBe(3);
    expect(parser.end).toBe(bytes.length - 3);
  });

  test.each([
    ["a.example", "a.example"],
    ["A_b-c.Example:65535", "a_b-c.example:65535"],
    ["a.example.", "a.example."],
    ["127.0.0.1:1", "127.0.0.1:1"],
    ["[::1]", "[::1]"],
    ["[::]:80", "[::]:80"],
    ["[2001:DB8::1.2.3.4]:80", "[2001:db8::1.2.3.4]:80"],
    ["[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:7:8]"],
    ["[1::8]", "[1::8]"],
    ["[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"],
  ])("Host %s", (value, authority) => {
    expect(parse(host(value))?.authority).toBe(authority);
  });

  test("absolute-form that agrees with Host is kept as it is", () => {
    const parsed = parse("GET HTTP://A.example:80/x?y HTTP/1.1\r\nHost: a.EXAMPLE:80\r\n\r\n");
    expect(parsed?.target).toBe("HTTP://A.example:80/x?y");
    expect(parsed?.authority).toBe("a.example:80");
    expect(parse("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n")?.target).toBe("http://a?b");
    expect(parse("OPTIONS https://a HTTP/1.1\r\nHost: a\r\n\r\n")?.target).toBe("https://a");
  });

  test("OPTIONS *, unknown methods and lower case are methods like others", () => {
    expect(parse(line("OPTIONS * HTTP/1.1"))?.target).toBe("*");
    expect(parse(line("get / HTTP/1.1"))?.method).toBe("get");
    expect(parse(line("M-SEARCH / HTTP/1.1"))?.method).toBe("M-SEARCH");
  });

  test("HTTP/1.0 needs no Host and does not persist unless asked", () => {
    const plain = parse("GET / HTTP/1.0\r\n\r\n");
    expect([plain?.minorVersion, plain?.authority, plain?.persists]).toEqual([0, "", false]);
    expect(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")?.persists).toBe(true);
    expect(parse("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")?.expect).toBeUndefined();
    expect(parse("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")?.wantsUpgrade).toBe(false);
  });

  test("one or two empty lines before the request line are skipped", () => {
    expect(parse(`\r\n${line("GET / HTTP/1.1")}`)?.method).toBe("GET");
    expect(parse(`\r\n\r\n${line("GET / HTTP/1.1")}`)?.method).toBe("GET");
  });

  test("framing, Connection, Upgrade and Expect are read once", () => {
    expect(parse(te("chunked"))?.bodyLength).toBeUndefined();
    expect(parse(te("CHUNKED"))?.bodyLength).toBeUndefined();
    expect(parse(cl("0"))?.bodyLength).toBe(0);
    expect(parse(cl("007"))?.bodyLength).toBe(7);
    expect(parse(cl("999999999999999"))?.bodyLength).toBe(999999999999999);
    const upgrade = parse(
      get("Connection: keep-alive, X-Hop ,UPGRADE\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n"),
    );
    expect([upgrade?.wantsUpgrade, upgrade?.expect, upgrade?.persists]).toEqual([true, "100-continue", true]);
    expect(upgrade?.nominated).toEqual(["x-hop"]);
    expect(parse(get("Connection: a\r\nConnection: close, b\r\n"))).toMatchObject({
      persists: false,
      nominated: ["a", "b"],
    });
    const nominating = (count: number): string =>
      get(`Connection: ${Array.from({ length: count }, (_, i) => `n${i}`).join(", ")}\r\n`);
    expect(parse(nominating(limits.nominatedFields))?.nominated).toHaveLength(limits.nominatedFields);
    expect(() => parse(nominating(limits.nominatedFields + 1))).toThrow("too many fields");
    expect(parse(get("Upgrade: websocket\r\n"))?.wantsUpgrade).toBe(false);
    expect(parse(get("Connection: upgrade\r\nUpgrade: h2c\r\n"))?.wantsUpgrade).toBe(false);
    expect(parse(get("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"))?.wantsUpgrade).toBe(false);
  });

  test("an underscore alias of a framing field is an ordinary field", () => {
    const parsed = parse(get("Content_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Forwarded_For: 1\r\n"));
    expect(parsed?.bodyLength).toBe(0);
    expect(parsed?.headers.has("content_length")).toBe(true);
  });
});

describe("limits", () => {
  const small = { ...limits, requestLineBytes: 40, headBytes: 200, headFields: 3 };
  const lineOf = (bytes: number) => `GET /${"a".repeat(bytes - 14)} HTTP/1.1`;

  test("a request line at the limit passes, one byte more is 414, also while it is incomplete", () => {
    expect(parse(line(lineOf(40)), small)?.method).toBe("GET");
    expect(codeOf(() => parse(line(lineOf(41)), small))).toBe("TARGET_TOO_LONG");
    expect(codeOf(() => parse(lineOf(41), small))).toBe("TARGET_TOO_LONG");
    expect(parse(lineOf(40), small)).toBeUndefined();
  });

  test("a head at the limit passes, one byte more is 431, also while it is incomplete", () => {
    const headOf = (bytes: number) => get(`X: ${"a".repeat(bytes - get("X: \r\n").length)}\r\n`);
    expect(headOf(200).length).toBe(200);
    expect(parse(headOf(200), small)?.method).toBe("GET");
    expect(codeOf(() => parse(headOf(201), small))).toBe("HEADERS_TOO_LARGE");
    expect(codeOf(() => parse(headOf(300).slice(0, 201), small))).toBe("HEADERS_TOO_LARGE");
    expect(parse(headOf(300).slice(0, 199), small)).toBeUndefined();
  });

  test("fields at the limit pass, one more is 431", () => {
    expect(parse(get("A: 1\r\nB: 2\r\n"), small)?.headers.size).toBe(3);
    expect(codeOf(() => parse(get("A: 1\r\nB: 2\r\nC: 3\r\n"), small))).toBe("HEADERS_TOO_LARGE");
  });

  test("the count of fields starts anew with each head", () => {
    const parser = new RequestParser(small);
    for (let n = 0; n < 3; n++) expect(parser.push(latin1(get("A: 1\r\nB: 2\r\n")), 0)?.headers.size).toBe(3);
  });
});

const tokenChars = "!#$%&'*+-.^_`|~0123456789abcXYZ";
const token = fc.string({ unit: fc.constantFrom(...tokenChars.split("")), minLength: 1, maxLength: 12 });
const fieldByte = fc.integer({ min: 0x20, max: 0xff }).filter((code) => code !== 0x7f);
const fieldValue = fc
  .array(fieldByte, { maxLength: 20 })
  .map((codes) => String.fromCharCode(...codes).replace(/^[ \t]+|[ \t]+$/g, ""));
const special = new Set(["host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"]);
const field = fc.tuple(
  token.filter((name) => !special.has(name.toLowerCase())),
  fieldValue,
);
const method = token.filter((name) => name !== "CONNECT" && name !== "TRACE");
const target = fc
  .string({ unit: fc.constantFrom(...'/abc%20?&=;:@[]{}|\\^`"<>.~'.split("")), maxLength: 30 })
  .map((text) => `/${text}`);
const requestText = fc.tuple(method, target, fc.array(field, { maxLength: 8 })).map(([method, target, fields]) => {
  const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return `${method} ${target} HTTP/1.1\r\nHost: a.example\r\n${lines}\r\n`;
});

describe("properties", () => {
  test("however the bytes are cut, the head is the same", () => {
    fc.assert(
      fc.property(
        requestText,
        fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 5 }),
        (text, sizes) => {
          expect(parseCut(text, sizes)).toEqual(parse(text));
        },
      ),
    );
  });

  test("what is written is what was parsed", () => {
    fc.assert(
      fc.property(requestText, (text) => {
        const parsed = parse(text)!; // the generator makes valid heads
        expect(encodeRequestHead(parsed)).toEqual(latin1(text));
      }),
    );
  });

  test("arbitrary bytes are refused or parsed, the same for any cut, and never anything else", () => {
    const soup = fc.string({
      unit: fc.constantFrom(
        "\r\n",
        "\r",
        "\n",
        " ",
        "\t",
        ":",
        "GET / HTTP/1.1\r\n",
        "Host: a\r\n",
        "a",
        "\0",
        "\xff",
        "Content-Length: 1\r\n",
      ),
      maxLength: 12,
    });
    fc.assert(
      fc.property(soup, fc.integer({ min: 1, max: 7 }), (text, size) => {
        let whole: unknown;
        const code = codeOf(() => (whole = parse(text)));
        let cut: unknown;
        expect(codeOf(() => (cut = parseCut(text, [size])))).toBe(code);
        expect(cut).toEqual(whole);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("replies", () => {
  const parseReply = (text: string): ParsedReply | undefined => new ReplyParser(limits).push(latin1(text), 0);

  test("status, reason and fields arrive as sent", () => {
    const parsed = parseReply("HTTP/1.1 299 So \xe4 So\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 7\r\n\r\n");
    expect(parsed).toMatchObject({
      status: 299,
      reason: "So \xe4 So",
      contentLength: 7,
      isChunked: false,
      persists: true,
    });
    expect(encodeReplyHead(parsed!)).toEqual(
      latin1("HTTP/1.1 299 So \xe4 So\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 7\r\n\r\n"),
    );
  });

  test("an empty reason may come without its space", () => {
    expect(parseReply("HTTP/1.1 200 \r\n\r\n")).toMatchObject({ status: 200, reason: "" });
    expect(parseReply("HTTP/1.1 200\r\n\r\n")).toMatchObject({ status: 200, reason: "" });
  });

  test("interim replies come one by one", () => {
    const parser = new ReplyParser(limits);
    const bytes = latin1(
      "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw",
    );
    expect(parser.push(bytes, 0)?.status).toBe(103);
    expect(parser.push(bytes, parser.end)).toMatchObject({ status: 101, hasUpgrade: true });
    expect(bytes.length - parser.end).toBe(3);
  });

  test.each([
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\n\r\n",
    "HTTP/1.1 200 OK\nX: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "HTTP/1.1 99 OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/1.1 600 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 abc OK\r\n\r\n",
    "HTTP/1.1\r\n\r\n",
    "HTTP/1.1 \r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "ICY 200 OK\r\n\r\n",
    "SSH-2.0-OpenSSH_9\r\n\r\n",
    "HTTP/1.1 200 O\0K\r\n\r\n",
  ])("%j is refused", (text) => {
    expect(codeOf(() => parseReply(text))).toBe("ORIGIN_BAD_REPLY");
  });
});
