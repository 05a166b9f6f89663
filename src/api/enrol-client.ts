/**
 * An agent's side of enrolment: fetch the CA, trade a join token for a certificate, renew it by proof of the key. A
 * clock that is off by more than the node allows is corrected by the node's own, once.
 */

import { base64UrlEncode } from "../core/bytes.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import { ApiError, type ApiRequest, expectDone, readReply } from "./request.ts";
import { type EnrolReply, enrolReply, type EnrolRequest, type RenewRequest } from "./schemas.ts";
import { enrolTranscript, renewTranscript } from "./transcript.ts";

export interface EnrolClientOptions {
  readonly request: ApiRequest;
  readonly clock: Clock;
  /** Hex SHA-256 of the CA certificate, from the join token or from disk. */
  readonly caFingerprint: string;
  /** Signs with the agent's private key: ECDSA P-256 with SHA-256, 64 bytes. */
  readonly sign: (data: Uint8Array) => Promise<Uint8Array>;
}

export interface IssuedCertificate {
  /** DER. */
  readonly certificate: Uint8Array;
  readonly notAfterMs: number;
  readonly identity: string;
}

export interface EnrolClient {
  /** @throws SallyError TOKEN_INVALID, CERTIFICATE_REVOKED, and what the transport throws */
  enrol(request: { secret: Uint8Array; publicKeySpki: Uint8Array; installation: string }): Promise<IssuedCertificate>;
  /** Works until 30 days after the certificate's end. @throws SallyError CERTIFICATE_INVALID, CERTIFICATE_REVOKED */
  renew(request: { certificate: Uint8Array }): Promise<IssuedCertificate>;
}

/** The CA certificate in PEM; the caller compares its fingerprint with the token's before anything else. */
export async function fetchCa(request: ApiRequest): Promise<string> {
  const reply = await request("GET", "/_sally/ca", {});
  expectDone(reply);
  if (!reply.body.includes("-----BEGIN CERTIFICATE-----")) {
    throw new SallyError(
      "PROTOCOL_VIOLATION",
      "The node sent no certificate: is this the tunnel port of a Sallyport node?",
    );
  }
  return reply.body;
}

export function createEnrolClient({ request, clock, caFingerprint, sign }: EnrolClientOptions): EnrolClient {
  const post = async (path: string, body: EnrolRequest | RenewRequest): Promise<IssuedCertificate> => {
    const reply: EnrolReply = readReply(await request("POST", path, { body: JSON.stringify(body) }), enrolReply);
    return { ...reply, certificate: Uint8Array.fromBase64(reply.certificate) };
  };
  const enrolAt = async (fields: Omit<EnrolRequest, "timestampMs" | "nonce" | "proof">, timestampMs: number) => {
    const nonce = newNonce();
    const proof = await sign(enrolTranscript({ ...fields, caFingerprint, timestampMs, nonce }));
    return post("/_sally/enrol", { ...fields, timestampMs, nonce, proof: proof.toBase64() });
  };
  const renewAt = async (certificate: string, timestampMs: number) => {
    const nonce = newNonce();
    const proof = await sign(renewTranscript({ certificate, caFingerprint, timestampMs, nonce }));
    return post("/_sally/renew", { certificate, timestampMs, nonce, proof: proof.toBase64() });
  };
  return {
    enrol: ({ secret, publicKeySpki, installation }) => {
      const fields = { secret: base64UrlEncode(secret), publicKey: publicKeySpki.toBase64(), installation };
      return withNodeClock(clock, (nowMs) => enrolAt(fields, nowMs));
    },
    renew: ({ certificate }) => withNodeClock(clock, (nowMs) => renewAt(certificate.toBase64(), nowMs)),
  };
}

async function withNodeClock<T>(clock: Clock, attempt: (nowMs: number) => Promise<T>): Promise<T> {
  try {
    return await attempt(clock.wallMs());
  } catch (error) {
    if (error instanceof ApiError && error.nodeNowMs !== undefined) return attempt(error.nodeNowMs);
    throw error;
  }
}

function newNonce(): string {
  return base64UrlEncode(crypto.getRandomValues(new Uint8Array(18)));
}
