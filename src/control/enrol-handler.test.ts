/** Both sides of enrolment against each other: the client of src/api speaks to the handler, without sockets. */

import { beforeEach, describe, expect, test } from "bun:test";
import { createEnrolClient, fetchCa } from "../api/enrol-client.ts";
import type { ApiRequest } from "../api/request.ts";
import { enrolTranscript, renewTranscript } from "../api/transcript.ts";
import { base64UrlEncode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits, type Limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import type { Handler } from "../http/exchange.ts";
import { MemoryRegistry } from "../store/memory.ts";
import { type Ca, createCa, issueCertificate, verifyCertificate } from "../trust/certificates.ts";
import { parseJoinToken } from "../trust/join-token.ts";
import { generateKeyPair, type KeyPair, signBytes } from "../trust/key-pair.ts";
import { decodePem } from "../trust/pem.ts";
import { createEnrolHandler } from "./enrol-handler.ts";
import { fakeCall, type FakeReply } from "./fake-exchange.ts";
import { Revocations } from "./revocations.ts";
import { TokenService } from "./token-service.ts";

const day = 24 * 60 * 60 * 1_000;
let clock: FakeClock;
let registry: MemoryRegistry;
let tokens: TokenService;
let revocations: Revocations;
let ca: Ca;
let handler: Handler;

beforeEach(async () => {
  clock = new FakeClock();
  registry = new MemoryRegistry();
  revocations = new Revocations({ registry, clock, log: silentLogger, pollMs: 1_000 });
  ({ ca } = await createCa({ nowMs: clock.wallMs() }));
  tokens = new TokenService({ registry, revocations, clock, caFingerprint: ca.fingerprint });
  handler = newHandler();
});

function newHandler(isTrustedProxy?: (address: string) => boolean, bounds: Limits = limits): Handler {
  return createEnrolHandler({ registry, tokens, ca, clock, log: silentLogger, isTrustedProxy, limits: bounds });
}

async function newToken(identity: string, expiresMs?: number): Promise<{ secret: Uint8Array; id: string }> {
  const { token, record } = await tokens.create({ label: "t", identity, names: [], ports: [], expiresMs }, "test");
  return { secret: parseJoinToken(token).secret, id: record.id };
}

const transport: ApiRequest = async (method, path, { body, headers = {} }) => {
  const type = body === undefined ? [] : ["content-type", "application/json"];
  const all = [...type, ...Object.entries(headers).flat()];
  const { status, text } = await fakeCall(handler, { method, target: path, headers: all, ...(body && { body }) });
  return { status, body: text };
};

function client(keys: KeyPair, options: { clock?: FakeClock; caFingerprint?: string } = {}) {
  return createEnrolClient({
    request: transport,
    clock: options.clock ?? clock,
    caFingerprint: options.caFingerprint ?? ca.fingerprint,
    sign: (data) => signBytes(keys.privateKey, data),
  });
}

interface Agent {
  readonly keys: KeyPair;
  readonly certificate: Uint8Array;
  readonly tokenId: string;
}

async function enrolled(identity: string, expiresMs?: number): Promise<Agent> {
  const keys = await generateKeyPair();
  const { secret, id } = await newToken(identity, expiresMs);
  const { certificate } = await client(keys).enrol({ secret, publicKeySpki: keys.publicKeySpki, installation: "i1" });
  return { keys, certificate, tokenId: id };
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

function post(target: string, value: unknown, remote = "127.0.0.1"): Promise<FakeReply> {
  const body = typeof value === "string" ? value : JSON.stringify(value);
  return fakeCall(handler, { method: "POST", target, headers: ["Content-Type", "application/json"], body, remote });
}

describe("enrolment", () => {
  test("hands out the CA in PEM", async () => {
    expect(decodePem("CERTIFICATE", await fetchCa(transport))).toEqual(ca.certificate);
  });

  test("trades a token for a certificate of the token's identity", async () => {
    const keys = await generateKeyPair();
    const { secret, id } = await newToken("ada");
    const issued = await client(keys).enrol({ secret, publicKeySpki: keys.publicKeySpki, installation: "laptop" });
    expect(issued).toMatchObject({ identity: "ada", notAfterMs: clock.wallMs() + limits.agentCertificateMs });
    const peer = await verifyCertificate(issued.certificate, ca, clock.wallMs());
    expect(peer).toMatchObject({ role: "agent", identity: "ada", installation: "laptop", tokenId: id });
    expect(registry.findEnrolment(peer.keyFingerprint)).toMatchObject({ identity: "ada", tokenId: id });
    expect(await revocations.isRevoked(peer)).toBe(false);
    expect(registry.listAudit(1)[0]).toMatchObject({ action: "agent.enrol", actor: "ada" });
  });

  test("refuses unknown, expired and revoked tokens", async () => {
    const keys = await generateKeyPair();
    const fields = { publicKeySpki: keys.publicKeySpki, installation: "i1" };
    expect(await codeOf(client(keys).enrol({ ...fields, secret: new Uint8Array(32) }))).toBe("TOKEN_INVALID");
    const lapsing = await newToken("ada", clock.wallMs() + 1_000);
    clock.advance(1_000);
    expect(await codeOf(client(keys).enrol({ ...fields, secret: lapsing.secret }))).toBe("TOKEN_INVALID");
    const revoked = await newToken("ada");
    await tokens.revoke(revoked.id, "test");
    expect(await codeOf(client(keys).enrol({ ...fields, secret: revoked.secret }))).toBe("TOKEN_INVALID");
    expect(registry.listEnrolments()).toHaveLength(0);
  });

  test("gives no certificate that outlives its token", async () => {
    const expiresMs = clock.wallMs() + 90_000;
    const { certificate } = await enrolled("ada", expiresMs);
    expect((await verifyCertificate(certificate, ca, clock.wallMs())).notAfterMs).toBe(expiresMs);
  });

  test("refuses a key that the caller cannot prove", async () => {
    const [keys, other] = [await generateKeyPair(), await generateKeyPair()];
    const { secret } = await newToken("ada");
    const stolen = client(other).enrol({ secret, publicKeySpki: keys.publicKeySpki, installation: "i1" });
    expect(await codeOf(stolen)).toBe("AUTH_FAILED");
  });

  test("refuses a proof that was made for another node", async () => {
    const keys = await generateKeyPair();
    const { secret } = await newToken("ada");
    const elsewhere = client(keys, { caFingerprint: "cd".repeat(32) });
    const attempt = elsewhere.enrol({ secret, publicKeySpki: keys.publicKeySpki, installation: "i1" });
    expect(await codeOf(attempt)).toBe("AUTH_FAILED");
  });

  test("refuses a key that is enrolled for somebody else, and one that was revoked", async () => {
    const ada = await enrolled("ada");
    const fields = { publicKeySpki: ada.keys.publicKeySpki, installation: "i1" };
    const eves = await newToken("eve");
    expect(await codeOf(client(ada.keys).enrol({ ...fields, secret: eves.secret }))).toBe("FORBIDDEN");
    const { keyFingerprint } = await verifyCertificate(ada.certificate, ca, clock.wallMs());
    await revocations.revokeEnrolment(keyFingerprint);
    const again = await newToken("ada");
    expect(await codeOf(client(ada.keys).enrol({ ...fields, secret: again.secret }))).toBe("CERTIFICATE_REVOKED");
  });

  test("takes every request once, also when it comes twice at the same time", async () => {
    const keys = await generateKeyPair();
    const { secret } = await newToken("ada");
    const fields = {
      publicKey: keys.publicKeySpki.toBase64(),
      installation: "i1",
      timestampMs: clock.wallMs(),
      nonce: base64UrlEncode(new Uint8Array(18)),
    };
    const transcript = enrolTranscript({ ...fields, caFingerprint: ca.fingerprint });
    const proof = (await signBytes(keys.privateKey, transcript)).toBase64();
    const request = { ...fields, secret: base64UrlEncode(secret), proof };
    const replies = await Promise.all([post("/_sally/enrol", request), post("/_sally/enrol", request)]);
    expect(replies.map(({ status }) => status).sort((a, b) => a - b)).toEqual([200, 401]);
    expect((await post("/_sally/enrol", request)).code).toBe("AUTH_FAILED");
    clock.advance(limits.proofAgeMs + 1);
    expect((await post("/_sally/enrol", request)).code).toBe("AUTH_FAILED");
  });

  test("lets a machine with a wrong clock in, by the node's clock", async () => {
    const keys = await generateKeyPair();
    const { secret } = await newToken("ada");
    const wrong = new FakeClock(clock.wallMs() - 3 * day);
    const issued = await client(keys, { clock: wrong }).enrol({
      secret,
      publicKeySpki: keys.publicKeySpki,
      installation: "i",
    });
    expect(issued.notAfterMs).toBe(clock.wallMs() + limits.agentCertificateMs);
  });

  describe("that fails", () => {
    const fail = (remote: string, forwarded?: string): Promise<FakeReply> => {
      const headers = ["Content-Type", "application/json", ...(forwarded ? ["X-Forwarded-For", forwarded] : [])];
      return fakeCall(handler, { method: "POST", target: "/_sally/enrol", headers, body: "{}", remote });
    };

    test("is limited for each address, together with renewals", async () => {
      for (let i = 0; i < limits.failedEnrolmentsPerMinutePerAddress; i++) {
        expect((await fail("192.0.2.1")).code).toBe("BAD_REQUEST");
      }
      const refused = await post("/_sally/renew", {}, "192.0.2.1");
      expect(refused).toMatchObject({ status: 429, code: "RATE_LIMITED" });
      expect((await fail("192.0.2.2")).code).toBe("BAD_REQUEST");
      clock.advance(60_000);
      expect((await fail("192.0.2.1")).code).toBe("BAD_REQUEST");
    });

    test("keeps nobody from enrolling or renewing who has the same address", async () => {
      for (let i = 0; i < 2 * limits.failedEnrolmentsPerMinutePerAddress; i++) await fail("127.0.0.1");
      expect((await fail("127.0.0.1")).code).toBe("RATE_LIMITED");
      const { keys, certificate } = await enrolled("ada");
      expect(await codeOf(client(keys).renew({ certificate }))).toBe("none");
      const wrong = new FakeClock(clock.wallMs() - day);
      expect(await codeOf(client(keys, { clock: wrong }).renew({ certificate }))).toBe("none");
    });

    test("counts for the client that a trusted proxy names", async () => {
      handler = newHandler((address) => address === "10.0.0.1");
      for (let i = 0; i < limits.failedEnrolmentsPerMinutePerAddress; i++) await fail("10.0.0.1", "192.0.2.1");
      expect((await fail("10.0.0.1", "198.51.100.7, 192.0.2.1")).code).toBe("RATE_LIMITED");
      expect((await fail("10.0.0.1", "192.0.2.1, 198.51.100.7")).code).toBe("BAD_REQUEST");
      expect((await fail("192.0.2.1", "198.51.100.7")).code).toBe("RATE_LIMITED");
    });
  });

  test("is refused when the token has enrolled as many machines as it may, until some are forgotten", async () => {
    handler = newHandler(undefined, { ...limits, enrolmentsPerToken: 2 });
    const { secret } = await newToken("ada");
    const enrol = async (): Promise<{ keys: KeyPair; certificate: Uint8Array }> => {
      const keys = await generateKeyPair();
      const { certificate } = await client(keys).enrol({
        secret,
        publicKeySpki: keys.publicKeySpki,
        installation: "i",
      });
      return { keys, certificate };
    };
    const first = await enrol();
    clock.advance(1_000);
    await enrol();
    expect(await codeOf(enrol())).toBe("ENROLMENT_LIMIT");
    expect(await codeOf(client(first.keys).renew({ certificate: first.certificate }))).toBe("none");
    clock.advance(limits.agentCertificateMs + limits.renewAfterExpiryMs);
    expect(await codeOf(enrol())).toBe("ENROLMENT_LIMIT");
    clock.advance(1_000);
    expect(await codeOf(enrol())).toBe("none");
    expect(registry.listEnrolments()).toHaveLength(1);
  });

  test("is limited for each token, of whatever address", async () => {
    const { keys, certificate } = await enrolled("ada");
    for (let i = 1; i < limits.enrolmentsPerMinutePerToken; i++) await client(keys).renew({ certificate });
    expect(await codeOf(client(keys).renew({ certificate }))).toBe("RATE_LIMITED");
    const { keys: others, certificate: other } = await enrolled("bob");
    expect(await codeOf(client(others).renew({ certificate: other }))).toBe("none");
  });

  test("refuses malformed, oversized and unknown requests without quoting them", async () => {
    const secret = "s".repeat(43);
    for (const body of ["", "{", "[]", `{"secret":"${secret}"}`, `{"secret":"${secret}`]) {
      const reply = await post("/_sally/enrol", body);
      expect(reply.code).toBe("BAD_REQUEST");
      expect(reply.text).not.toContain(secret);
    }
    expect((await post("/_sally/enrol", " ".repeat(limits.apiBodyBytes + 1))).code).toBe("BODY_TOO_LARGE");
    expect((await post("/_sally/enrol", " ".repeat(limits.apiBodyBytes))).code).toBe("BAD_REQUEST");
    const plain = await fakeCall(handler, { method: "POST", target: "/_sally/enrol", headers: [], body: "{}" });
    expect(plain.code).toBe("BAD_REQUEST");
    expect((await fakeCall(handler, { target: "/_sally/enrol" })).code).toBe("NOT_FOUND");
    expect((await fakeCall(handler, { target: "/index.html" })).status).toBe(404);
    expect((await fakeCall(handler, { method: "POST", target: "/" })).status).toBe(404);
  });

  test("tells who opens the node's own address what this is, and no more", async () => {
    for (const method of ["GET", "HEAD"]) {
      const page = await fakeCall(handler, { method, target: "/?x=<script>" });
      expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
      expect(page.headers.get("content-security-policy")).toBe("default-src 'none'; style-src 'unsafe-inline'");
      expect(page.text).toContain("This is a Sallyport node");
      expect(page.text).not.toMatch(/<script|\d+\.\d+\.\d+|localhost/);
    }
  });

  test("answers troubles as RFC 9457 describes", async () => {
    const reply = await post("/_sally/enrol", "{}");
    expect(reply.headers.get("content-type")).toBe("application/problem+json");
    expect(JSON.parse(reply.text)).toMatchObject({
      status: 400,
      code: "BAD_REQUEST",
      requestId: "x1",
      title: expect.any(String),
    });
  });

  test("does not show what a bug says", async () => {
    registry.findTokenByHash = () => {
      throw new Error("secret detail");
    };
    const keys = await generateKeyPair();
    const attempt = client(keys).enrol({
      secret: new Uint8Array(32),
      publicKeySpki: keys.publicKeySpki,
      installation: "i",
    });
    const error = await attempt.catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "INTERNAL" });
    expect(String(error)).not.toContain("secret detail");
  });
});

describe("renewal", () => {
  test("gives a new certificate for the same key, identity and installation", async () => {
    const { keys, certificate, tokenId } = await enrolled("ada");
    clock.advance(day / 2);
    const renewed = await client(keys).renew({ certificate });
    const [before, after] = [
      await verifyCertificate(certificate, ca, clock.wallMs()),
      await verifyCertificate(renewed.certificate, ca, clock.wallMs()),
    ];
    expect(after).toEqual({ ...before, notAfterMs: clock.wallMs() + limits.agentCertificateMs, tokenId });
    expect(registry.findEnrolment(after.keyFingerprint)?.renewedMs).toBe(clock.wallMs());
    expect(registry.listAudit(1)[0]?.action).toBe("agent.renew");
  });

  test("works until thirty days after the certificate's end, not longer", async () => {
    const { keys, certificate } = await enrolled("ada");
    clock.advance(limits.agentCertificateMs + limits.renewAfterExpiryMs);
    expect(await codeOf(client(keys).renew({ certificate }))).toBe("none");
    clock.advance(1_000);
    expect(await codeOf(client(keys).renew({ certificate }))).toBe("CERTIFICATE_INVALID");
  });

  test("with another's key is refused", async () => {
    const [ada, eve] = [await enrolled("ada"), await enrolled("eve")];
    expect(await codeOf(client(eve.keys).renew({ certificate: ada.certificate }))).toBe("AUTH_FAILED");
  });

  test("ends with the token: revoked, expired, or given to another identity", async () => {
    const ada = await enrolled("ada");
    await tokens.revoke(ada.tokenId, "test");
    expect(await codeOf(client(ada.keys).renew({ certificate: ada.certificate }))).toBe("CERTIFICATE_REVOKED");
    const bob = await enrolled("bob", clock.wallMs() + 5_000);
    clock.advance(5_000);
    expect(await codeOf(client(bob.keys).renew({ certificate: bob.certificate }))).toBe("CERTIFICATE_REVOKED");
  });

  test("ends with the enrolment: revoked or not on record", async () => {
    const ada = await enrolled("ada");
    const { keyFingerprint } = await verifyCertificate(ada.certificate, ca, clock.wallMs());
    await revocations.revokeEnrolment(keyFingerprint);
    expect(await codeOf(client(ada.keys).renew({ certificate: ada.certificate }))).toBe("CERTIFICATE_REVOKED");
    const keys = await generateKeyPair();
    const { id } = await newToken("eve");
    const unknown = await issue({ keys, role: "agent", tokenId: id, identity: "eve" });
    expect(await codeOf(client(keys).renew({ certificate: unknown }))).toBe("CERTIFICATE_REVOKED");
  });

  test("of a foreign CA's, a node's, or a certificate without token is refused", async () => {
    const keys = await generateKeyPair();
    const foreign = (await createCa({ nowMs: clock.wallMs() })).ca;
    const { id } = await newToken("ada");
    const odd = [
      await issue({ keys, role: "agent", tokenId: id, identity: "ada", issuer: foreign }),
      await issue({ keys, role: "node", tokenId: id, identity: "ada" }),
      await issue({ keys, role: "agent", tokenId: undefined, identity: "ada" }),
      new Uint8Array(100),
    ];
    for (const certificate of odd)
      expect(await codeOf(client(keys).renew({ certificate }))).toBe("CERTIFICATE_INVALID");
  });

  test("cannot be replayed, nor its parts exchanged", async () => {
    const ada = await enrolled("ada");
    const fields = {
      certificate: ada.certificate.toBase64(),
      timestampMs: clock.wallMs(),
      nonce: base64UrlEncode(new Uint8Array(18)),
    };
    const transcript = renewTranscript({ ...fields, caFingerprint: ca.fingerprint });
    const proof = (await signBytes(ada.keys.privateKey, transcript)).toBase64();
    const request = { ...fields, proof };
    expect((await post("/_sally/renew", { ...request, nonce: base64UrlEncode(new Uint8Array(19)) })).code).toBe(
      "AUTH_FAILED",
    );
    expect((await post("/_sally/renew", { ...request, timestampMs: fields.timestampMs + 1 })).code).toBe("AUTH_FAILED");
    const replies = await Promise.all([post("/_sally/renew", request), post("/_sally/renew", request)]);
    expect(replies.map(({ status }) => status).sort((a, b) => a - b)).toEqual([200, 401]);
    expect((await post("/_sally/renew", request)).code).toBe("AUTH_FAILED");
    for (const byMs of [limits.proofAgeMs, 1, 2 * limits.proofAgeMs]) {
      clock.advance(byMs);
      expect((await post("/_sally/renew", request)).code).toBe("AUTH_FAILED");
    }
  });
});

async function issue(options: {
  keys: KeyPair;
  role: "agent" | "node";
  tokenId: string | undefined;
  identity: string;
  issuer?: Ca;
}): Promise<Uint8Array> {
  const { keys, role, tokenId, identity, issuer = ca } = options;
  return issueCertificate({
    ca: issuer,
    publicKeySpki: keys.publicKeySpki,
    role,
    identity,
    installation: "i1",
    tokenId,
    nowMs: clock.wallMs(),
    notAfterMs: clock.wallMs() + day,
  });
}
