/** Certificates for host names, from an authority that a test may let a process trust (NODE_EXTRA_CA_CERTS). */

import { isIP } from "node:net";
import "reflect-metadata/lite";
import * as x509 from "@peculiar/x509";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const dayMs = 24 * 60 * 60 * 1_000;

export interface HostCertificate {
  readonly keyPem: string;
  readonly certPem: string;
}

export interface PublicAuthority {
  readonly caPem: string;
  /** `expired`: its time is over. */
  issue(hosts: readonly string[], options?: { readonly expired?: boolean }): Promise<HostCertificate>;
}

export async function createPublicAuthority(name = "Test Root"): Promise<PublicAuthority> {
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomSerial(),
    name: `CN=${name}`,
    notBefore: new Date(Date.now() - 3 * dayMs),
    notAfter: new Date(Date.now() + dayMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  return {
    caPem: ca.toString("pem"),
    async issue(hosts, { expired = false } = {}) {
      const own = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
      const certificate = await x509.X509CertificateGenerator.create({
        serialNumber: randomSerial(),
        subject: `CN=${hosts[0]}`,
        issuer: ca.subject,
        notBefore: new Date(Date.now() - 2 * dayMs),
        notAfter: new Date(Date.now() + (expired ? -dayMs : dayMs)),
        signingAlgorithm: algorithm,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new x509.SubjectAlternativeNameExtension(
            hosts.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value })),
          ),
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        ],
      });
      const pkcs8 = await crypto.subtle.exportKey("pkcs8", own.privateKey);
      return { keyPem: x509.PemConverter.encode(pkcs8, "PRIVATE KEY"), certPem: certificate.toString("pem") };
    },
  };
}

function randomSerial(): string {
  return `4${crypto.getRandomValues(new Uint8Array(8)).toHex()}`;
}
