/** Throw-away certificates for tests with real TLS: one authority, one node, one agent, and strangers. */

import "reflect-metadata/lite";
import * as x509 from "@peculiar/x509";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

export interface TestIdentity {
  readonly keyPem: string;
  readonly certPem: string;
  readonly der: Uint8Array;
}

export interface TestAuthority {
  readonly caPem: string;
  issue(options: { readonly role: "agent" | "node"; readonly expired?: boolean }): Promise<TestIdentity>;
}

let serial = 1;
const nextSerial = (): string => (serial++).toString(16).padStart(4, "0");

async function keyPem(key: CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

export async function createTestAuthority(name = "Test CA"): Promise<TestAuthority> {
  const caKeys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const day = 24 * 60 * 60 * 1_000;
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: nextSerial(),
    name: `CN=${name}`,
    notBefore: new Date(Date.now() - 3 * day),
    notAfter: new Date(Date.now() + day),
    signingAlgorithm: algorithm,
    keys: caKeys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  const issue = async ({
    role,
    expired = false,
  }: {
    role: "agent" | "node";
    expired?: boolean;
  }): Promise<TestIdentity> => {
    const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const usages =
      role === "node"
        ? [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]
        : [x509.ExtendedKeyUsage.clientAuth];
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: nextSerial(),
      subject: `CN=${role}`,
      issuer: ca.subject,
      notBefore: new Date(Date.now() - 2 * day),
      notAfter: new Date(Date.now() + (expired ? -day : day)),
      signingAlgorithm: algorithm,
      publicKey: keys.publicKey,
      signingKey: caKeys.privateKey,
      extensions: [
        new x509.ExtendedKeyUsageExtension(usages),
        ...(role === "node"
          ? [new x509.SubjectAlternativeNameExtension([{ type: "dns", value: "node.sally.internal" }])]
          : []),
      ],
    });
    return {
      keyPem: await keyPem(keys.privateKey),
      certPem: certificate.toString("pem"),
      der: new Uint8Array(certificate.rawData),
    };
  };
  return { caPem: ca.toString("pem"), issue };
}
