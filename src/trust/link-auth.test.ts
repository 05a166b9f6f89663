import { beforeAll, describe, expect, test } from "bun:test";
import { utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import type { LinkAuth, Role } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import { type Ca, createCa, issueCertificate } from "./certificates.ts";
import { generateKeyPair, type KeyPair, signBytes } from "./key-pair.ts";
import { CertificateCache, createLinkAuth } from "./link-auth.ts";

const clock = new FakeClock();
const data = utf8Encode("both nonces");
let ca: Ca;

beforeAll(async () => {
  ({ ca } = await createCa({ nowMs: clock.wallMs() }));
});

interface Side {
  readonly auth: LinkAuth;
  readonly keys: KeyPair;
}

async function side(role: Role, identity: string, options: { isRevoked?: () => boolean; ca?: Ca } = {}): Promise<Side> {
  const keys = await generateKeyPair();
  const certificate = await issueCertificate({
    ca: options.ca ?? ca,
    publicKeySpki: keys.publicKeySpki,
    role,
    identity,
    installation: "i1",
    nowMs: clock.wallMs(),
    notAfterMs: clock.wallMs() + limits.agentCertificateMs,
  });
  const auth = createLinkAuth({
    role,
    key: keys.privateKey,
    certificate,
    caCertificate: ca,
    process: "p1",
    clock,
    allowsProxiedTls: false,
    ...(options.isRevoked && { isRevoked: options.isRevoked }),
  });
  return { auth, keys };
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

describe("link authentication", () => {
  test("each side proves itself to the other", async () => {
    const [node, agent] = [await side("node", "node"), await side("agent", "ada")];
    const peer = await node.auth.verify(agent.auth.certificate, data, await agent.auth.sign(data));
    expect(peer).toMatchObject({
      role: "agent",
      identity: "ada",
      keyFingerprint: await agent.auth.fingerprint(agent.auth.certificate),
    });
    expect(await agent.auth.verify(node.auth.certificate, data, await node.auth.sign(data))).toMatchObject({
      role: "node",
    });
  });

  test("an agent's certificate is never taken for a node's", async () => {
    const [ada, eve] = [await side("agent", "ada"), await side("agent", "eve")];
    expect(await codeOf(ada.auth.verify(eve.auth.certificate, data, await eve.auth.sign(data)))).toBe(
      "CERTIFICATE_INVALID",
    );
  });

  test("a node's certificate is not taken for an agent's", async () => {
    const [one, two] = [await side("node", "one"), await side("node", "two")];
    expect(await codeOf(one.auth.verify(two.auth.certificate, data, await two.auth.sign(data)))).toBe(
      "CERTIFICATE_INVALID",
    );
  });

  test("a stolen certificate without its key is refused", async () => {
    const [node, ada, eve] = [await side("node", "node"), await side("agent", "ada"), await side("agent", "eve")];
    const signature = await signBytes(eve.keys.privateKey, data);
    expect(await codeOf(node.auth.verify(ada.auth.certificate, data, signature))).toBe("CERTIFICATE_INVALID");
    expect(await codeOf(node.auth.verify(ada.auth.certificate, data, new Uint8Array(0)))).toBe("CERTIFICATE_INVALID");
    const other = await ada.auth.sign(utf8Encode("another link"));
    expect(await codeOf(node.auth.verify(ada.auth.certificate, data, other))).toBe("CERTIFICATE_INVALID");
  });

  test("a foreign CA's certificate is refused", async () => {
    const foreign = await createCa({ nowMs: clock.wallMs() });
    const [node, eve] = [await side("node", "node"), await side("agent", "ada", { ca: foreign.ca })];
    expect(await codeOf(node.auth.verify(eve.auth.certificate, data, await eve.auth.sign(data)))).toBe(
      "CERTIFICATE_INVALID",
    );
  });

  test("revocation is asked every time, although the certificate is cached", async () => {
    let isRevoked = false;
    const node = await side("node", "node", { isRevoked: () => isRevoked });
    const ada = await side("agent", "ada");
    const signature = await ada.auth.sign(data);
    expect(await codeOf(node.auth.verify(ada.auth.certificate, data, signature))).toBe("none");
    isRevoked = true;
    expect(await codeOf(node.auth.verify(ada.auth.certificate, data, signature))).toBe("CERTIFICATE_REVOKED");
  });

  test("a cached certificate still expires", async () => {
    const [node, ada] = [await side("node", "node"), await side("agent", "ada")];
    const signature = await ada.auth.sign(data);
    expect(await codeOf(node.auth.verify(ada.auth.certificate, data, signature))).toBe("none");
    clock.advance(limits.agentCertificateMs + limits.clockSkewMs + 1);
    expect(await codeOf(node.auth.verify(ada.auth.certificate, data, signature))).toBe("CERTIFICATE_INVALID");
  });

  test("the cache of certificates is bounded", async () => {
    const cache = new CertificateCache(ca, 2);
    for (const identity of ["a", "b", "c"]) await cache.open((await side("agent", identity)).auth.certificate);
    expect(cache.size).toBe(2);
  });
});
