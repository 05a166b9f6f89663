/**
 * One visitor's HTTP/1.x connection over any duplex, as a state machine: requests in, replies out, in order and one at
 * a time. It keeps the rule that whatever ends otherwise than announced ends in a reset, so truncation is visible.
 */

import { concatBytes } from "../core/bytes.ts";
import type { Duplex, DuplexHandler } from "../core/duplex.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import { relay } from "../core/relay.ts";
import { emptyBody } from "../http/body.ts";
import type { Reply, ReplyHead } from "../http/exchange.ts";
import type { ParsedRequest } from "../http/http1/head-parser.ts";
import { accessRecord } from "./access-record.ts";
import { BreakOff } from "./break-off.ts";
import { HalfCloseWatch } from "./half-close-watch.ts";
import { dropReply, type ExchangeOwner, Http1Exchange, RefusedRequest, Visitor } from "./http1-exchange.ts";
import type { ConnectionHost, ConnectionMeta } from "./http1-options.ts";
import { type ReplyOwner, ReplyWriter } from "./http1-reply-writer.ts";
import { type IntakeOwner, refusalOf, RequestIntake } from "./request-intake.ts";
import { BodyRate, LingerWatch, QueueWatch } from "./visitor-pace.ts";

/**
 * idle: waits for the first byte of a head. head: part of one is here. exchange: a request is with the handler or its
 * reply is written. draining: the reply is out, the rest of its request is not in. full: too much of what was written
 * waits for the visitor, so its next request does too. breaking: the reply broke off, and what there was of it is on its
 * way. lingering: our side has ended.
 */
type Phase = "idle" | "head" | "exchange" | "draining" | "full" | "breaking" | "lingering" | "upgraded" | "closed";
type MessageReply = Reply & { readonly kind: "message" };

export class Http1Connection implements DuplexHandler, IntakeOwner, ReplyOwner, ExchangeOwner {
  readonly scheme: "http" | "https";
  readonly visitor: Visitor;
  readonly meta: ConnectionMeta;
  readonly #duplex: Duplex;
  readonly #host: ConnectionHost;
  readonly #intake: RequestIntake;
  readonly #writer: ReplyWriter;
  // Bound once: a request makes no closures.
  readonly #onReply: (reply: Reply) => void;
  readonly #onError: (thrown: unknown) => void;
  #phase: Phase = "idle";
  #sinceMs: number;
  #servedRequests = 0;
  #request: ParsedRequest | undefined;
  #exchange: Http1Exchange | undefined;
  #refused: RefusedRequest | undefined;
  /** The head is in; the handler is called when the rest of its chunk has been looked at. */
  #isWaitingToStart = false;
  #awaitsContinue = false;
  #sentContinue = false;
  #isErrorReply = false;
  /** Nothing after the current reply can be trusted or is wanted. */
  #mustClose = false;
  #drainedBytes = 0;
  #upgradeStream: Duplex | undefined;
  #bodyRate: BodyRate | undefined;
  readonly #queueWatch = new QueueWatch();
  #halfClose: HalfCloseWatch | undefined;
  #lingerWatch: LingerWatch | undefined;
  #breakOff: BreakOff | undefined;

  constructor(duplex: Duplex, meta: ConnectionMeta, id: number, host: ConnectionHost) {
    this.#duplex = duplex;
    this.meta = meta;
    this.scheme = meta.scheme;
    this.visitor = new Visitor(id, meta.remote);
    this.#host = host;
    this.#sinceMs = host.coarseMs;
    this.#intake = new RequestIntake(duplex, host.options.limits, this);
    this.#writer = new ReplyWriter(duplex, this, host.options.limits);
    this.#onReply = (reply) => this.#takeReply(reply);
    this.#onError = (thrown) => this.#takeError(thrown);
    duplex.handler = this;
  }

  // ---- The duplex ----

  onData(chunk: Uint8Array): void {
    this.#intake.push(chunk);
    if (this.#isWaitingToStart) this.#start();
  }

  onEnd(): void {
    this.#intake.hasEnded = true;
    this.#noteEnd();
  }

  onDrain(): void {
    this.#writer.resume();
    if (this.#phase === "full") this.#next();
  }

  onClose(error: SallyError | undefined): void {
    this.#release(new SallyError("VISITOR_GONE", undefined, { cause: error }));
  }

  /** The visitor ended its side: fine between requests and behind one, an abort within one. */
  #noteEnd(): void {
    const { clock, limits } = this.#host.options;
    if (this.#phase === "idle" || this.#phase === "head" || this.#phase === "draining") return this.#linger();
    if (this.#phase !== "exchange") return;
    this.#halfClose ??= new HalfCloseWatch(clock, limits);
    this.#halfClose.start(() => this.#probe());
    if (!this.#intake.isInBody) return;
    const error = new SallyError("VISITOR_GONE", "The request body broke off.");
    if (!this.#writer.isActive) return this.abort(error);
    this.#mustClose = true;
    this.#intake.breakBody(error);
  }

  /** Finds out whether a visitor that ended its side is still there: if not, this write brings a reset. */
  #probe(): void {
    if (this.#phase !== "exchange" || this.#duplex.queuedBytes > 0) return;
    if (this.#writer.isActive) this.#writer.probe(this.#host.options.limits.halfCloseProbeZeros);
    // RFC 9110 §15.2.1: who did not expect a 100 discards it.
    else if (this.#request?.minorVersion === 1) this.#writer.sendContinue();
  }

  // ---- The request ----

  headStarted(): void {
    if (this.#phase === "idle") this.#enter("head");
  }

  headRefused(error: SallyError): void {
    this.refuse(error);
  }

  requestHead(request: ParsedRequest, chunk: Uint8Array, end: number): boolean {
    if (request.wantsUpgrade && this.#handsOver(request, chunk.subarray(end))) return true;
    this.#request = request;
    this.#awaitsContinue = false;
    this.#sentContinue = false;
    this.#isErrorReply = false;
    this.#enter("exchange");
    const refusal = refusalOf(request, this.#host.options.limits);
    if (refusal === undefined) this.#begin(request);
    else this.refuse(refusal);
    return false;
  }

  #begin(request: ParsedRequest): void {
    let body = emptyBody;
    if (request.bodyLength !== 0) {
      body = this.#intake.openBody(request.bodyLength);
      this.#awaitsContinue = request.expect !== undefined;
      this.#bodyRate = new BodyRate();
    }
    this.#exchange = new Http1Exchange(this, request, body, this.#host.options.clock.nowMs());
    this.#isWaitingToStart = true;
  }

  /** Calls the handler, once what came with the head has been read: a small body is there when it is asked for. */
  #start(): void {
    this.#isWaitingToStart = false;
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    const { failure } = this.#intake;
    if (failure !== undefined) return this.#takeError(failure);
    try {
      this.#host.options.handler(exchange).then(this.#onReply, this.#onError);
    } catch (thrown) {
      queueMicrotask(() => this.#takeError(thrown));
    }
  }

  /** Gives a link request away, with the bytes that came behind its head. */
  #handsOver(head: ParsedRequest, rest: Uint8Array): boolean {
    const { onLinkRequest } = this.#host.options;
    if (onLinkRequest === undefined || head.bodyLength !== 0 || head.method !== "GET") return false;
    if (this.#intake.hasEnded || !/^\/_sally\/link(?:\?|$)/.test(head.target)) return false;
    const earlyBytes = this.#intake.hasPending ? concatBytes([rest, this.#intake.pendingBytes]) : rest;
    if (!onLinkRequest({ duplex: this.#duplex, head, meta: this.meta, earlyBytes })) return false;
    this.#release(new SallyError("VISITOR_GONE")); // forgets it here; the duplex lives on
    return true;
  }

  bodyWanted(): void {
    if (!this.#awaitsContinue || this.#writer.isActive || this.#intake.body?.receivedBytes !== 0) return;
    this.#awaitsContinue = false;
    this.#sentContinue = true;
    this.#writer.sendContinue();
  }

  bodyComplete(): void {
    this.#awaitsContinue = false;
    if (this.#phase === "draining") this.#next();
  }

  bodyBroken(): void {
    this.#mustClose = true;
    if (this.#phase === "draining") this.#linger();
  }

  /** Behind a reply only so much of the request is taken: for the sake of the next one, or of who still reads it. */
  bodyTaken(byteCount: number): void {
    if (this.#phase !== "draining") return;
    this.#drainedBytes += byteCount;
    if (this.#drainedBytes > this.#host.options.limits.drainedEarlyReplyBytes) this.#linger();
  }

  // ---- The reply ----

  inform(exchange: Http1Exchange, head: ReplyHead): void {
    const { status } = head;
    if (this.#exchange !== exchange || this.#writer.isActive || status < 100 || status > 199 || status === 101) return;
    if (this.#request?.minorVersion !== 1) return; // HTTP/1.0 knows no interim replies
    const isAwaited = status === 100 && this.#awaitsContinue;
    if (status === 100) {
      if (this.#sentContinue) return;
      this.#awaitsContinue = false;
      this.#sentContinue = true;
    }
    this.#writer.inform(head, isAwaited);
  }

  #takeReply(reply: Reply): void {
    if (this.#phase !== "exchange" || this.#exchange === undefined) dropReply(reply, new SallyError("VISITOR_GONE"));
    else if (reply.kind === "upgrade") this.#upgrade(reply.head, reply.stream);
    else if (reply.head.status >= 200) this.#startReply(reply);
    else {
      dropReply(reply, new SallyError("ORIGIN_BAD_REPLY"));
      this.#takeError(new SallyError("ORIGIN_BAD_REPLY", "An interim reply came as the final one."));
    }
  }

  #takeError(thrown: unknown): void {
    if (this.#phase !== "exchange" || this.#exchange === undefined) return;
    const error = toSallyError(thrown);
    const { log } = this.#host.options;
    if (error.code === "INTERNAL") log.error("a request failed", { id: this.#exchange.id, error: error.message });
    this.#intake.body?.discard(error);
    this.#startReply(this.#errorReply(error));
  }

  /** Answers trouble with the connection or the visitor's own bytes; what comes after cannot be understood. */
  refuse(error: SallyError): void {
    if (this.#phase === "lingering" || this.#phase === "closed" || this.#phase === "upgraded") return;
    this.#mustClose = true;
    this.#intake.drop();
    this.#enter("exchange");
    this.#startReply(this.#errorReply(error));
  }

  #errorReply(error: SallyError): MessageReply {
    this.#isErrorReply = true;
    const { clock, errorPage } = this.#host.options;
    const request = this.#request;
    const asked = this.#exchange ?? new RefusedRequest(this.visitor, request, error.code, clock.nowMs());
    if (asked instanceof RefusedRequest) this.#refused = asked;
    const accept = request === undefined ? this.#intake.refusedAccept : request.headers.get("accept");
    return errorPage(error, { id: asked.id, accept, nowMs: clock.wallMs() });
  }

  #startReply({ head, body }: MessageReply): void {
    const request = this.#request;
    this.#mustClose ||= request === undefined || !request.persists || this.#host.isDraining;
    this.#mustClose ||= this.#intake.isOverlong(this.#awaitsContinue);
    this.#mustClose ||= this.#intake.hasEnded && !this.#intake.hasPending;
    this.#writer.start(head, body, {
      isHead: request?.method === "HEAD",
      minorVersion: request?.minorVersion ?? 1,
      keepAlive: !this.#mustClose,
    });
  }

  replyDone(mustClose: boolean): void {
    this.#mustClose ||= mustClose;
    this.#endRequest();
    this.#servedRequests++;
    const { body } = this.#intake;
    // An origin that answered early may still want the rest; who does not wait for it now will not get it.
    if (body?.isAwaited !== true) body?.discard(new SallyError("CANCELLED", "The reply is complete."));
    this.#drainedBytes = 0;
    if (this.#mustClose) this.#linger();
    else if (this.#intake.isInBody) this.#enter("draining");
    else this.#next();
  }

  replyFailed(error: SallyError, hasStarted: boolean): void {
    const exchange = this.#exchange;
    if (!hasStarted && exchange !== undefined && !this.#isErrorReply) return this.#takeError(error);
    this.#enter("breaking");
    this.#intake.drop();
    this.#endRequest(error, hasStarted);
    exchange?.abort(error);
    this.#breakOff = new BreakOff(this.#duplex, this.#host.options.clock, () => this.abort(error));
    this.#breakOff.start();
  }

  #next(): void {
    this.#request = undefined;
    if (this.#writer.isBlocked) return this.#enter("full");
    this.#enter("idle");
    this.#intake.resume();
    if (this.#isWaitingToStart) this.#start();
    if (this.#intake.hasEnded && !this.#intake.hasPending) this.#noteEnd();
  }

  #upgrade(head: ReplyHead, stream: Duplex): void {
    if (head.status !== 101 || this.#request?.wantsUpgrade !== true || this.#intake.isInBody) {
      stream.reset(new SallyError("ORIGIN_BAD_REPLY"));
      this.#takeError(new SallyError("ORIGIN_BAD_REPLY", "The local service switched protocols without being asked."));
      return;
    }
    this.#writer.switchProtocols(head);
    this.#endRequest();
    this.#request = undefined; // upgraded connections live long: keep nothing
    this.#enter("upgraded");
    this.#halfClose?.stop();
    this.#upgradeStream = stream;
    relay(this.#duplex, stream, (error) => this.#release(error ?? new SallyError("VISITOR_GONE")));
    const early = this.#intake.pendingBytes;
    this.#intake.leave();
    if (early.length > 0) this.#duplex.handler.onData(early);
    if (this.#intake.hasEnded) this.#duplex.handler.onEnd();
  }

  // ---- The end ----

  /** Ends our side and takes what still comes, so that no reset overtakes the reply. */
  #linger(): void {
    if (this.#phase === "lingering" || this.#phase === "closed") return;
    this.#enter("lingering");
    this.#intake.drop();
    this.#duplex.end();
  }

  /** Ends everything at once, visibly. */
  abort(error: SallyError): void {
    if (this.#phase === "closed") return;
    this.#duplex.reset(error);
    this.#upgradeStream?.reset(error);
    this.#release(error);
  }

  #release(error: SallyError): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    this.#halfClose?.stop();
    this.#breakOff?.cancel();
    const exchange = this.#endRequest(error);
    this.#host.remove(this);
    this.#intake.release(error);
    exchange?.abort(error);
    this.#writer.cancel(error);
    this.visitor.leave();
  }

  #enter(phase: Phase): void {
    this.#phase = phase;
    this.#sinceMs = this.#host.coarseMs;
  }

  /** The request at hand is over; returns the exchange, if it came so far. */
  #endRequest(error?: SallyError, hasReply = error === undefined || this.#writer.isActive): Http1Exchange | undefined {
    const exchange = this.#exchange;
    const asked = exchange ?? this.#refused;
    this.#exchange = this.#refused = undefined;
    const { accessLog, clock } = this.#host.options;
    if (accessLog === undefined || asked === undefined) return exchange;
    const bytesIn = this.#intake.body?.receivedBytes ?? 0;
    accessLog(accessRecord({ asked, writer: this.#writer, bytesIn, hasReply, error, clock }));
    return exchange;
  }

  // ---- Time ----

  /** Called about once a second; `elapsedMs` since the last time. */
  sweep(nowMs: number, elapsedMs: number): void {
    if (this.#phase === "upgraded") return;
    if (this.#queueWatch.isStuck(this.#writer, nowMs, this.#host.writeStallMs)) {
      return this.abort(new SallyError("VISITOR_GONE", "The visitor stopped reading."));
    }
    const { limits } = this.#host.options;
    // Phases are stamped with the sweep before, so one interval is added: late rather than early.
    const inPhaseMs = nowMs - this.#sinceMs - this.#host.sweepMs;
    if (this.#phase === "idle") {
      const idleMs = this.#servedRequests === 0 ? limits.headMs : limits.keepAliveIdleMs;
      if (inPhaseMs >= (this.#host.isDraining ? 0 : idleMs)) this.#linger();
    } else if (this.#phase === "head") {
      if (inPhaseMs >= limits.headMs) this.refuse(new SallyError("REQUEST_TIMEOUT"));
    } else if (this.#phase === "exchange") this.#sweepBody(elapsedMs);
    else if (this.#phase === "full" || inPhaseMs < limits.socketLingerMs) return;
    else if (this.#phase === "draining") this.#linger();
    else if ((this.#lingerWatch ??= new LingerWatch()).isOver(this.#duplex, nowMs, this.#host.writeStallMs)) {
      this.#duplex.leave?.();
      this.abort(new SallyError("VISITOR_GONE", "The visitor did not close its side."));
    }
  }

  #sweepBody(elapsedMs: number): void {
    const { body, isInBody } = this.#intake;
    if (body === undefined || !isInBody || this.#writer.isActive) return;
    if (this.#bodyRate?.isTooSlow(body, elapsedMs, this.#host.options.limits) !== true) return;
    this.#mustClose = true;
    this.#intake.breakBody(new SallyError("REQUEST_TIMEOUT"));
  }
}
