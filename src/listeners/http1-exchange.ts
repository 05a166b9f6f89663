/** One request on an HTTP/1.1 connection as the pipeline sees it, and the visitor that outlives it. */

import type { Address } from "../core/address.ts";
import type { ErrorCode, SallyError } from "../core/errors.ts";
import type { Body } from "../http/body.ts";
import type { Exchange, Reply, ReplyHead, VisitorConnection } from "../http/exchange.ts";
import type { ParsedRequest } from "../http/http1/head-parser.ts";

/** The visitor's connection, for whoever must know when it is gone. */
export class Visitor implements VisitorConnection {
  readonly id: number;
  readonly remote: Address;
  #callbacks: (() => void)[] | undefined;
  #isGone = false;

  constructor(id: number, remote: Address) {
    this.id = id;
    this.remote = remote;
  }

  onClose(callback: () => void): void {
    if (this.#isGone) callback();
    else if (this.#callbacks === undefined) this.#callbacks = [callback];
    else this.#callbacks.push(callback);
  }

  /** Called once by the connection. */
  leave(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    const callbacks = this.#callbacks ?? [];
    this.#callbacks = undefined;
    for (const callback of callbacks) callback();
  }
}

/** What an exchange needs of its connection. */
export interface ExchangeOwner {
  readonly scheme: "http" | "https";
  readonly visitor: Visitor;
  inform(exchange: Http1Exchange, head: ReplyHead): void;
}

export class Http1Exchange implements Exchange {
  readonly request: ParsedRequest;
  readonly body: Body;
  readonly startedMs: number;
  readonly #owner: ExchangeOwner;
  #id: string | undefined;
  #abortError: SallyError | undefined;
  #onAbort: ((error: SallyError) => void)[] | undefined;

  constructor(owner: ExchangeOwner, request: ParsedRequest, body: Body, startedMs: number) {
    this.#owner = owner;
    this.request = request;
    this.body = body;
    this.startedMs = startedMs;
  }

  /** Made when it is asked for: most requests never show theirs. */
  get id(): string {
    this.#id ??= newRequestId();
    return this.#id;
  }

  get wantsUpgrade(): boolean {
    return this.request.wantsUpgrade;
  }

  get scheme(): "http" | "https" {
    return this.#owner.scheme;
  }

  get connection(): VisitorConnection {
    return this.#owner.visitor;
  }

  get authority(): string {
    return this.request.authority;
  }

  inform(head: ReplyHead): void {
    this.#owner.inform(this, head);
  }

  onAbort(callback: (error: SallyError) => void): void {
    if (this.#abortError !== undefined) callback(this.#abortError);
    else if (this.#onAbort === undefined) this.#onAbort = [callback];
    else this.#onAbort.push(callback);
  }

  /** The visitor is gone before the reply is complete. */
  abort(error: SallyError): void {
    if (this.#abortError !== undefined) return;
    this.#abortError = error;
    const callbacks = this.#onAbort ?? [];
    this.#onAbort = undefined;
    for (const callback of callbacks) callback(error);
  }
}

/** A request that no handler saw, for the access log: its head was malformed, too large or late, or nobody had time. */
export class RefusedRequest {
  readonly id = newRequestId();
  /** Undefined: there is no head that could be read. */
  readonly request: ParsedRequest | undefined;
  readonly connection: VisitorConnection;
  readonly code: ErrorCode;
  /** When it was refused. */
  readonly startedMs: number;

  constructor(visitor: Visitor, request: ParsedRequest | undefined, code: ErrorCode, nowMs: number) {
    this.connection = visitor;
    this.request = request;
    this.code = code;
    this.startedMs = nowMs;
  }

  get authority(): string | undefined {
    return this.request?.authority;
  }
}

/** Nobody takes this reply any more. */
export function dropReply(reply: Reply, error: SallyError): void {
  if (reply.kind === "message") reply.body.cancel(error);
  else reply.stream.reset(error);
}

/** 96 random bits. */
export function newRequestId(): string {
  return crypto.getRandomValues(new Uint8Array(12)).toBase64({ alphabet: "base64url" });
}
