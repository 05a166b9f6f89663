/** Our certificates, judged by OpenSSL: the profile holds for others than our own reader. */

import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { createCa, issueCertificate } from "../../src/trust/certificates.ts";
import { generateKeyPair } from "../../src/trust/key-pair.ts";
import { encodePem } from "../../src/trust/pem.ts";
import { Scratch } from "../support/sally.ts";

test("OpenSSL accepts our certificates for their purpose only", async () => {
  using scratch = new Scratch();
  const nowMs = Date.now();
  const { ca, certificatePem } = await createCa({ nowMs });
  writeFileSync(scratch.join("ca.pem"), certificatePem);
  for (const role of ["node", "agent"] as const) {
    const { publicKeySpki } = await generateKeyPair();
    const subject = { ca, publicKeySpki, role, identity: "owner", installation: "here" };
    const certificate = await issueCertificate({ ...subject, nowMs, notAfterMs: nowMs + 60_000 });
    writeFileSync(scratch.join(`${role}.pem`), encodePem("CERTIFICATE", certificate));
  }
  const verdict = async (purpose: string, role: string): Promise<boolean> => {
    const command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", scratch.join("ca.pem")];
    return (await Bun.spawn([...command, scratch.join(`${role}.pem`)], { stderr: "ignore" }).exited) === 0;
  };
  expect(await verdict("sslserver", "node")).toBe(true);
  expect(await verdict("sslclient", "node")).toBe(true);
  expect(await verdict("sslclient", "agent")).toBe(true);
  expect(await verdict("sslserver", "agent")).toBe(false);
});
