/**
 * Which bytes may stand where in an HTTP/1.1 head (RFC 9110 §5.6.2, RFC 9112 §3): one table, one bit per class.
 */

/** Letters, digits and ``!#$%&'*+-.^_`|~``: names and methods. */
export const tokenBit = 1;
/** Tab, space, visible ASCII and 0x80–0xff: field values, reason phrases, chunk extensions. */
export const textBit = 2;
/**
 * Visible ASCII without `#`, and 0x80–0xff: request targets. RFC 9112 wants those percent-encoded, but curl sends
 * a query as it was typed, origins understand UTF-8, and no parser takes such a byte for a delimiter.
 */
export const targetBit = 4;
/** Letters, digits, `.`, `-`, `_`: host names. Percent-encoding and sub-delimiters have no use in a Host that we serve. */
export const hostBit = 8;
export const digitBit = 16;

function buildTable(): Uint8Array {
  const table = new Uint8Array(256);
  const alphanumeric = /[0-9A-Za-z]/;
  for (let code = 0; code < 256; code++) {
    const char = String.fromCharCode(code);
    let bits = 0;
    if (alphanumeric.test(char) || "!#$%&'*+-.^_`|~".includes(char)) bits |= tokenBit;
    if (code === 0x09 || (code >= 0x20 && code !== 0x7f)) bits |= textBit;
    if (code > 0x20 && code !== 0x7f && char !== "#") bits |= targetBit;
    if (alphanumeric.test(char) || ".-_".includes(char)) bits |= hostBit;
    if (code >= 0x30 && code <= 0x39) bits |= digitBit;
    table[code] = bits;
  }
  return table;
}

/** Bits by byte value. */
export const charClass: Uint8Array = buildTable();

/** True when every character of a latin1 string has the class `bit`, and there is at least one. */
export function isAll(text: string, bit: number): boolean {
  const { length } = text;
  for (let i = 0; i < length; i++) {
    if (((charClass[text.charCodeAt(i)] ?? 0) & bit) === 0) return false;
  }
  return length > 0;
}
