/** PEM (RFC 7468): base64 between BEGIN and END lines. */

import { SallyError } from "../core/errors.ts";

export type PemLabel = "CERTIFICATE" | "PRIVATE KEY";

export function encodePem(label: PemLabel, der: Uint8Array): string {
  const lines = der.toBase64().match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

/** The first block with that label. @throws SallyError CERTIFICATE_INVALID when there is none or it is damaged */
export function decodePem(label: PemLabel, text: string): Uint8Array {
  const begin = `-----BEGIN ${label}-----`;
  const start = text.indexOf(begin);
  const end = text.indexOf(`-----END ${label}-----`, start);
  if (start < 0 || end < 0) throw new SallyError("CERTIFICATE_INVALID", `There is no PEM block "${label}".`);
  try {
    return Uint8Array.fromBase64(text.slice(start + begin.length, end));
  } catch (cause) {
    throw new SallyError("CERTIFICATE_INVALID", `The PEM block "${label}" is damaged.`, { cause });
  }
}
