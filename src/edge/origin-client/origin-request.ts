/**
 * One exchange on its way to the origin: which stream it uses, when it may be tried again, and what ends it. A request
 * is sent again only if nothing of it was seen, or if it is safe; at most once for each reason, within the budget, and
 * never after a time-out.
 */

import { type ErrorCode, SallyError, toSallyError } from "../../core/errors.ts";
import { encodeRequestHead } from "../../http/http1/head-writer.ts";
import type { Exchange, Reply, ReplyHead } from "../../http/exchange.ts";
import type { StreamProtocol } from "../../ports/dialer.ts";
import type { TunnelEntry } from "../../ports/tunnel-directory.ts";
import type { OriginClientParts } from "./origin-client.ts";
import type { Loss, OriginStream, StreamUser } from "./origin-stream.ts";
import { type OriginHead, isConnectionBoundScheme } from "./request-head.ts";
import { RequestSender, type SenderOwner } from "./request-sender.ts";
import type { UpgradedStream } from "./upgraded-stream.ts";

export interface OriginRequestOptions {
  readonly exchange: Exchange;
  readonly tunnel: TunnelEntry;
  readonly protocol: StreamProtocol;
}

/** Refused before the origin was reached: another agent may well accept. */
const refusals: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "ORIGIN_REFUSED",
  "OVERLOADED",
  "STREAM_LIMIT",
  "DRAINING",
  "TUNNEL_UNKNOWN",
  "TUNNEL_OFFLINE",
]);

/** Trying again would hit whoever is slow once more, or would be refused for the same reason. */
const finalCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "ORIGIN_TIMEOUT",
  "CONNECT_TIMEOUT",
  "ORIGIN_TLS",
  "FORBIDDEN",
  "CERTIFICATE_REVOKED",
  "CANCELLED",
]);

const linkLosses: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "LINK_LOST",
  "LINK_IDLE",
  "PROTOCOL_VIOLATION",
  "FRAME_TOO_LARGE",
  "CREDIT_EXCEEDED",
]);

export class OriginRequest implements StreamUser, SenderOwner {
  readonly reply: Promise<Reply>;
  readonly isHeadRequest: boolean;
  readonly #parts: OriginClientParts;
  readonly #exchange: Exchange;
  readonly #tunnel: TunnelEntry;
  readonly #protocol: StreamProtocol;
  readonly #head: OriginHead;
  /** Undefined for a request without a body. */
  readonly #sender: RequestSender | undefined;
  #resolve!: (reply: Reply) => void;
  #reject!: (error: SallyError) => void;
  #stream: OriginStream | undefined;
  #upgraded: UpgradedStream | undefined;
  #hasReply = false;
  #isReplyDone = false;
  #isOver = false;
  #wasReplayed = false;
  #wasRetried = false;

  constructor(parts: OriginClientParts, { exchange, tunnel, protocol }: OriginRequestOptions) {
    this.#parts = parts;
    this.#exchange = exchange;
    this.#tunnel = tunnel;
    this.#protocol = protocol;
    this.isHeadRequest = exchange.request.method === "HEAD";
    this.#head = parts.heads.write(exchange, tunnel, protocol === "probe");
    const { body } = exchange;
    if (body.length !== 0) this.#sender = new RequestSender(this.#head, body, parts.limits, this);
    this.reply = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  get wantsUpgrade(): boolean {
    return this.#head.wantsUpgrade;
  }

  get canMove(): boolean {
    return this.#protocol === "http" && this.#sender?.canReplay !== false;
  }

  /** Sends it, on an idle stream or on a new one. */
  start(): void {
    const { pool, budgets, clock } = this.#parts;
    budgets.earn(this.#tunnel.name);
    this.#exchange.onAbort((error) => this.#abort(error));
    if (this.#isOver) return; // the visitor had gone before
    const nowMs = clock.nowMs();
    const idle = this.#protocol === "http" ? pool.take(this.#tunnel, this.#exchange.connection, nowMs) : undefined;
    try {
      this.#use(idle ?? this.#dial(undefined), nowMs);
    } catch (thrown) {
      this.#end(forVisitor(toSallyError(thrown)));
    }
  }

  // The stream.

  onFirstByte(): void {
    this.#sender?.forget();
  }

  onInterim(head: ReplyHead): void {
    // RFC 9110 §15.2: an HTTP/1.0 client does not know interim replies.
    if (this.#exchange.request.minorVersion > 0) this.#exchange.inform(head);
    if (head.status === 100) this.#sender?.proceed();
    if (this.#sender?.isHeld !== true) this.#touch();
  }

  onReply(reply: Reply): void {
    this.#hasReply = true;
    if (reply.kind === "upgrade") {
      this.#stream = undefined;
      this.#upgraded = reply.stream as UpgradedStream; // the only kind of upgrade that a stream makes
    } else {
      this.#untouch();
      if (reply.head.status === 401) this.#noteChallenge(reply.head);
    }
    this.#resolve(reply);
  }

  onReplyEnd(): void {
    this.#isReplyDone = true;
    if (this.#sender === undefined) return;
    if (this.#stream !== undefined) this.#stream.dueMs = this.#parts.clock.nowMs() + this.#parts.limits.socketLingerMs;
    this.#sender.drain();
  }

  onUnwritable(): void {
    this.#sender?.detach();
  }

  onDrain(): void {
    this.#sender?.resume();
  }

  onDue(): void {
    if (this.#isReplyDone) this.#sender?.cut();
    else if (this.#hasReply) this.#untouch();
    else if (this.#sender?.isHeld === true) {
      this.#touch();
      this.#sender.proceed();
    } else {
      const seconds = Math.round(this.#parts.limits.replyHeadMs / 1_000);
      this.#end(new SallyError("ORIGIN_TIMEOUT", `${this.#tunnel.originLabel} sent no reply within ${seconds} s.`));
    }
  }

  onLost(loss: Loss): void {
    this.#stream = undefined;
    this.#sender?.detach();
    const avoidLink = this.#avoidedLink(loss);
    const error = loss.error === undefined ? this.#closedError() : forVisitor(loss.error);
    // A kept connection that had ended costs the origin nothing: it never saw the request.
    const isStale = loss.isUnseen && loss.wasReused;
    if (!this.#mayTryAgain(loss) || !(isStale || this.#parts.budgets.spend(this.#tunnel.name))) return this.#end(error);
    try {
      const stream = this.#dial(avoidLink);
      if (isRefusal(loss) && stream.linkId === loss.linkId) {
        // There is no other agent, and this one has said no.
        stream.abort(new SallyError("CANCELLED"));
        return this.#end(error);
      }
      this.#use(stream, this.#parts.clock.nowMs());
    } catch {
      this.#end(error); // the first trouble says more than "nobody else is there"
    }
  }

  moveOn(): boolean {
    const { budgets, clock } = this.#parts;
    if (!this.#isSafe || this.#wasRetried || this.#hasReply || !budgets.spend(this.#tunnel.name)) return false;
    let stream: OriginStream;
    try {
      stream = this.#dial(this.#stream?.linkId);
    } catch {
      return false; // the reply may yet come
    }
    this.#wasRetried = true;
    this.#use(stream, clock.nowMs());
    return true;
  }

  moveTo(stream: OriginStream): void {
    this.#use(stream, this.#parts.clock.nowMs());
  }

  onFailed(error: SallyError): void {
    this.#stream = undefined;
    this.#end(forVisitor(error));
  }

  onDetached(): void {
    this.#stream = undefined;
    this.#sender?.detach();
  }

  // The request's body.

  bodyMoved(): void {
    if (!this.#hasReply) this.#touch();
  }

  bodySent(): void {
    this.#stream?.requestSent();
  }

  bodyFailed(error: SallyError): void {
    this.#end(error);
  }

  bodyCut(): void {
    this.#stream?.abort(new SallyError("CANCELLED"));
    this.#stream = undefined;
  }

  // What it does.

  #dial(avoidLink: string | undefined): OriginStream {
    return this.#parts.dial({ tunnel: this.#tunnel, protocol: this.#protocol, avoidLink });
  }

  #use(stream: OriginStream, nowMs: number): void {
    this.#stream = stream;
    stream.begin(this, nowMs);
    if (this.#head.isConnectionBound) this.#parts.pool.pin(stream, this.#exchange.connection);
    const waitMs = this.#sender?.isHeld === true ? this.#parts.limits.continueMs : this.#parts.limits.replyHeadMs;
    stream.dueMs = nowMs + waitMs;
    if (this.#sender !== undefined) this.#sender.attach(stream);
    else {
      stream.write(encodeRequestHead(this.#head));
      stream.requestSent();
    }
  }

  #mayTryAgain(loss: Loss): boolean {
    const code = loss.error?.code;
    if (code !== undefined && finalCodes.has(code)) return false;
    if (loss.isUnseen || isRefusal(loss)) {
      if (this.#wasReplayed || this.#sender?.canReplay === false) return false;
      this.#wasReplayed = true;
      return true;
    }
    if (!this.#isSafe || this.#wasRetried || !(loss.wasReused || isLinkLoss(loss))) return false;
    this.#wasRetried = true;
    return true;
  }

  get #isSafe(): boolean {
    const { method } = this.#exchange.request;
    return this.#sender === undefined && (method === "GET" || method === "HEAD" || method === "OPTIONS");
  }

  #avoidedLink(loss: Loss): string | undefined {
    return isRefusal(loss) || isLinkLoss(loss) ? loss.linkId : undefined;
  }

  #closedError(): SallyError {
    return new SallyError("ORIGIN_CLOSED", `${this.#tunnel.originLabel} closed the connection without a reply.`);
  }

  #noteChallenge(head: ReplyHead): void {
    const stream = this.#stream;
    if (stream === undefined || !head.headers.getAll("www-authenticate").some(isConnectionBoundScheme)) return;
    this.#parts.pool.pin(stream, this.#exchange.connection);
  }

  #touch(): void {
    if (this.#stream !== undefined) this.#stream.dueMs = this.#parts.clock.nowMs() + this.#parts.limits.replyHeadMs;
  }

  #untouch(): void {
    if (this.#stream !== undefined) this.#stream.dueMs = Infinity;
  }

  #abort(error: SallyError): void {
    if (this.#upgraded?.isTaken === false) this.#upgraded.reset(error);
    this.#end(error);
  }

  /** Ends what is left of it: the stream, the body, and the reply if there is none yet. */
  #end(error: SallyError): void {
    this.#isOver = true;
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.abort(error);
    this.#sender?.stop(error);
    if (!this.#hasReply) this.#reject(error);
  }
}

/**
 * What ended a stream may be between node and agent (a token was revoked, a certificate ran out, a newer process took
 * over). That is no fault of the visitor, who would take a 401 for a question: to them the link was lost. And a link that is
 * full of streams is too much load to them.
 */
function forVisitor(error: SallyError): SallyError {
  if (error.code === "STREAM_LIMIT") return new SallyError("OVERLOADED", undefined, { cause: error });
  if (error.row.status >= 500 || error.code === "TUNNEL_UNKNOWN") return error;
  return new SallyError("LINK_LOST", undefined, { cause: error });
}

function isRefusal({ error, wasOpened }: Loss): boolean {
  return !wasOpened && error !== undefined && refusals.has(error.code);
}

function isLinkLoss({ error }: Loss): boolean {
  return error !== undefined && linkLosses.has(error.code);
}
