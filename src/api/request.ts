/** How the clients of this folder reach a node: one function that the caller supplies, and the reading of replies. */

import type { z } from "zod";
import { type ErrorCode, errorTable, SallyError } from "../core/errors.ts";
import { problem } from "./schemas.ts";

export interface ApiReply {
  readonly status: number;
  readonly body: string;
}

/**
 * Sends one request and reads the whole reply. `body` is JSON text; it goes with `Content-Type: application/json`.
 * The caller pins TLS to the CA, and bounds time and size. @throws SallyError CONNECT_FAILED, CONNECT_TIMEOUT, CA_MISMATCH
 */
export type ApiRequest = (
  method: "GET" | "POST" | "DELETE",
  path: string,
  options: { readonly body?: string; readonly headers?: Readonly<Record<string, string>> },
) => Promise<ApiReply>;

/** A refusal by the node. `nodeNowMs` is there when the clocks are too far apart. */
export class ApiError extends SallyError {
  readonly nodeNowMs: number | undefined;

  constructor(code: ErrorCode, message: string, nodeNowMs: number | undefined) {
    super(code, message);
    this.nodeNowMs = nodeNowMs;
  }
}

/** The reply's value. @throws ApiError with the node's code; SallyError PROTOCOL_VIOLATION when it is not our API */
export function readReply<T>(reply: ApiReply, schema: z.ZodType<T>): T {
  const value = parseJson(reply.body);
  if (reply.status >= 200 && reply.status < 300) {
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new SallyError(
      "PROTOCOL_VIOLATION",
      "The node's reply is not understood: compare the versions of both sides.",
    );
  }
  throw refusal(reply, value);
}

/** Checks that a reply without a value says yes. @throws ApiError */
export function expectDone(reply: ApiReply): void {
  if (reply.status < 200 || reply.status >= 300) throw refusal(reply, parseJson(reply.body));
}

function refusal(reply: ApiReply, value: unknown): SallyError {
  const parsed = problem.safeParse(value);
  if (!parsed.success) {
    return new SallyError(
      "PROTOCOL_VIOLATION",
      `The node answered with status ${reply.status}: is this a Sallyport node?`,
    );
  }
  const { code, detail, nowMs } = parsed.data;
  return new ApiError(isErrorCode(code) ? code : "PROTOCOL_VIOLATION", detail, nowMs);
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
