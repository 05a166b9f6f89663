/**
 * What an agent signs to prove that a key is its own. Every field has its length in front, so that no two sets of
 * fields give the same bytes; the CA's fingerprint ties the proof to one node, the first line to one purpose.
 */

import { concatBytes, utf8Encode } from "../core/bytes.ts";

export interface EnrolTranscript {
  readonly caFingerprint: string;
  readonly publicKey: string;
  readonly installation: string;
  readonly timestampMs: number;
  readonly nonce: string;
}

export interface RenewTranscript {
  readonly caFingerprint: string;
  readonly certificate: string;
  readonly timestampMs: number;
  readonly nonce: string;
}

/** Bytes to sign when enrolling; `publicKey` in base64 as it is sent. */
export function enrolTranscript(fields: EnrolTranscript): Uint8Array {
  const { caFingerprint, publicKey, installation, timestampMs, nonce } = fields;
  return frame(["sallyport enrol 1", caFingerprint, publicKey, installation, String(timestampMs), nonce]);
}

/** Bytes to sign when renewing; `certificate` in base64 as it is sent. */
export function renewTranscript(fields: RenewTranscript): Uint8Array {
  const { caFingerprint, certificate, timestampMs, nonce } = fields;
  return frame(["sallyport renew 1", caFingerprint, certificate, String(timestampMs), nonce]);
}

function frame(fields: readonly string[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const field of fields) {
    const bytes = utf8Encode(field);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length);
    parts.push(length, bytes);
  }
  return concatBytes(parts);
}
