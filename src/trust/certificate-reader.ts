/**
 * Takes an X.509 certificate apart into the fields our profile uses (RFC 5280). It trusts nothing and decides nothing:
 * signature, role and validity are checked in certificates.ts.
 */

import { utf8Decode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { DerReader, derTag, oidText, readOnly, signatureFromDer, timeMs } from "./der.ts";

export interface CertificateFields {
  /** The signed part, as it was signed. */
  readonly signedBytes: Uint8Array;
  /** 64 bytes r ‖ s. */
  readonly signature: Uint8Array;
  /** Names as DER, to be compared byte for byte. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly publicKeySpki: Uint8Array;
  readonly isCa: boolean;
  readonly canSign: boolean;
  /** Object identifiers of the extended key usages. */
  readonly usages: readonly string[];
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
}

const oid = {
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
} as const;

interface Extensions {
  isCa: boolean;
  canSign: boolean;
  usages: string[];
  uris: string[];
  dnsNames: string[];
}

/** @throws SallyError CERTIFICATE_INVALID when the bytes are not a certificate that we could have issued */
export function readCertificate(der: Uint8Array): CertificateFields {
  if (der.length > limits.certificateBytes) throw invalid("it is too large");
  const outer = new DerReader(readOnly(der, derTag.sequence).content);
  const signed = outer.expect(derTag.sequence);
  const algorithm = outer.expect(derTag.sequence);
  const signatureBits = outer.expect(derTag.bitString).content;
  outer.finish();
  expectAlgorithm(algorithm.content);
  if (signatureBits[0] !== 0) throw invalid("its signature is no byte string");

  const body = new DerReader(signed.content);
  if (readOnly(body.expect(0xa0).content, derTag.integer).content[0] !== 2) throw invalid("it is not version 3");
  body.expect(derTag.integer); // the serial number: nothing depends on it
  expectAlgorithm(body.expect(derTag.sequence).content);
  const issuer = body.expect(derTag.sequence).bytes;
  const validity = new DerReader(body.expect(derTag.sequence).content);
  const notBeforeMs = timeMs(validity.next());
  const notAfterMs = timeMs(validity.next());
  validity.finish();
  const subject = body.expect(derTag.sequence).bytes;
  const publicKeySpki = body.expect(derTag.sequence).bytes;
  const extensions = readExtensions(readOnly(body.expect(0xa3).content, derTag.sequence).content);
  body.finish();
  return {
    signedBytes: signed.bytes,
    signature: signatureFromDer(signatureBits.subarray(1)),
    issuer,
    subject,
    notBeforeMs,
    notAfterMs,
    publicKeySpki,
    ...extensions,
  };
}

function readExtensions(content: Uint8Array): Extensions {
  const found: Extensions = { isCa: false, canSign: false, usages: [], uris: [], dnsNames: [] };
  const seen = new Set<string>();
  for (const list = new DerReader(content); !list.isAtEnd;) {
    const extension = new DerReader(list.expect(derTag.sequence).content);
    const id = oidText(extension.expect(derTag.oid).content);
    const isCritical = extension.take(derTag.boolean) !== undefined;
    const value = extension.expect(derTag.octetString).content;
    extension.finish();
    if (seen.has(id)) throw invalid("an extension occurs twice");
    seen.add(id);
    readExtension(id, value, isCritical, found);
  }
  return found;
}

function readExtension(id: string, value: Uint8Array, isCritical: boolean, found: Extensions): void {
  switch (id) {
    case oid.basicConstraints:
      found.isCa = new DerReader(readOnly(value, derTag.sequence).content).take(derTag.boolean) !== undefined;
      return;
    case oid.keyUsage:
      // Bit 0 of the first octet after the count of unused bits is digitalSignature.
      found.canSign = ((readOnly(value, derTag.bitString).content[1] ?? 0) & 0x80) !== 0;
      return;
    case oid.extendedKeyUsage:
      for (const list = new DerReader(readOnly(value, derTag.sequence).content); !list.isAtEnd;) {
        found.usages.push(oidText(list.expect(derTag.oid).content));
      }
      return;
    case oid.subjectAltName:
      for (const list = new DerReader(readOnly(value, derTag.sequence).content); !list.isAtEnd;) {
        const { tag, content } = list.next();
        if (tag === 0x86) found.uris.push(utf8Decode(content));
        if (tag === 0x82) found.dnsNames.push(utf8Decode(content));
      }
      return;
    default:
      if (isCritical) throw invalid("it has a critical extension that is unknown here");
  }
}

function expectAlgorithm(content: Uint8Array): void {
  const id = oidText(new DerReader(content).expect(derTag.oid).content);
  if (id !== oid.ecdsaWithSha256) throw invalid("it is not signed with ECDSA and SHA-256");
}

function invalid(what: string): SallyError {
  return new SallyError("CERTIFICATE_INVALID", `The certificate is not one of ours: ${what}.`);
}
