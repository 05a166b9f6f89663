/**
 * The HTTP contract of a node: enrolment on the tunnel port, administration on the admin port. Both sides parse what
 * they receive with these schemas. Times are wall-clock milliseconds.
 */

import { z } from "zod";
import { limits } from "../core/limits.ts";

const base64 = z
  .string()
  .max(8_192)
  .regex(/^[A-Za-z0-9+/]+={0,2}$/);
const nonce = z.string().regex(/^[A-Za-z0-9_-]{22,64}$/);
const timeMs = z.int().nonnegative();

const installationText = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
const identityText = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._@-]{0,63}$/, "an identity has 1 to 64 of a-z, 0-9 and ._@-, a letter or digit first");
/** A host label, the beginning of one followed by `*`, or `*` alone for every name. */
const namePattern = z
  .string()
  .max(64)
  .regex(
    /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?|(?:[a-z0-9][a-z0-9-]*)?\*)$/,
    "a name has a-z, 0-9 and hyphens, and may end with * for any rest",
  );

/** `POST /_sally/enrol` */
export const enrolRequest = z.strictObject({
  /** The join token's secret, base64url. */
  secret: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  /** SPKI, DER, base64. */
  publicKey: base64,
  installation: installationText,
  timestampMs: timeMs,
  /** At least 128 random bits, base64url; each is accepted once. */
  nonce,
  /** Signature over `enrolTranscript`, base64. */
  proof: base64,
});

/** `POST /_sally/renew` */
export const renewRequest = z.strictObject({
  /** DER, base64; may have expired up to 30 days ago. */
  certificate: base64,
  timestampMs: timeMs,
  nonce,
  /** Signature over `renewTranscript`, base64. */
  proof: base64,
});

export const enrolReply = z.object({
  /** DER, base64. */
  certificate: base64,
  notAfterMs: timeMs,
  identity: z.string(),
});

/** RFC 9457, plus our code and the request's id. `nowMs` is the node's clock, when the caller's is too far off. */
export const problem = z.object({
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  requestId: z.string().optional(),
  nowMs: z.number().optional(),
});

export const tokenCreate = z.strictObject({
  label: z.string().min(1).max(100),
  /** Whose names its agents claim; a new identity when absent. */
  identity: identityText.optional(),
  names: z.array(namePattern).max(limits.tokenPatternsMax).default([]),
  ports: z.array(z.int().min(1).max(65_535)).max(limits.tokenPatternsMax).default([]),
  expiresMs: timeMs.optional(),
});

export const tokenInfo = z.object({
  id: z.string(),
  label: z.string(),
  identity: z.string(),
  names: z.array(z.string()),
  ports: z.array(z.number()),
  createdMs: timeMs,
  expiresMs: timeMs.optional(),
  revokedMs: timeMs.optional(),
});

/** The one time that the secret is shown: the whole join token, one line. */
export const tokenCreated = z.object({ token: z.string(), info: tokenInfo });

export const enrolmentInfo = z.object({
  keyFingerprint: z.string(),
  tokenId: z.string(),
  identity: z.string(),
  installation: z.string(),
  createdMs: timeMs,
  renewedMs: timeMs,
  revokedMs: timeMs.optional(),
});

export const tunnelInfo = z.object({
  name: z.string(),
  identity: z.string(),
  state: z.enum(["live", "offline"]),
  url: z.string().optional(),
  origin: z.string().optional(),
  agents: z.int().optional(),
  leaseUntilMs: timeMs,
});

export const linkInfo = z.object({
  id: z.string(),
  identity: z.string(),
  installation: z.string(),
  transport: z.string(),
  remote: z.string(),
  names: z.array(z.string()),
  rttMs: z.number().optional(),
  streams: z.int(),
  sinceMs: timeMs.optional(),
});

export const nodeStatus = z.object({
  version: z.string(),
  domain: z.string(),
  startedMs: timeMs,
  isReady: z.boolean(),
  links: z.int(),
  tunnels: z.int(),
  streams: z.int(),
});

export const auditInfo = z.object({ atMs: timeMs, actor: z.string(), action: z.string(), subject: z.string() });

export type EnrolRequest = z.infer<typeof enrolRequest>;
export type RenewRequest = z.infer<typeof renewRequest>;
export type EnrolReply = z.infer<typeof enrolReply>;
export type TokenCreate = z.input<typeof tokenCreate>;
export type TokenInfo = z.infer<typeof tokenInfo>;
export type TokenCreated = z.infer<typeof tokenCreated>;
export type EnrolmentInfo = z.infer<typeof enrolmentInfo>;
export type TunnelInfo = z.infer<typeof tunnelInfo>;
export type LinkInfo = z.infer<typeof linkInfo>;
export type NodeStatus = z.infer<typeof nodeStatus>;
export type AuditInfo = z.infer<typeof auditInfo>;
