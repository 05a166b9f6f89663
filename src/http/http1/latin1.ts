/**
 * Bytes to strings and back with one character a byte (ISO 8859-1). `TextDecoder("latin1")` is windows-1252, which
 * changes 0x80–0x9f and is slow; the UTF-8 codecs are fast, and right as long as everything is ASCII.
 */

const utf8Decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const utf8Encoder = new TextEncoder();
const blockBytes = 4096;

/** Decodes; `isAscii` comes from a caller that has looked at every byte already. */
export function decodeLatin1(bytes: Uint8Array, isAscii: boolean): string {
  if (isAscii) return utf8Decoder.decode(bytes);
  let text = "";
  for (let at = 0; at < bytes.length; at += blockBytes) {
    text += String.fromCharCode(...bytes.subarray(at, at + blockBytes));
  }
  return text;
}

/** Writes `text` to the start of `out`, which has room for it. @throws RangeError for a character above 0xff */
export function encodeLatin1Into(text: string, out: Uint8Array): void {
  const { length } = text;
  const { read, written } = utf8Encoder.encodeInto(text, out);
  if (read === length && written === length) return; // ASCII
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0xff) throw new RangeError("a character above U+00FF cannot stand in an HTTP/1.1 head");
    out[i] = code;
  }
}
