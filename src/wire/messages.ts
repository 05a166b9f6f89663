/**
 * The control messages of a link: JSON objects, told apart by `type`, parsed once where they arrive. Unknown fields
 * are dropped and unknown message types are ignored, so that a newer peer may say more.
 */

import { z } from "zod";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { errorTable, SallyError, type ErrorCode } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { isHostField, isPathPrefix } from "../core/uri-syntax.ts";

const text = (max: number) => z.string().max(max);
const name = text(253);
const requestId = z.int().min(0).max(0xffff_ffff);
const message = text(1_024);
const names = z.array(name).max(1_000);

const errorCodes = Object.keys(errorTable) as [ErrorCode, ...ErrorCode[]]; // the table is not empty
const errorCode = z.enum(errorCodes).catch("INTERNAL"); // a newer peer may know more codes

// Both go into the heads that origins get, so nothing may pass that ends a line or a target.
const hostField = text(limits.hostFieldChars).refine(
  isHostField,
  "not a Host: a name or an address, and perhaps a port",
);
const pathPrefix = text(limits.pathPrefixChars).refine(isPathPrefix, "not empty and not an absolute path");

const hostHeader = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("preserve") }),
  z.object({ kind: z.literal("rewrite"), originHost: hostField }),
  z.object({ kind: z.literal("value"), value: hostField }),
]);

const tunnelRequest = z.object({
  /** Absent: the node derives a free, stable name from `stableKey`. */
  name: name.optional(),
  stableKey: text(200).optional(),
  originLabel: text(300),
  hostHeader,
  pathPrefix,
  shared: z.boolean(),
});

const claimResult = z.discriminatedUnion("ok", [
  z.object({ ok: z.literal(true), name, url: text(2_048) }),
  z.object({ ok: z.literal(false), name: name.optional(), code: errorCode, message }),
]);

const agentMessages = [
  /** Asks for tunnels; answered by `claimed` with the same request id, results in the same order. */
  z.object({
    type: z.literal("claim"),
    requestId,
    process: text(100),
    tunnels: z.array(tunnelRequest).min(1).max(1_000),
    /** Ids of the older links that the agent still holds; absent when it does not say. */
    links: z.array(text(100)).max(100).optional(),
  }),
  z.object({ type: z.literal("release"), names }),
  /** How much more load the agent's machine can take: 0 is none, 1 is idle. Sent at most once a second. */
  z.object({ type: z.literal("headroom"), value: z.number().min(0).max(1) }),
  z.object({
    type: z.literal("origin"),
    name,
    state: z.enum(["up", "down"]),
    cause: errorCode.optional(),
    message: message.optional(),
  }),
  /** Asks the node to send one request for this tunnel through its own public listener; answered by `probed`. */
  z.object({ type: z.literal("probe"), requestId, name }),
] as const;

const nodeMessages = [
  z.object({ type: z.literal("claimed"), requestId, results: z.array(claimResult).max(1_000) }),
  z.object({
    type: z.literal("probed"),
    requestId,
    name,
    ok: z.boolean(),
    rttMs: z.number().min(0).optional(),
    code: errorCode.optional(),
    message: message.optional(),
  }),
  /** The node shuts down: connect elsewhere, finish what runs within the grace time. */
  z.object({ type: z.literal("drain"), graceMs: z.number().min(0) }),
  /** A newer process of the same slot serves these names now. */
  z.object({ type: z.literal("replaced"), names }),
  z.object({ type: z.literal("revoked"), message }),
] as const;

export const agentMessageSchema = z.discriminatedUnion("type", agentMessages);
export const nodeMessageSchema = z.discriminatedUnion("type", nodeMessages);
const controlMessageSchema = z.discriminatedUnion("type", [...agentMessages, ...nodeMessages]);

export type AgentMessage = z.infer<typeof agentMessageSchema>;
export type NodeMessage = z.infer<typeof nodeMessageSchema>;
export type ControlMessage = AgentMessage | NodeMessage;
export type TunnelRequest = z.infer<typeof tunnelRequest>;
export type ClaimResult = z.infer<typeof claimResult>;

const knownTypes = new Set<string>([...agentMessages, ...nodeMessages].map((schema) => schema.shape.type.value));
const anyMessage = z.object({ type: z.string().max(100) });

export function encodeMessage(controlMessage: ControlMessage): Uint8Array {
  return utf8Encode(JSON.stringify(controlMessage));
}

/**
 * Parses one control message; undefined for a type that this version does not know.
 * @throws SallyError PROTOCOL_VIOLATION
 */
export function decodeMessage(payload: Uint8Array): ControlMessage | undefined {
  const value = parseJson(payload);
  const kind = anyMessage.safeParse(value);
  if (!kind.success) throw new SallyError("PROTOCOL_VIOLATION", "a control message has no type");
  if (!knownTypes.has(kind.data.type)) return undefined;
  const parsed = controlMessageSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined ? "" : ` (${issue.path.join(".")}: ${issue.message})`;
  throw new SallyError("PROTOCOL_VIOLATION", `the control message "${kind.data.type}" is malformed${where}`);
}

/** @throws SallyError PROTOCOL_VIOLATION */
export function parseJson(payload: Uint8Array): unknown {
  try {
    return JSON.parse(utf8Decode(payload)) as unknown;
  } catch (cause) {
    throw new SallyError("PROTOCOL_VIOLATION", "a message is not JSON", { cause });
  }
}
