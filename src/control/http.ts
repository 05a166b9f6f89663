/** Replies and request bodies of the control's two HTTP APIs: JSON; problems look as the edge's do. */

import type { z } from "zod";
import { ByteQueue } from "../core/byte-queue.ts";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { type ErrorCode, SallyError, toSallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { type Body, bytesBody } from "../http/body.ts";
import { errorReply, reasonPhrase } from "../http/error-page.ts";
import type { Exchange, Handler, Reply } from "../http/exchange.ts";
import { HeaderList } from "../http/header-list.ts";

/** A problem with a field or a status that the error table does not give it. */
export class ControlError extends SallyError {
  readonly extra: Readonly<Record<string, number>>;

  constructor(code: SallyError["code"], message: string, extra: Readonly<Record<string, number>>) {
    super(code, message);
    this.extra = extra;
  }
}

/** The path exists, for other methods. */
export class MethodError extends SallyError {
  /** Separated by commas. */
  readonly allow: string;

  constructor(allow: string) {
    super("METHOD_NOT_ALLOWED", `This path takes ${allow} only.`);
    this.allow = allow;
  }
}

export function textReply(status: number, contentType: string, text: string, fields: readonly string[] = []): Reply {
  const body = bytesBody(utf8Encode(text));
  const headers = new HeaderList([
    "Content-Type",
    contentType,
    "Content-Length",
    String(body.length),
    "Cache-Control",
    "no-store",
    "X-Content-Type-Options",
    "nosniff",
    ...fields,
  ]);
  return { kind: "message", head: { status, reason: reasonPhrase(status), headers }, body };
}

export function jsonReply(value: unknown, status = 200): Reply {
  return textReply(status, "application/json", JSON.stringify(value));
}

export function doneReply(): Reply {
  const headers = new HeaderList(["Cache-Control", "no-store"]);
  return {
    kind: "message",
    head: { status: 204, reason: reasonPhrase(204), headers },
    body: bytesBody(new Uint8Array(0)),
  };
}

function problemReply(error: SallyError, { id, request }: Exchange): Reply {
  const extra = error instanceof ControlError ? error.extra : undefined;
  const reply = errorReply(error, { id, accept: request.headers.get("accept"), extra });
  if (error.row.status === 401) reply.head.headers.append("WWW-Authenticate", "Bearer");
  if (error instanceof MethodError) reply.head.headers.append("Allow", error.allow);
  return reply;
}

/** Turns what a handler throws into a problem; trouble of our own is logged, and not shown but for the codes in `told`. */
export function withProblems(handler: Handler, log: Logger, told: readonly ErrorCode[] = []): Handler {
  return async (exchange) => {
    try {
      return await handler(exchange);
    } catch (thrown) {
      const error = toSallyError(thrown);
      if (error.row.status < 500) return problemReply(error, exchange);
      log.error("the control API failed", { id: exchange.id, error: String(thrown) });
      return problemReply(told.includes(error.code) ? error : new SallyError(error.code), exchange);
    }
  };
}

/** The request's method; HEAD is GET, of whose reply the listener sends the head alone (RFC 9110 §9.3.2). */
export function methodOf({ request }: Exchange): string {
  return request.method === "HEAD" ? "GET" : request.method;
}

/** The request's path without its query, as it was sent. */
export function pathOf({ request }: Exchange): string {
  return request.target.split("?", 1)[0]!; // split gives one part at least
}

/** Reads and checks a JSON body. @throws SallyError BODY_TOO_LARGE, BAD_REQUEST */
export async function readJson<T>(exchange: Exchange, schema: z.ZodType<T>): Promise<T> {
  const type = exchange.request.headers.get("content-type") ?? "";
  if (type.split(";", 1)[0]!.trim().toLowerCase() !== "application/json") {
    throw new SallyError("BAD_REQUEST", "The body must be JSON: send Content-Type: application/json.");
  }
  const bytes = await readBytes(exchange.body, limits.apiBodyBytes);
  let value: unknown;
  try {
    value = JSON.parse(utf8Decode(bytes));
  } catch {
    throw new SallyError("BAD_REQUEST", "The body is not JSON."); // the cause would quote it, secrets included
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const paths = parsed.error.issues.map(({ path, code }) => `${path.join(".") || "body"} (${code})`);
  throw new SallyError("BAD_REQUEST", `These fields are missing, unknown or malformed: ${paths.join(", ")}.`);
}

async function readBytes(body: Body, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = new SallyError("BODY_TOO_LARGE", `The body is larger than ${maxBytes} bytes.`);
  const bytes = new ByteQueue();
  if ((body.length ?? 0) > maxBytes) {
    body.cancel(tooLarge);
    throw tooLarge;
  }
  for (let chunk = await body.read(); chunk !== null; chunk = await body.read()) {
    if (bytes.length + chunk.length > maxBytes) {
      body.cancel(tooLarge);
      throw tooLarge;
    }
    bytes.push(chunk);
  }
  return bytes.shiftAll();
}
