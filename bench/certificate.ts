/** One self-signed certificate for `localhost`, made with openssl, in the forms that the peers want. */

import { join } from "node:path";
import { run } from "./processes.ts";

export interface Certificate {
  readonly certPath: string;
  readonly keyPath: string;
  readonly pkcs12Path: string;
  readonly pkcs12Password: string;
}

export async function createCertificate(openssl: string, folder: string): Promise<Certificate> {
  const certPath = join(folder, "cert.pem");
  const keyPath = join(folder, "key.pem");
  const pkcs12Path = join(folder, "identity.p12");
  const pkcs12Password = "bench";
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", keyPath];
  await run([openssl, "req", "-x509", "-days", "2", ...key, ...subject, "-out", certPath]);
  const bundle = ["-in", certPath, "-inkey", keyPath, "-out", pkcs12Path, "-passout", `pass:${pkcs12Password}`];
  await run([openssl, "pkcs12", "-export", ...bundle]);
  return { certPath, keyPath, pkcs12Path, pkcs12Password };
}
