import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { concatBytes, utf8Decode, utf8Encode } from "../../core/bytes.ts";
import { type ErrorCode, SallyError } from "../../core/errors.ts";
import { type Limits, limits } from "../../core/limits.ts";
import { HeaderList } from "../header-list.ts";
import { type BodyDecoder, ChunkedDecoder, LengthDecoder, UntilCloseDecoder } from "./body-decoder.ts";
import { encodeChunk, encodeLastChunk } from "./head-writer.ts";

interface Decoded {
  readonly text: string;
  readonly pieces: number;
  /** Bytes that belong to the body. */
  readonly used: number;
  readonly isDone: boolean;
  readonly trailers: readonly string[] | undefined;
}

function decode(decoder: BodyDecoder, bytes: Uint8Array, size = bytes.length): Decoded {
  const pieces: Uint8Array[] = [];
  let used = 0;
  for (let at = 0; at < bytes.length && !decoder.isDone; at += size) {
    used += decoder.push(bytes.subarray(at, at + size), 0, { onBody: (piece) => void pieces.push(piece) });
  }
  const text = utf8Decode(concatBytes(pieces));
  return { text, pieces: pieces.length, used, isDone: decoder.isDone, trailers: decoder.trailers?.raw };
}

const chunked = (small: Limits = limits): ChunkedDecoder => new ChunkedDecoder(small, "BAD_REQUEST");

function codeOf(text: string, size = text.length, small?: Limits): ErrorCode | Decoded {
  try {
    return decode(
      chunked(small),
      Uint8Array.from(text, (char) => char.charCodeAt(0)),
      size,
    );
  } catch (thrown) {
    if (thrown instanceof SallyError) return thrown.code;
    throw thrown;
  }
}

test("a body of known length ends there and leaves the rest", () => {
  expect(decode(new LengthDecoder(5), utf8Encode("helloGET /"))).toMatchObject({
    text: "hello",
    used: 5,
    isDone: true,
  });
  expect(decode(new LengthDecoder(5), utf8Encode("helloGET /"), 2)).toMatchObject({ text: "hello", isDone: true });
  const short = new LengthDecoder(5);
  expect(decode(short, utf8Encode("hell")).isDone).toBe(false);
  expect(short.finish()).toBe(false);
  expect(new LengthDecoder(0).isDone).toBe(true);
});

test("a body until close ends when the connection does", () => {
  const decoder = new UntilCloseDecoder();
  expect(decode(decoder, utf8Encode("abc"))).toMatchObject({ text: "abc", used: 3, isDone: false });
  expect(decoder.finish()).toBe(true);
  expect(decoder.isDone).toBe(true);
});

describe("chunked", () => {
  test("chunks, extensions, trailers and the next message", () => {
    const text = '5\r\nhello\r\n00A;a=b;c="d e"\r\n 123456789\r\n0;last\r\nX-A: 1\r\nx-a: 2\r\n\r\nGET /';
    for (let size = 1; size <= text.length; size++) {
      const decoded = decode(chunked(), utf8Encode(text), size);
      expect(decoded).toMatchObject({ text: "hello 123456789", isDone: true, trailers: ["X-A", "1", "x-a", "2"] });
      expect(decoded.used).toBe(text.length - "GET /".length);
    }
  });

  test.each([
    ["no size", "\r\nhello\r\n0\r\n\r\n"],
    ["a space before the size", " 5\r\nhello\r\n0\r\n\r\n"],
    ["a space behind the size", "5 \r\nhello\r\n0\r\n\r\n"],
    ["a tab behind the size", "5\t\r\nhello\r\n0\r\n\r\n"],
    ["a space before an extension", "5 ;a\r\nhello\r\n0\r\n\r\n"],
    ["a prefix 0x", "0x5\r\nhello\r\n0\r\n\r\n"],
    ["a sign", "+5\r\nhello\r\n0\r\n\r\n"],
    ["a negative size", "-5\r\nhello\r\n0\r\n\r\n"],
    ["an underscore", "1_0\r\nhello\r\n0\r\n\r\n"],
    ["no hexadecimal digit", "g\r\nhello\r\n0\r\n\r\n"],
    ["a size over 2^53", "20000000000001\r\nhello\r\n0\r\n\r\n"],
    ["a size that wraps at 2^64", "10000000000000005\r\nhello\r\n0\r\n\r\n"],
    ["17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"],
    ["a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"],
    ["a bare CR behind the size", "5\rhello\r\n0\r\n\r\n"],
    ["CR CR LF behind the size", "5\r\r\nhello\r\n0\r\n\r\n"],
    ["a bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n"],
    ["a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"],
    ["a NUL in an extension", "5;a\0b\r\nhello\r\n0\r\n\r\n"],
    ["a bare LF behind the data", "5\r\nhello\n0\r\n\r\n"],
    ["a bare CR behind the data", "5\r\nhello\r0\r\n\r\n"],
    ["data longer than its size", "5\r\nhelloo\r\n0\r\n\r\n"],
    ["data shorter than its size", "6\r\nhello\r\n0\r\n\r\n"],
    ["two bytes instead of CR LF", "5\r\nhelloXX0\r\n\r\n"],
    ["a bare LF behind the last chunk", "0\n\r\n"],
    ["a bare LF as the empty line", "0\r\n\n"],
    ["CR and something else at the end", "0\r\n\rX"],
    ["a folded trailer", "0\r\nX: a\r\n b\r\n\r\n"],
    ["a space before a trailer's colon", "0\r\nX : a\r\n\r\n"],
    ["a trailer without a name", "0\r\n: a\r\n\r\n"],
    ["a bare LF behind a trailer", "0\r\nX: a\n\r\n"],
    ["a control character in a trailer", "0\r\nX: a\x01\r\n\r\n"],
    ["a request where a trailer should be", "0\r\nGET / HTTP/1.1\r\n\r\n"],
  ])("%s is refused, however it is cut", (_name, text) => {
    expect(codeOf(text)).toBe("BAD_REQUEST");
    expect(codeOf(text, 1)).toBe("BAD_REQUEST");
  });

  test("the largest size that a number holds exactly is read", () => {
    expect(codeOf("1fffffffffffff\r\nabc")).toMatchObject({ text: "abc", isDone: false });
    expect(codeOf("0000000000000005\r\nhello\r\n0\r\n\r\n")).toMatchObject({ text: "hello", isDone: true });
  });

  test("framing, routing and authentication fields in a trailer are dropped", () => {
    const fields =
      "Host: b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nauthorization: x\r\nX-Forwarded-For: 1\r\n";
    const text = `0\r\n${fields}Content_Length: 5\r\nSally-Error: x\r\nCookie: a\r\nGrpc-Status: 0\r\n\r\n`;
    expect(codeOf(text)).toMatchObject({ trailers: ["Grpc-Status", "0"] });
  });

  test("trailers at the limit pass, one byte or field more does not", () => {
    const small = { ...limits, trailerBytes: 20, headFields: 2 };
    expect(codeOf(`0\r\nX: ${"a".repeat(13)}\r\n\r\n`, 99, small)).toMatchObject({ isDone: true });
    expect(codeOf(`0\r\nX: ${"a".repeat(14)}\r\n\r\n`, 99, small)).toBe("HEADERS_TOO_LARGE");
    expect(codeOf("0\r\na:\r\nb:\r\n\r\n", 99, small)).toMatchObject({ isDone: true });
    expect(codeOf("0\r\na:\r\nb:\r\nc:\r\n\r\n", 99, small)).toBe("HEADERS_TOO_LARGE");
  });

  test("extensions beyond the limit are refused unless data pays for them", () => {
    const small = { ...limits, chunkExtensionBytes: 4 };
    expect(codeOf("1;1234\r\na\r\n0\r\n\r\n", 99, small)).toMatchObject({ isDone: true });
    expect(codeOf("1;12345\r\na\r\n0\r\n\r\n", 99, small)).toBe("HEADERS_TOO_LARGE");
    expect(codeOf("1;1234\r\na\r\n1;12\r\na\r\n0\r\n\r\n", 99, small)).toBe("HEADERS_TOO_LARGE");
    expect(codeOf("4;1234\r\nabcd\r\n4;1234\r\nabcd\r\n0\r\n\r\n", 99, small)).toMatchObject({ isDone: true });
  });

  test("many small chunks become one piece, large ones stay slices", () => {
    const body = utf8Encode("1\r\na\r\n".repeat(1_000));
    expect(decode(chunked(), body)).toMatchObject({ text: "a".repeat(1_000), pieces: 1 });
    const large = encodeChunk(new Uint8Array(5_000));
    const pieces: Uint8Array[] = [];
    chunked().push(large, 0, { onBody: (piece) => void pieces.push(piece) });
    expect(pieces[0]?.buffer).toBe(large.buffer);
  });

  test("what is encoded is decoded, however it is cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 3_000 })),
        fc.integer({ min: 1, max: 4_000 }),
        (parts, size) => {
          const trailers = new HeaderList(["X-Sum", "1"]);
          const bytes = concatBytes([...parts.map((part) => encodeChunk(part)), encodeLastChunk(trailers)]);
          const pieces: Uint8Array[] = [];
          const decoder = chunked();
          for (let at = 0; at < bytes.length; at += size) {
            decoder.push(bytes.subarray(at, at + size), 0, { onBody: (piece) => void pieces.push(piece) });
          }
          expect(concatBytes([new Uint8Array(0), ...pieces])).toEqual(concatBytes([new Uint8Array(0), ...parts]));
          expect(decoder.trailers).toEqual(trailers);
        },
      ),
      { numRuns: 60 },
    );
  });
});
