/**
 * How an agent comes by its certificate: from disk, by trading a join token, or by renewing the one it has. The node is
 * pinned from the first request on, by the CA fingerprint inside the token.
 */

import { createEnrolClient, fetchCa, type IssuedCertificate } from "../api/enrol-client.ts";
import { hexEncode, utf8Encode } from "../core/bytes.ts";
import { systemClock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { certificateTimes, loadCaCertificate, openCertificate } from "../trust/certificates.ts";
import { parseJoinToken } from "../trust/join-token.ts";
import { exportPrivateKey, generateKeyPair, importKeyPair, sha256, signBytes } from "../trust/key-pair.ts";
import { decodePem, encodePem } from "../trust/pem.ts";
import type { AgentState, Credential } from "./agent-state.ts";
import type { EdgeAddress } from "./edge-address.ts";
import { nodeRequest } from "./node-access.ts";

export interface EnrolOptions {
  /** Asked in turn; they share one CA. */
  readonly edges: readonly EdgeAddress[];
  readonly state: AgentState;
  readonly signal: AbortSignal;
}

export interface HeldCredential {
  /** Names the credential in the agent's state. */
  readonly key: string;
  readonly credential: Credential;
}

/**
 * The credential to link with: of the given token if there is one, else what `sally login` or an earlier token left for
 * one of the nodes. It may have expired: whoever links renews it first.
 * @throws SallyError AUTH_FAILED without token and login; TOKEN_INVALID, CA_MISMATCH, CONNECT_FAILED …
 */
export async function obtainCredential(options: EnrolOptions, token: string | undefined): Promise<HeldCredential> {
  const { edges, state } = options;
  if (token !== undefined) {
    const key = await credentialKey(token);
    const credential = await state.readCredential(key);
    return credential === undefined ? await enrol(options, token) : { key, credential };
  }
  const remembered = await rememberedCredential(options);
  if (remembered !== undefined) return remembered;
  const url = edges[0]?.url ?? "";
  throw new SallyError(
    "AUTH_FAILED",
    `this machine is not logged in to ${url}: run "sally login ${url} --token-file FILE", or pass --token-file`,
  );
}

/** What is on disk for one of the nodes, if anything is. */
export async function rememberedCredential({
  edges,
  state,
}: Pick<EnrolOptions, "edges" | "state">): Promise<HeldCredential | undefined> {
  for (const edge of edges) {
    const key = await state.credentialKeyFor(edge.authority);
    const credential = key === undefined ? undefined : await state.readCredential(key);
    if (key !== undefined && credential !== undefined) return { key, credential };
  }
  return undefined;
}

/** Trades a join token for a certificate, and keeps it. @throws SallyError TOKEN_INVALID, CA_MISMATCH, USAGE */
export async function enrol({ edges, state, signal }: EnrolOptions, token: string): Promise<HeldCredential> {
  const { secret, caFingerprint } = parseJoinToken(token);
  const pair = await generateKeyPair();
  const installation = await state.installation();
  const { caPem, issued } = await askInTurn(edges, async (edge) => {
    const pinnedCaPem = await fetchPinnedCa(edge, caFingerprint, signal);
    const client = createEnrolClient({
      request: nodeRequest(edge, pinnedCaPem, signal),
      clock: systemClock,
      caFingerprint,
      sign: (data) => signBytes(pair.privateKey, data),
    });
    const reply = await client.enrol({ secret, publicKeySpki: pair.publicKeySpki, installation });
    return { caPem: pinnedCaPem, issued: reply };
  });
  const keyPem = await exportPrivateKey(pair.privateKey);
  const credential = await credentialOf({ caPem, caFingerprint, keyPem, issued });
  const key = await credentialKey(token);
  await state.writeCredential(key, credential);
  return { key, credential };
}

/** A new certificate for the same key, by proof of that key. @throws SallyError CERTIFICATE_REVOKED, CERTIFICATE_INVALID */
export async function renew({ edges, state, signal }: EnrolOptions, held: HeldCredential): Promise<HeldCredential> {
  const { caPem, caFingerprint, keyPem, certificatePem } = held.credential;
  const pair = await importKeyPair(keyPem);
  const issued = await askInTurn(edges, async (edge) => {
    const client = createEnrolClient({
      request: nodeRequest(edge, caPem, signal),
      clock: systemClock,
      caFingerprint,
      sign: (data) => signBytes(pair.privateKey, data),
    });
    return await client.renew({ certificate: decodePem("CERTIFICATE", certificatePem) });
  });
  const credential = await credentialOf({ caPem, caFingerprint, keyPem, issued });
  await state.writeCredential(held.key, credential);
  return { key: held.key, credential };
}

/**
 * From when to when a certificate is good, by our own clock: counted from its arrival, since the times inside are the
 * node's, and a laptop's clock may be off by any amount.
 */
export function validityOf({ certificatePem, receivedMs }: Credential): { notBeforeMs: number; notAfterMs: number } {
  const { notBeforeMs, notAfterMs } = certificateTimes(decodePem("CERTIFICATE", certificatePem));
  const lifeMs = notAfterMs - notBeforeMs - limits.certificateBackdateMs;
  return { notBeforeMs: receivedMs, notAfterMs: receivedMs + Math.max(0, lifeMs) };
}

/** A refusal by one node is final; one that cannot be asked is not. */
async function askInTurn<T>(edges: readonly EdgeAddress[], ask: (edge: EdgeAddress) => Promise<T>): Promise<T> {
  const failures: unknown[] = [];
  for (const edge of edges) {
    try {
      return await ask(edge);
    } catch (error) {
      if (!(error instanceof SallyError) || error.row.exit >= 2) throw error;
      failures.push(error);
    }
  }
  throw failures[0];
}

async function fetchPinnedCa(edge: EdgeAddress, caFingerprint: string, signal: AbortSignal): Promise<string> {
  const caPem = await fetchCa(nodeRequest(edge, undefined, signal));
  const fingerprint = hexEncode(await sha256(decodePem("CERTIFICATE", caPem)));
  if (fingerprint === caFingerprint) return caPem;
  throw new SallyError("CA_MISMATCH", `${edge.url} is not the node that the token was made for: check both`);
}

async function credentialOf(parts: {
  caPem: string;
  caFingerprint: string;
  keyPem: string;
  issued: IssuedCertificate;
}): Promise<Credential> {
  const { caPem, caFingerprint, keyPem, issued } = parts;
  const ca = await loadCaCertificate(decodePem("CERTIFICATE", caPem));
  const { peer } = await openCertificate(issued.certificate, ca);
  return {
    version: 1,
    identity: peer.identity,
    caFingerprint,
    caPem,
    keyPem,
    certificatePem: encodePem("CERTIFICATE", issued.certificate),
    receivedMs: systemClock.wallMs(),
  };
}

/** A hash of the token, so that two tokens on one machine never mix; the token cannot be found from it. */
async function credentialKey(token: string): Promise<string> {
  return hexEncode(await sha256(utf8Encode(`sallyport credential ${token.trim()}`))).slice(0, 32);
}
