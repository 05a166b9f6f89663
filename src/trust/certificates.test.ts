import { beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { concatBytes } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import {
  type Ca,
  certificateTimes,
  createCa,
  issueCertificate,
  keyFingerprint,
  loadCa,
  loadCaCertificate,
  nodeServerName,
  verifyCertificate,
} from "./certificates.ts";
import { readCertificate } from "./certificate-reader.ts";
import {
  ecdsaKey,
  ecdsaSha256,
  exportPrivateKey,
  generateKeyPair,
  importKeyPair,
  importPublicKey,
  type KeyPair,
} from "./key-pair.ts";
import { decodePem, encodePem } from "./pem.ts";
import { loadX509 } from "./x509.ts";

const nowMs = Date.UTC(2026, 5, 1);
let ca: Ca;
let pems: { keyPem: string; certificatePem: string };
let keys: KeyPair;

beforeAll(async () => {
  const made = await createCa({ nowMs });
  ca = made.ca;
  pems = made;
  keys = await generateKeyPair();
});

function issue(overrides: Partial<Parameters<typeof issueCertificate>[0]> = {}): Promise<Uint8Array> {
  return issueCertificate({
    ca,
    publicKeySpki: keys.publicKeySpki,
    role: "agent",
    identity: "ada",
    installation: "Laptop-1.home",
    tokenId: "tok_1",
    nowMs,
    notAfterMs: nowMs + limits.agentCertificateMs,
    ...overrides,
  });
}

/** A certificate that our CA really signed, with extensions of the test's choice. */
async function issueOdd(options: {
  uri: string;
  usages: string[];
  dns?: string[];
  isCa?: boolean;
  curve?: string;
}): Promise<Uint8Array> {
  const x509 = await loadX509();
  const { publicKey } = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: options.curve ?? "P-256" }, true, [
    "sign",
    "verify",
  ]);
  const built = await x509.X509CertificateGenerator.create({
    subject: "CN=odd",
    issuer: new x509.X509Certificate(ca.certificate).subjectName,
    notBefore: new Date(nowMs - 1_000),
    notAfter: new Date(nowMs + 1_000_000),
    signingAlgorithm: { ...ecdsaKey, ...ecdsaSha256 },
    publicKey,
    signingKey: ca.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(options.isCa ?? false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(options.usages),
      new x509.SubjectAlternativeNameExtension([
        { type: "url", value: options.uri },
        ...(options.dns ?? []).map((value) => ({ type: "dns" as const, value })),
      ]),
    ],
  });
  return new Uint8Array(built.rawData);
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    if (error instanceof SallyError) return error.code;
    throw error;
  }
}

const serverAuth = "1.3.6.1.5.5.7.3.1";
const clientAuth = "1.3.6.1.5.5.7.3.2";

describe("certificates", () => {
  test("say whose they are", async () => {
    const der = await issue();
    expect(await verifyCertificate(der, ca, nowMs)).toEqual({
      role: "agent",
      identity: "ada",
      installation: "Laptop-1.home",
      tokenId: "tok_1",
      notAfterMs: nowMs + limits.agentCertificateMs,
      keyFingerprint: await keyFingerprint(der),
    });
    const node = await issue({ role: "node", identity: "node", tokenId: undefined, hosts: ["edge.example.org"] });
    expect(await verifyCertificate(node, ca, nowMs)).toMatchObject({ role: "node", tokenId: undefined });
    expect(readCertificate(node).dnsNames).toEqual([nodeServerName, "edge.example.org"]);
    expect(certificateTimes(node).notAfterMs).toBe(nowMs + limits.agentCertificateMs);
  });

  test("read the same in the library as in our reader", async () => {
    const x509 = await loadX509();
    const der = await issue({ role: "node", tokenId: undefined });
    const theirs = new x509.X509Certificate(der);
    const ours = readCertificate(der);
    expect(ours.notAfterMs).toBe(theirs.notAfter.getTime());
    expect(ours.notBeforeMs).toBe(theirs.notBefore.getTime());
    expect(ours.publicKeySpki).toEqual(new Uint8Array(theirs.publicKey.rawData));
    expect(ours.issuer).toEqual(new Uint8Array(theirs.issuerName.toArrayBuffer()));
    expect(theirs.getExtension(x509.ExtendedKeyUsageExtension)?.usages.map(String)).toEqual([...ours.usages]);
  });

  test("hold until a minute after their end and from a minute before their beginning", async () => {
    const der = await issue();
    const endMs = nowMs + limits.agentCertificateMs;
    expect(await codeOf(verifyCertificate(der, ca, endMs + limits.clockSkewMs))).toBe("none");
    expect(await codeOf(verifyCertificate(der, ca, endMs + limits.clockSkewMs + 1))).toBe("CERTIFICATE_INVALID");
    const startMs = nowMs - limits.certificateBackdateMs;
    expect(await codeOf(verifyCertificate(der, ca, startMs - limits.clockSkewMs))).toBe("none");
    expect(await codeOf(verifyCertificate(der, ca, startMs - limits.clockSkewMs - 1))).toBe("CERTIFICATE_INVALID");
  });

  test("of a node and of the CA hold from a day ago, the CA's for twenty years", async () => {
    const node = certificateTimes(await issue({ role: "node", identity: "node", tokenId: undefined }));
    expect(node.notBeforeMs).toBe(nowMs - limits.nodeCertificateBackdateMs);
    const times = certificateTimes(ca.certificate);
    expect(times.notBeforeMs).toBe(nowMs - limits.nodeCertificateBackdateMs);
    expect(times.notAfterMs).toBe(nowMs + limits.caCertificateMs);
  });

  test("may have 4 KiB, and no byte more", async () => {
    const ofBytes = async (bytes: number): Promise<Uint8Array> => {
      let hostBytes = 3_000;
      for (;;) {
        const der = await issue({ role: "node", identity: "node", tokenId: undefined, hosts: ["h".repeat(hostBytes)] });
        if (der.length === bytes) return der;
        hostBytes += bytes - der.length; // more than once: a signature's length varies
      }
    };
    expect(await codeOf(verifyCertificate(await ofBytes(limits.certificateBytes), ca, nowMs))).toBe("none");
    const above = verifyCertificate(await ofBytes(limits.certificateBytes + 1), ca, nowMs);
    expect(await codeOf(above)).toBe("CERTIFICATE_INVALID");
  });

  test("of another CA are refused, also when it has the same name", async () => {
    const other = (await createCa({ nowMs })).ca;
    expect(await codeOf(verifyCertificate(await issue({ ca: other }), ca, nowMs))).toBe("CERTIFICATE_INVALID");
    const liar: Ca = { ...ca, privateKey: other.privateKey };
    expect(await codeOf(verifyCertificate(await issue({ ca: liar }), ca, nowMs))).toBe("CERTIFICATE_INVALID");
  });

  test("signed by a leaf instead of the CA are refused", async () => {
    const leaf = await issue();
    const fields = readCertificate(leaf);
    expect(fields.isCa).toBe(false);
    expect(await codeOf(loadCaCertificate(leaf))).toBe("CERTIFICATE_INVALID");
    const fake: Ca = { ...ca, privateKey: keys.privateKey };
    expect(await codeOf(verifyCertificate(await issue({ ca: fake }), ca, nowMs))).toBe("CERTIFICATE_INVALID");
  });

  test("with one bit changed anywhere are refused", async () => {
    const der = await issue();
    for (let i = 0; i < der.length; i += 3) {
      const changed = der.slice();
      changed[i] = changed[i]! ^ 0x01;
      expect(await codeOf(verifyCertificate(changed, ca, nowMs))).toBe("CERTIFICATE_INVALID");
    }
  });

  test("cut short or lengthened are refused", async () => {
    const der = await issue();
    for (const bytes of [
      new Uint8Array(0),
      der.subarray(0, 1),
      der.subarray(0, -1),
      concatBytes([der, new Uint8Array(1)]),
    ]) {
      expect(await codeOf(verifyCertificate(bytes, ca, nowMs))).toBe("CERTIFICATE_INVALID");
    }
    expect(await codeOf(verifyCertificate(new Uint8Array(limits.certificateBytes + 1), ca, nowMs))).toBe(
      "CERTIFICATE_INVALID",
    );
  });

  test("made of anything are refused with our error, never with a crash", async () => {
    const der = await issue();
    const patch = fc.tuple(fc.nat(der.length - 1), fc.uint8Array({ minLength: 1, maxLength: 8 }));
    const patched = fc.array(patch, { minLength: 1, maxLength: 4 }).map((patches) => {
      const bytes = der.slice();
      for (const [at, piece] of patches) bytes.set(piece.subarray(0, bytes.length - at), at);
      return bytes;
    });
    const read = (bytes: Uint8Array): void => {
      try {
        readCertificate(bytes);
      } catch (error) {
        if (!(error instanceof SallyError) || error.code !== "CERTIFICATE_INVALID") throw error;
      }
    };
    fc.assert(fc.property(fc.oneof(patched, fc.uint8Array({ maxLength: 600 })), read), { numRuns: 2_000 });
  });

  test("of a node need the role, the key usage and the name; of an agent none of them", async () => {
    const good = { uri: "sally://node/node/n1", usages: [serverAuth, clientAuth], dns: [nodeServerName] };
    expect(await codeOf(verifyCertificate(await issueOdd(good), ca, nowMs))).toBe("none");
    const odd = [
      { ...good, usages: [clientAuth] },
      { ...good, usages: [serverAuth] },
      { ...good, dns: ["example.org"] },
      { ...good, isCa: true },
      { ...good, uri: "sally://admin/node/n1" },
      { ...good, uri: "sally://agent/ada/x" },
      { ...good, uri: "https://node/node/n1" },
      { ...good, curve: "P-384" },
      { uri: "sally://agent/ada/x", usages: [clientAuth], dns: [nodeServerName] },
      { uri: "sally://agent/ada/x", usages: [] },
    ];
    for (const options of odd) {
      expect(await codeOf(verifyCertificate(await issueOdd(options), ca, nowMs))).toBe("CERTIFICATE_INVALID");
    }
  });

  test("are not issued for an identity that would change the meaning of the URI", async () => {
    for (const identity of ["ada/eve", "", "Ada", "a?token=x", "a#b", "a%2fb", "ada\n", "-a", "a".repeat(65)]) {
      expect(await codeOf(issue({ identity }))).toBe("CERTIFICATE_INVALID");
    }
    for (const installation of ["a/b", "", "a?b", "ü", "a".repeat(65)]) {
      expect(await codeOf(issue({ installation }))).toBe("CERTIFICATE_INVALID");
    }
    expect(await codeOf(issue({ tokenId: "a&b" }))).toBe("CERTIFICATE_INVALID");
  });
});

describe("a CA", () => {
  test("comes back from its files", async () => {
    const loaded = await loadCa(pems);
    expect(loaded.fingerprint).toBe(ca.fingerprint);
    expect(await codeOf(verifyCertificate(await issue({ ca: loaded }), ca, nowMs))).toBe("none");
  });

  test("is refused when key and certificate do not belong together, or a file is damaged", async () => {
    const other = await createCa({ nowMs });
    const wrong = [
      { keyPem: other.keyPem, certificatePem: pems.certificatePem },
      { keyPem: "", certificatePem: pems.certificatePem },
      { keyPem: pems.keyPem.slice(0, 80), certificatePem: pems.certificatePem },
      { keyPem: pems.keyPem, certificatePem: pems.keyPem },
      { keyPem: pems.keyPem, certificatePem: encodePem("CERTIFICATE", await issue()) },
    ];
    for (const files of wrong) expect(await codeOf(loadCa(files))).toBe("CERTIFICATE_INVALID");
  });
});

describe("keys", () => {
  test("come back from PEM with the same public half", async () => {
    const loaded = await importKeyPair(await exportPrivateKey(keys.privateKey));
    expect(loaded.publicKeySpki).toEqual(keys.publicKeySpki);
    expect(decodePem("PRIVATE KEY", pems.keyPem).length).toBeGreaterThan(100);
    expect(await codeOf(importPublicKey(new Uint8Array(10)))).toBe("CERTIFICATE_INVALID");
  });
});
