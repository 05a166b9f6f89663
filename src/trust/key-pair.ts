/** EC P-256 keys on WebCrypto: make, keep as PKCS #8 PEM, sign and check. Signatures are the 64 bytes r ‖ s. */

import { hexEncode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { decodePem, encodePem } from "./pem.ts";

export const ecdsaKey = { name: "ECDSA", namedCurve: "P-256" } as const;
export const ecdsaSha256 = { name: "ECDSA", hash: "SHA-256" } as const;

export interface KeyPair {
  readonly privateKey: CryptoKey;
  /** SPKI, DER: what certificates hold and fingerprints are made of. */
  readonly publicKeySpki: Uint8Array;
}

/** WebCrypto's types refuse views on shared memory; ours never are. */
export function bufferSource(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes as Uint8Array<ArrayBuffer>;
}

export async function generateKeyPair(): Promise<KeyPair> {
  const keys = await crypto.subtle.generateKey(ecdsaKey, true, ["sign", "verify"]);
  const spki = await crypto.subtle.exportKey("spki", keys.publicKey);
  return { privateKey: keys.privateKey, publicKeySpki: new Uint8Array(spki) };
}

/** PKCS #8 PEM of the private key: a file with mode 0600, never a log line. */
export async function exportPrivateKey(privateKey: CryptoKey): Promise<string> {
  return encodePem("PRIVATE KEY", new Uint8Array(await crypto.subtle.exportKey("pkcs8", privateKey)));
}

/** @throws SallyError CERTIFICATE_INVALID when the text is not a P-256 key */
export async function importKeyPair(pem: string): Promise<KeyPair> {
  const der = decodePem("PRIVATE KEY", pem);
  try {
    const privateKey = await crypto.subtle.importKey("pkcs8", bufferSource(der), ecdsaKey, true, ["sign"]);
    // WebCrypto gives the public half of a private key only by way of JWK.
    const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", privateKey);
    if (kty === undefined || crv === undefined || x === undefined || y === undefined) throw new Error("no public half");
    const publicKey = await crypto.subtle.importKey("jwk", { kty, crv, x, y }, ecdsaKey, true, ["verify"]);
    return { privateKey, publicKeySpki: new Uint8Array(await crypto.subtle.exportKey("spki", publicKey)) };
  } catch (cause) {
    throw new SallyError("CERTIFICATE_INVALID", "The private key is not an EC P-256 key in PKCS #8.", { cause });
  }
}

/** @throws SallyError CERTIFICATE_INVALID when the bytes are not a P-256 public key */
export async function importPublicKey(spki: Uint8Array): Promise<CryptoKey> {
  try {
    return await crypto.subtle.importKey("spki", bufferSource(spki), ecdsaKey, true, ["verify"]);
  } catch (cause) {
    throw new SallyError("CERTIFICATE_INVALID", "The public key is not an EC P-256 key.", { cause });
  }
}

export async function signBytes(privateKey: CryptoKey, data: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.sign(ecdsaSha256, privateKey, bufferSource(data)));
}

export async function isSignedBy(publicKey: CryptoKey, data: Uint8Array, signature: Uint8Array): Promise<boolean> {
  if (signature.length !== 64) return false;
  return crypto.subtle.verify(ecdsaSha256, publicKey, bufferSource(signature), bufferSource(data));
}

export async function sha256(data: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bufferSource(data)));
}

export async function sha256Hex(data: Uint8Array): Promise<string> {
  return hexEncode(await sha256(data));
}

/** Lower-case hex SHA-256 of a public key (SPKI, DER). */
export function spkiFingerprint(spki: Uint8Array): Promise<string> {
  return sha256Hex(spki);
}
