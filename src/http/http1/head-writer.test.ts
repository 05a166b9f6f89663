import { expect, test } from "bun:test";
import { utf8Encode } from "../../core/bytes.ts";
import { HeaderList } from "../header-list.ts";
import { encodeChunk, encodeLastChunk, encodeReplyHead, encodeRequestHead } from "./head-writer.ts";

const reply = (raw: string[], reason = "OK") => ({ status: 200, reason, headers: new HeaderList(raw) });

test("head, extra fields and a small body become one array", () => {
  const bytes = encodeReplyHead(reply(["A", "1", "a", "\xff"]), ["Content-Length", "2"], utf8Encode("hi"));
  const text = "HTTP/1.1 200 OK\r\nA: 1\r\na: \xff\r\nContent-Length: 2\r\n\r\nhi";
  expect(bytes).toEqual(Uint8Array.from(text, (char) => char.charCodeAt(0)));
});

test.each(["\r\n", "\r", "\n", "\0", "\x1b", "\x7f", "Ċ", "č", "€", "a\r\nSet-Cookie: x=y"])(
  "%j cannot be smuggled in anywhere",
  (text) => {
    expect(() => encodeReplyHead(reply(["A", text]))).toThrow();
    expect(() => encodeReplyHead(reply([text, "a"]))).toThrow();
    expect(() => encodeReplyHead(reply([], text))).toThrow();
    expect(() => encodeReplyHead(reply([]), ["A", text])).toThrow();
    expect(() => encodeLastChunk(new HeaderList(["A", text]))).toThrow();
    const headers = new HeaderList();
    expect(() => encodeRequestHead({ method: "GET", target: `/${text}`, headers })).toThrow();
    expect(() => encodeRequestHead({ method: `G${text}`, target: "/", headers })).toThrow();
  },
);

test("a space cannot split a request line, nor can a status be odd", () => {
  const headers = new HeaderList();
  expect(() => encodeRequestHead({ method: "GET", target: "/ HTTP/1.1", headers })).toThrow();
  expect(() => encodeRequestHead({ method: "GET /", target: "/", headers })).toThrow();
  expect(() => encodeReplyHead({ status: 99, reason: "", headers })).toThrow();
});

test("chunks carry their size in hexadecimal, and an empty one is a bug", () => {
  expect(encodeChunk(utf8Encode("0123456789abcdefX"))).toEqual(utf8Encode("11\r\n0123456789abcdefX\r\n"));
  expect(() => encodeChunk(new Uint8Array(0))).toThrow();
  expect(encodeLastChunk(undefined)).toEqual(utf8Encode("0\r\n\r\n"));
});
