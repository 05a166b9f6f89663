/**
 * The join token: one line that holds a secret and the fingerprint of the node's CA, so that the first connection is
 * already pinned. `sally_` makes it easy for secret scanners to find one that was published by accident.
 */

import { base64UrlDecode, base64UrlEncode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { sha256Hex } from "./key-pair.ts";

export interface JoinToken {
  /** 32 random bytes. Never logged, never stored by the node. */
  readonly secret: Uint8Array;
  /** Lower-case hex SHA-256 of the CA certificate, DER. */
  readonly caFingerprint: string;
}

const secretBytes = 32;
const pattern = /^sally_([A-Za-z0-9_-]{43})\.([0-9a-f]{64})$/;

export function createSecret(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(secretBytes));
}

export function formatJoinToken({ secret, caFingerprint }: JoinToken): string {
  return `sally_${base64UrlEncode(secret)}.${caFingerprint}`;
}

/** Reads a token; white space around it is ignored. @throws SallyError TOKEN_INVALID, without the text in the message */
export function parseJoinToken(text: string): JoinToken {
  const match = pattern.exec(text.trim());
  if (match === null) {
    throw new SallyError("TOKEN_INVALID", "This is not a join token: it starts with sally_ and is one line.");
  }
  try {
    return { secret: base64UrlDecode(match[1]!), caFingerprint: match[2]! }; // the pattern has both groups
  } catch {
    // The cause would quote the secret.
    throw new SallyError("TOKEN_INVALID", "The join token is damaged: copy it again.");
  }
}

/** What the node stores instead of the secret: lower-case hex SHA-256. The secret has 256 bits, so no salt is needed. */
export function hashSecret(secret: Uint8Array): Promise<string> {
  return sha256Hex(secret);
}
