/**
 * Certificates of our own CA: issue them, and check them. Role, identity, installation and token are one URI in the
 * subject alternative name, `sally://agent/IDENTITY/INSTALLATION?token=ID`, so that the signature covers them. An
 * agent's certificate has no serverAuth and role agent; it can never act as a node's.
 */

import { hexEncode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import type { PeerIdentity, Role } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import { type CertificateFields, readCertificate } from "./certificate-reader.ts";
import {
  bufferSource,
  ecdsaKey,
  ecdsaSha256,
  exportPrivateKey,
  generateKeyPair,
  importKeyPair,
  importPublicKey,
  isSignedBy,
  sha256Hex,
  signBytes,
  spkiFingerprint,
} from "./key-pair.ts";
import { decodePem, encodePem } from "./pem.ts";
import { loadX509 } from "./x509.ts";

/** The DNS name in every node's certificate: agents use it as TLS server name, wherever the node runs. */
export const nodeServerName = "node.sally.internal";

/** What is needed to check certificates of a CA. */
export interface CaCertificate {
  /** DER. */
  readonly certificate: Uint8Array;
  /** Lower-case hex SHA-256 of the certificate, DER: what join tokens carry. */
  readonly fingerprint: string;
  readonly publicKey: CryptoKey;
  /** The subject name, DER. */
  readonly subject: Uint8Array;
}

/** What is needed to issue certificates. */
export interface Ca extends CaCertificate {
  readonly privateKey: CryptoKey;
}

export interface IssueRequest {
  readonly ca: Ca;
  readonly publicKeySpki: Uint8Array;
  readonly role: Role;
  readonly identity: string;
  readonly installation: string;
  readonly tokenId?: string | undefined;
  readonly nowMs: number;
  readonly notAfterMs: number;
  /** More DNS names of a node; `nodeServerName` is always there. Agents have none. */
  readonly hosts?: readonly string[];
}

/** A certificate of ours whose signature and role hold. Its validity in time is not checked yet. */
export interface OpenedCertificate {
  readonly peer: PeerIdentity;
  readonly publicKey: CryptoKey;
  readonly publicKeySpki: Uint8Array;
  readonly notBeforeMs: number;
}

const serverAuth = "1.3.6.1.5.5.7.3.1";
const clientAuth = "1.3.6.1.5.5.7.3.2";
const subjectUri =
  /^sally:\/\/(agent|node)\/([a-z0-9][a-z0-9._@-]{0,63})\/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:\?token=([A-Za-z0-9_-]{1,64}))?$/;

/** Makes a CA. Its key is returned as PEM too: the caller stores it with mode 0600. */
export async function createCa({
  nowMs,
}: {
  readonly nowMs: number;
}): Promise<{ readonly ca: Ca; readonly keyPem: string; readonly certificatePem: string }> {
  const x509 = await loadX509();
  const keys = await generateKeyPair();
  const publicKey = await importPublicKey(keys.publicKeySpki);
  const fingerprint = await spkiFingerprint(keys.publicKeySpki);
  const built = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=Sallyport CA ${fingerprint.slice(0, 16)}`,
    notBefore: new Date(nowMs - limits.nodeCertificateBackdateMs),
    notAfter: new Date(nowMs + limits.caCertificateMs),
    signingAlgorithm: { ...ecdsaKey, ...ecdsaSha256 },
    keys: { privateKey: keys.privateKey, publicKey },
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
  const certificate = new Uint8Array(built.rawData);
  return {
    ca: { ...(await loadCaCertificate(certificate)), privateKey: keys.privateKey },
    keyPem: await exportPrivateKey(keys.privateKey),
    certificatePem: encodePem("CERTIFICATE", certificate),
  };
}

/** Reads a CA certificate to check others with; checks that it is a CA's and signed by itself. */
export async function loadCaCertificate(certificate: Uint8Array): Promise<CaCertificate> {
  const fields = readCertificate(certificate);
  const publicKey = await importPublicKey(fields.publicKeySpki);
  if (!fields.isCa) throw new SallyError("CERTIFICATE_INVALID", "This is not the certificate of a CA.");
  if (!(await isSignedBy(publicKey, fields.signedBytes, fields.signature))) {
    throw new SallyError("CERTIFICATE_INVALID", "The CA certificate is damaged.");
  }
  return { certificate, fingerprint: await sha256Hex(certificate), publicKey, subject: fields.subject };
}

/** @throws SallyError CERTIFICATE_INVALID when the two do not belong together */
export async function loadCa({
  keyPem,
  certificatePem,
}: {
  readonly keyPem: string;
  readonly certificatePem: string;
}): Promise<Ca> {
  const ca = await loadCaCertificate(decodePem("CERTIFICATE", certificatePem));
  const { privateKey } = await importKeyPair(keyPem);
  const sample = crypto.getRandomValues(new Uint8Array(32));
  if (!(await isSignedBy(ca.publicKey, sample, await signBytes(privateKey, sample)))) {
    throw new SallyError("CERTIFICATE_INVALID", "The CA's key does not belong to its certificate.");
  }
  return { ...ca, privateKey };
}

/**
 * Signs a leaf certificate; returns DER. A node's is valid from a day ago, because agents with slow clocks check it; an
 * agent's from five minutes ago, because nodes do.
 */
export async function issueCertificate(request: IssueRequest): Promise<Uint8Array> {
  const { ca, role, identity, installation, tokenId, nowMs, notAfterMs } = request;
  const uri = `sally://${role}/${identity}/${installation}${tokenId === undefined ? "" : `?token=${tokenId}`}`;
  if (!subjectUri.test(uri))
    throw new SallyError("CERTIFICATE_INVALID", "Identity or installation has odd characters.");
  const publicKey = await importPublicKey(request.publicKeySpki);
  const x509 = await loadX509();
  const backdateMs = role === "node" ? limits.nodeCertificateBackdateMs : limits.certificateBackdateMs;
  const hosts = role === "node" ? [nodeServerName, ...(request.hosts ?? [])] : [];
  const built = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=Sallyport ${role}`,
    issuer: new x509.X509Certificate(bufferSource(ca.certificate)).subjectName,
    notBefore: new Date(nowMs - backdateMs),
    notAfter: new Date(notAfterMs),
    signingAlgorithm: { ...ecdsaKey, ...ecdsaSha256 },
    publicKey,
    signingKey: ca.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(role === "node" ? [serverAuth, clientAuth] : [clientAuth]),
      new x509.SubjectAlternativeNameExtension([
        { type: "url", value: uri },
        ...hosts.map((value) => ({ type: "dns" as const, value })),
      ]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(ca.publicKey),
    ],
  });
  return new Uint8Array(built.rawData);
}

/** Checks that the CA signed it and that it is a leaf of our profile; says whose it is. Not its validity in time. */
export async function openCertificate(der: Uint8Array, ca: CaCertificate): Promise<OpenedCertificate> {
  const fields = readCertificate(der);
  const isOurs = hexEncode(fields.issuer) === hexEncode(ca.subject);
  if (!isOurs || !(await isSignedBy(ca.publicKey, fields.signedBytes, fields.signature))) {
    throw new SallyError("CERTIFICATE_INVALID", "The certificate was not issued by this node's CA: log in again.");
  }
  const [, role, identity, installation, tokenId] = subjectOf(fields);
  if (role === undefined || identity === undefined || installation === undefined) throw wrongKind();
  if (!mayAct(fields, role)) throw wrongKind();
  const publicKey = await importPublicKey(fields.publicKeySpki);
  const keyFingerprint = await spkiFingerprint(fields.publicKeySpki);
  return {
    peer: {
      role: role === "node" ? "node" : "agent",
      identity,
      installation,
      keyFingerprint,
      notAfterMs: fields.notAfterMs,
      tokenId,
    },
    publicKey,
    publicKeySpki: fields.publicKeySpki,
    notBeforeMs: fields.notBeforeMs,
  };
}

/** @throws SallyError CERTIFICATE_INVALID before and after its time, give or take a minute */
export function checkValidity({ peer, notBeforeMs }: OpenedCertificate, nowMs: number): void {
  if (nowMs > peer.notAfterMs + limits.clockSkewMs) {
    throw new SallyError("CERTIFICATE_INVALID", "The certificate has expired.");
  }
  if (nowMs < notBeforeMs - limits.clockSkewMs) {
    throw new SallyError(
      "CERTIFICATE_INVALID",
      "The certificate is not valid yet: compare the clocks of both machines.",
    );
  }
}

/** Signature, profile and validity in time. @throws SallyError CERTIFICATE_INVALID */
export async function verifyCertificate(der: Uint8Array, ca: CaCertificate, nowMs: number): Promise<PeerIdentity> {
  const opened = await openCertificate(der, ca);
  checkValidity(opened, nowMs);
  return opened.peer;
}

/** Lower-case hex SHA-256 of a certificate's public key (SPKI, DER); the certificate itself is not checked. */
export async function keyFingerprint(certificate: Uint8Array): Promise<string> {
  return spkiFingerprint(readCertificate(certificate).publicKeySpki);
}

/** When a certificate of our own ends: to renew it in time. The certificate itself is not checked. */
export function certificateTimes(certificate: Uint8Array): {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
} {
  const { notBeforeMs, notAfterMs } = readCertificate(certificate);
  return { notBeforeMs, notAfterMs };
}

function subjectOf({ uris }: CertificateFields): readonly (string | undefined)[] {
  const [uri, ...others] = uris;
  if (uri === undefined || others.length > 0) throw wrongKind();
  const match = subjectUri.exec(uri);
  if (match === null) throw wrongKind();
  return match;
}

/** Role and key usage must agree, so that neither alone makes a node of an agent. */
function mayAct({ isCa, canSign, usages, dnsNames }: CertificateFields, role: string): boolean {
  if (isCa || !canSign || !usages.includes(clientAuth)) return false;
  if (role === "node") return usages.includes(serverAuth) && dnsNames.includes(nodeServerName);
  return !usages.includes(serverAuth) && dnsNames.length === 0;
}

function wrongKind(): SallyError {
  return new SallyError("CERTIFICATE_INVALID", "The certificate is of another kind than is needed here.");
}

/** 127 random bits, positive (RFC 5280 §4.1.2.2). */
function serialNumber(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[0] = (bytes[0]! & 0x7f) | 0x40; // 16 bytes long
  return hexEncode(bytes);
}
