/**
 * What a node needs in its data folder before it can run: a CA, a token for the first agent, a token for the admin
 * API. Whatever is missing is made; what is there is kept. It may be cut off between any two writes: each file is
 * complete in itself, and a secret is on disk before the registry knows it.
 */

import { base64UrlEncode, utf8Encode } from "../core/bytes.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { Registry } from "../ports/registry.ts";
import { type Ca, createCa, loadCa } from "../trust/certificates.ts";
import { createSecret, formatJoinToken, hashSecret, parseJoinToken } from "../trust/join-token.ts";
import { sha256Hex } from "../trust/key-pair.ts";
import { encodePem } from "../trust/pem.ts";
import { isTokenLive } from "./revocations.ts";
import { ownerIdentity, tokenRecord } from "./token-service.ts";

/** The data folder. A write is atomic: after a crash a file is whole, old or new, or not there. */
export interface Files {
  read(name: string): Promise<string | undefined>;
  write(name: string, text: string, mode: number): Promise<void>;
}

export interface BootstrapOptions {
  readonly files: Files;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Bootstrapped {
  readonly ca: Ca;
  readonly caPem: string;
  /** For `createControl`. */
  readonly adminTokenHash: string;
  /** The join token in DATA/agent.token; undefined once the operator has revoked it. */
  readonly agentToken: string | undefined;
}

/** Names within the data folder. `ca.key` holds key and certificate together; `ca.pem` is a copy that may be given away. */
export const dataFiles = {
  caKey: "ca.key",
  ca: "ca.pem",
  agentToken: "agent.token",
  adminToken: "admin.token",
} as const;

const bootstrapLabel = "bootstrap";
const fileMode = 0o600;

/** @throws SallyError STORE_FAILED when a file is damaged or lost that cannot be made anew without locking agents out */
export async function bootstrapNode(options: BootstrapOptions): Promise<Bootstrapped> {
  const { ca, caPem } = await ensureCa(options);
  const adminToken = await ensureAdminToken(options);
  return {
    ca,
    caPem,
    adminTokenHash: await sha256Hex(utf8Encode(adminToken)),
    agentToken: await ensureAgentToken(options, ca),
  };
}

async function ensureCa({ files, registry, clock, log }: BootstrapOptions): Promise<{ ca: Ca; caPem: string }> {
  const bundle = await files.read(dataFiles.caKey);
  const copy = await files.read(dataFiles.ca);
  if (bundle !== undefined) {
    const ca = await readCa(bundle);
    const caPem = encodePem("CERTIFICATE", ca.certificate);
    if (copy !== caPem) await files.write(dataFiles.ca, caPem, fileMode);
    return { ca, caPem };
  }
  // The bundle is written first, so a copy without it means that the key was lost: agents trust only that CA.
  if (copy !== undefined) throw lostCa("is missing");
  const made = await createCa({ nowMs: clock.wallMs() });
  await files.write(dataFiles.caKey, made.keyPem + made.certificatePem, fileMode);
  await files.write(dataFiles.ca, made.certificatePem, fileMode);
  await registry.audit({ atMs: clock.wallMs(), actor: "node", action: "ca.create", subject: made.ca.fingerprint });
  log.info("made a new certificate authority", { fingerprint: made.ca.fingerprint });
  return { ca: made.ca, caPem: made.certificatePem };
}

async function readCa(bundle: string): Promise<Ca> {
  try {
    return await loadCa({ keyPem: bundle, certificatePem: bundle });
  } catch (cause) {
    throw lostCa(`is damaged (${toSallyError(cause).message})`, cause);
  }
}

function lostCa(what: string, cause?: unknown): SallyError {
  const advice =
    `restore it from a backup; or, to start over, remove it and ${dataFiles.ca}, ` +
    "after which every agent needs a new token";
  return new SallyError("STORE_FAILED", `${dataFiles.caKey} in the data folder ${what}: ${advice}`, { cause });
}

async function ensureAdminToken({ files, registry, clock }: BootstrapOptions): Promise<string> {
  const known = (await files.read(dataFiles.adminToken))?.trim();
  if (known !== undefined && /^[A-Za-z0-9_-]{43}$/.test(known)) return known;
  const token = base64UrlEncode(createSecret());
  await files.write(dataFiles.adminToken, `${token}\n`, fileMode);
  await registry.audit({
    atMs: clock.wallMs(),
    actor: "node",
    action: "admin-token.create",
    subject: dataFiles.adminToken,
  });
  return token;
}

/** The first agent's token: any name, for the person who runs the node. */
async function ensureAgentToken(options: BootstrapOptions, ca: Ca): Promise<string | undefined> {
  const { files, registry, clock, log } = options;
  const caFingerprint = ca.fingerprint;
  const text = await files.read(dataFiles.agentToken);
  const known = text === undefined ? undefined : readToken(text);
  if (known !== undefined) {
    const stored = await registry.findTokenByHash(await hashSecret(known.secret));
    if (stored !== undefined && !isTokenLive(stored, clock.wallMs())) return undefined;
    const line = formatJoinToken({ secret: known.secret, caFingerprint });
    if (known.caFingerprint !== caFingerprint) await files.write(dataFiles.agentToken, `${line}\n`, fileMode);
    if (stored === undefined) await addToken(options, known.secret); // cut off before this step, or a lost registry
    return line;
  }
  const earlier = (await registry.listTokens()).filter(({ label }) => label === bootstrapLabel);
  const wasRevoked = earlier.length > 0 && earlier.every((token) => !isTokenLive(token, clock.wallMs()));
  if (wasRevoked) return undefined; // the operator does not want one
  if (text !== undefined) log.warn("the agent token was damaged: made a new one", { file: dataFiles.agentToken });
  const secret = createSecret();
  const line = formatJoinToken({ secret, caFingerprint });
  await files.write(dataFiles.agentToken, `${line}\n`, fileMode);
  await addToken(options, secret);
  return line;
}

function readToken(text: string): ReturnType<typeof parseJoinToken> | undefined {
  try {
    return parseJoinToken(text);
  } catch {
    return undefined; // empty or cut off: made anew
  }
}

async function addToken({ registry, clock }: BootstrapOptions, secret: Uint8Array): Promise<void> {
  const nowMs = clock.wallMs();
  const record = await tokenRecord(
    secret,
    { label: bootstrapLabel, identity: ownerIdentity, names: [], ports: [] },
    nowMs,
  );
  await registry.addToken(record);
  await registry.audit({
    atMs: nowMs,
    actor: "node",
    action: "token.create",
    subject: `${record.id} ${record.identity}`,
  });
}
