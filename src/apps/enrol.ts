/**
 * How an agent comes by its certificate: from disk, by trading a join token, or by renewing the one it has. The node is
 * pinned from the first request on, by the CA fingerprint inside the token.
 */

import { createEnrolClient, fetchCa, type IssuedCertificate } from "../api/enrol-client.ts";
import { hexEncode, utf8Encode } from "../core/bytes.ts";
import { systemClock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import { certificateTimes, verifyCertificate, loadCaCertificate } from "../trust/certificates.ts";
import { parseJoinToken } from "../trust/join-token.ts";
import { exportPrivateKey, generateKeyPair, importKeyPair, sha256, signBytes } from "../trust/key-pair.ts";
import { decodePem, encodePem } from "../trust/pem.ts";
import type { AgentState, Credential } from "./agent-state.ts";
import { type EdgeAddress, nodeRequest } from "./edge-address.ts";

export interface EnrolOptions {
  readonly edge: EdgeAddress;
  readonly state: AgentState;
  readonly signal: AbortSignal;
}

export interface HeldCredential {
  /** Names the credential in the agent's state. */
  readonly key: string;
  readonly credential: Credential;
}

/**
 * The credential to link with: of the given token if there is one, else what `sally login` left for this node. A
 * certificate past its end is renewed first.
 * @throws SallyError AUTH_FAILED without token and login; TOKEN_INVALID, CA_MISMATCH, CONNECT_FAILED …
 */
export async function obtainCredential(options: EnrolOptions, token: string | undefined): Promise<HeldCredential> {
  const { edge, state } = options;
  const key = token === undefined ? await state.credentialKeyFor(edge.authority) : await credentialKey(token);
  const credential = key === undefined ? undefined : await state.readCredential(key);
  if (key !== undefined && credential !== undefined) return { key, credential: await fresh(options, key, credential) };
  if (token === undefined) {
    throw new SallyError(
      "AUTH_FAILED",
      `this machine is not logged in to ${edge.url}: run "sally login ${edge.url} --token-file FILE", or pass --token-file`,
    );
  }
  return await enrol(options, token);
}

/** Trades a join token for a certificate, and keeps it. @throws SallyError TOKEN_INVALID, CA_MISMATCH, USAGE */
export async function enrol({ edge, state, signal }: EnrolOptions, token: string): Promise<HeldCredential> {
  const { secret, caFingerprint } = parseJoinToken(token);
  const caPem = await fetchPinnedCa(edge, caFingerprint, signal);
  const pair = await generateKeyPair();
  const client = createEnrolClient({
    request: nodeRequest(edge, caPem, signal),
    clock: systemClock,
    caFingerprint,
    sign: (data) => signBytes(pair.privateKey, data),
  });
  const installation = await state.installation();
  const issued = await client.enrol({ secret, publicKeySpki: pair.publicKeySpki, installation });
  const keyPem = await exportPrivateKey(pair.privateKey);
  const credential = await keep({ caPem, caFingerprint, keyPem, issued });
  const key = await credentialKey(token);
  await state.writeCredential(key, credential);
  return { key, credential };
}

/** A new certificate for the same key, by proof of that key. @throws SallyError CERTIFICATE_REVOKED, CERTIFICATE_INVALID */
export async function renew({ edge, state, signal }: EnrolOptions, held: HeldCredential): Promise<HeldCredential> {
  const { caPem, caFingerprint, keyPem, certificatePem } = held.credential;
  const pair = await importKeyPair(keyPem);
  const client = createEnrolClient({
    request: nodeRequest(edge, caPem, signal),
    clock: systemClock,
    caFingerprint,
    sign: (data) => signBytes(pair.privateKey, data),
  });
  const issued = await client.renew({ certificate: decodePem("CERTIFICATE", certificatePem) });
  const credential = await keep({ caPem, caFingerprint, keyPem, issued });
  await state.writeCredential(held.key, credential);
  return { key: held.key, credential };
}

async function fresh(options: EnrolOptions, key: string, credential: Credential): Promise<Credential> {
  const { notAfterMs } = certificateTimes(decodePem("CERTIFICATE", credential.certificatePem));
  if (systemClock.wallMs() < notAfterMs) return credential;
  return (await renew(options, { key, credential })).credential;
}

async function fetchPinnedCa(edge: EdgeAddress, caFingerprint: string, signal: AbortSignal): Promise<string> {
  const caPem = await fetchCa(nodeRequest(edge, undefined, signal));
  const fingerprint = hexEncode(await sha256(decodePem("CERTIFICATE", caPem)));
  if (fingerprint === caFingerprint) return caPem;
  throw new SallyError("CA_MISMATCH", `${edge.url} is not the node that the token was made for: check both`);
}

async function keep(parts: {
  caPem: string;
  caFingerprint: string;
  keyPem: string;
  issued: IssuedCertificate;
}): Promise<Credential> {
  const { caPem, caFingerprint, keyPem, issued } = parts;
  const ca = await loadCaCertificate(decodePem("CERTIFICATE", caPem));
  const peer = await verifyCertificate(issued.certificate, ca, systemClock.wallMs());
  const certificatePem = encodePem("CERTIFICATE", issued.certificate);
  return { version: 1, identity: peer.identity, caFingerprint, caPem, keyPem, certificatePem };
}

/** A hash of the token, so that two tokens on one machine never mix; the token cannot be found from it. */
async function credentialKey(token: string): Promise<string> {
  return hexEncode(await sha256(utf8Encode(`sallyport credential ${token.trim()}`))).slice(0, 32);
}
