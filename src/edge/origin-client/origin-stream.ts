/**
 * One dialled stream to an origin and its life: serving a request, idle, closing. It decides when it may serve another
 * request: both messages ended cleanly, no byte is left over or unread, and the origin keeps the connection. At most one
 * request is on it at a time, never a second one behind it.
 */

import type { DialledStream, DuplexHandler } from "../../core/duplex.ts";
import { SallyError, toSallyError } from "../../core/errors.ts";
import type { Limits } from "../../core/limits.ts";
import type { Body } from "../../http/body.ts";
import type { Reply, ReplyHead, VisitorConnection } from "../../http/exchange.ts";
import type { ParsedReply } from "../../http/http1/head-parser.ts";
import { withoutHopByHop } from "../../http/http1/hop-by-hop.ts";
import type { TunnelClaim } from "../../ports/dialer.ts";
import type { Watched } from "./deadlines.ts";
import { keepAliveTimeoutMs } from "./keep-alive.ts";
import { type ReplyEvents, ReplyReader } from "./reply-reader.ts";
import { UpgradedStream } from "./upgraded-stream.ts";

/** How a stream ended before any byte of a reply. */
export interface Loss {
  /** Undefined: the origin ended the connection cleanly. */
  readonly error: SallyError | undefined;
  readonly linkId: string;
  /** The far side reported that no byte of this request reached the origin. */
  readonly isUnseen: boolean;
  /** The agent had connected to the origin. */
  readonly wasOpened: boolean;
  /** The stream had served a request before. */
  readonly wasReused: boolean;
}

/** The request that a stream serves. */
export interface StreamUser {
  readonly isHeadRequest: boolean;
  /** Another stream for the same tunnel may carry the whole request. */
  readonly canMove: boolean;
  readonly wantsUpgrade: boolean;
  /** The first byte of a reply is here: the request was seen. */
  onFirstByte(): void;
  onInterim(head: ReplyHead): void;
  onReply(reply: Reply): void;
  /** The whole reply arrived. */
  onReplyEnd(): void;
  /** The stream takes nothing more of the request. */
  onUnwritable(): void;
  onDrain(): void;
  onDue(): void;
  onLost(loss: Loss): void;
  /** Goes on elsewhere, if it may be asked twice and somebody else is there: true, and the stream is of no more use. */
  moveOn(): boolean;
  /** Goes on over another stream; this one had sent nothing, and is of no more use. */
  moveTo(stream: OriginStream): void;
  /** What came is no reply, or not a whole one. If it was handed on, its body has failed already. */
  onFailed(error: SallyError): void;
  /** The stream serves this request no longer. */
  onDetached(): void;
}

/** Who keeps the streams. */
export interface StreamKeeper {
  /** Free for another request. */
  onFree(stream: OriginStream): void;
  /** Not to be used again, though it may still be closing. */
  onRetired(stream: OriginStream): void;
  /** Nothing is left of it. */
  onGone(stream: OriginStream): void;
}

export interface StreamOptions {
  readonly stream: DialledStream;
  readonly linkId: string;
  readonly owner: string;
  readonly tunnel: string;
  readonly claim: TunnelClaim;
  readonly isPooled: boolean;
  readonly keeper: StreamKeeper;
  readonly limits: Limits;
  readonly nowMs: () => number;
}

export class OriginStream implements DuplexHandler, ReplyEvents, Watched {
  readonly linkId: string;
  /** Whose agent is behind the link. */
  readonly owner: string;
  readonly tunnel: string;
  /** Under which it was dialled. */
  readonly claim: TunnelClaim;
  dueMs = Infinity;
  /** Set once the origin authenticated the connection instead of a request: it serves this visitor only. */
  pinnedTo: VisitorConnection | undefined;
  /** What the origin's last reply said about idle time. */
  keepAliveMs: number | undefined;
  /** An upper bound of the round trip: the shortest time from a request to its first reply byte. */
  roundTripMs = Infinity;
  readonly #stream: DialledStream;
  readonly #keeper: StreamKeeper;
  readonly #limits: Limits;
  readonly #nowMs: () => number;
  readonly #reader: ReplyReader;
  #state: "idle" | "busy" | "closing" | "gone" = "idle";
  #user: StreamUser | undefined;
  #requestCount = 0;
  #writtenBytes = 0;
  #writtenBefore = 0;
  #beganMs = 0;
  #isRequestSent = false;
  /** The origin keeps the connection, as far as is known. */
  #persists: boolean;

  constructor(options: StreamOptions) {
    this.linkId = options.linkId;
    this.owner = options.owner;
    this.tunnel = options.tunnel;
    this.claim = options.claim;
    this.#persists = options.isPooled;
    this.#stream = options.stream;
    this.#keeper = options.keeper;
    this.#limits = options.limits;
    this.#nowMs = options.nowMs;
    this.#reader = new ReplyReader(options.limits, this);
    this.#stream.handler = this;
  }

  /** Bytes on the way on the stream's lane: the fewer, the less a request waits for others. */
  get laneLoadBytes(): number {
    return this.#stream.laneLoadBytes ?? 0;
  }

  /** There is no room for it yet, and nothing of it has left. */
  get isWaiting(): boolean {
    return this.#stream.isWaiting === true;
  }

  get isIdle(): boolean {
    return this.#state === "idle";
  }

  /** Its request, which waits, may move to another stream. */
  get canMove(): boolean {
    return this.#state === "busy" && this.#user?.canMove === true;
  }

  /** Takes a free stream for one request; `nowMs` is now. */
  begin(user: StreamUser, nowMs: number): void {
    this.#state = "busy";
    this.#user = user;
    this.#requestCount++;
    this.#writtenBefore = this.#writtenBytes;
    this.#beganMs = nowMs;
    this.#isRequestSent = false;
    this.#reader.start(user.isHeadRequest);
  }

  write(bytes: Uint8Array): boolean {
    this.#writtenBytes += bytes.length;
    return this.#stream.write(bytes);
  }

  /** The request is complete. */
  requestSent(): void {
    this.#isRequestSent = true;
    this.#settle();
  }

  /** Breaks off at once: the origin sees an abort, a reply that was handed on fails. */
  abort(error: SallyError): void {
    if (this.#state === "gone") return;
    this.#user = undefined;
    this.#drop(error);
    this.#reader.fail(error);
  }

  /**
   * Nothing comes over its link, and another may serve the tunnel: not if the link holds the claim, for then it would be
   * asked again itself. Who authenticated this connection is a stranger on another, so such a request waits.
   */
  forsake(): void {
    if (this.#state !== "busy" || this.claim.isCurrent || this.pinnedTo !== undefined) return;
    if (this.#reader.hasBytes || this.#user?.moveOn() !== true) return;
    this.#user = undefined;
    this.#drop(new SallyError("CANCELLED"));
  }

  /** Its request, which waits, goes on over a stream that is free. */
  moveTo(free: OriginStream): void {
    const user = this.#user;
    this.#user = undefined;
    this.#drop(new SallyError("CANCELLED"));
    user?.moveTo(free);
  }

  /** Closes a stream that idles. */
  retire(): void {
    if (this.#state === "idle") this.#closeCleanly();
  }

  /** As `retire`, for the sake of somebody who waits: the far side gets less time to end, too. */
  giveUp(): void {
    this.retire();
    if (this.#state === "closing") this.dueMs = this.#nowMs() + this.#limits.givenUpLingerMs;
  }

  // Events of the stream.

  onData(chunk: Uint8Array): void {
    if (this.#state !== "busy") {
      // Bytes nobody asked for must never become the reply to a later request.
      this.#drop(new SallyError("ORIGIN_BAD_REPLY", "The local service sent bytes without a request."));
      return;
    }
    const reader = this.#reader;
    if (reader.isDone) {
      this.#persists = false;
      this.#stream.consume(chunk.length);
      this.#noteUnwritable();
      return;
    }
    if (!reader.hasBytes) {
      this.roundTripMs = Math.min(this.roundTripMs, this.#nowMs() - this.#beganMs);
      this.#user?.onFirstByte();
    }
    try {
      reader.push(chunk);
    } catch (thrown) {
      this.#fail(toSallyError(thrown));
    }
  }

  onEnd(): void {
    this.#persists = false;
    if (this.#state === "idle") this.#closeCleanly();
    else if (this.#state === "busy") {
      const wasDone = this.#reader.isDone;
      if (this.#reader.end()) {
        if (wasDone) this.#noteUnwritable();
      } else this.#break(undefined);
    }
  }

  onDrain(): void {
    this.#user?.onDrain();
  }

  onClose(error: SallyError | undefined): void {
    this.#persists = false;
    if (this.#state !== "busy") this.#leave();
    else if (!this.#reader.isDone) this.#break(error);
    else {
      // The reply is whole, even if parts of it still wait to be read.
      const user = this.#leave();
      user?.onUnwritable();
      user?.onDetached();
    }
  }

  onDue(): void {
    if (this.#state === "idle") this.#closeCleanly();
    else if (this.#state === "closing") this.#drop(new SallyError("CANCELLED"));
    else this.#user?.onDue();
  }

  // Events of the reply.

  consumed(byteCount: number): void {
    this.#stream.consume(byteCount); // also when the stream is gone: a slow visitor may still hold what it brought
    if (this.#state !== "gone" && this.#reader.isDone) this.#settle();
  }

  interim(head: ParsedReply): boolean {
    this.#user?.onInterim(relayedHead(head, false));
    return this.#state === "busy";
  }

  switched(head: ParsedReply, rest: Uint8Array): void {
    const user = this.#user;
    if (user === undefined) return;
    if (!user.wantsUpgrade || !head.hasUpgrade || !this.#isRequestSent) {
      throw new SallyError("ORIGIN_BAD_REPLY", "The local service switched protocols without being asked.");
    }
    this.#leave();
    const stream = new UpgradedStream(this.#stream, rest);
    user.onReply({ kind: "upgrade", head: relayedHead(head, true), stream });
  }

  final(head: ParsedReply, body: Body): void {
    if (!head.persists || this.#reader.isUntilClose) this.#persists = false;
    this.keepAliveMs = keepAliveTimeoutMs(head.headers.get("keep-alive"));
    this.#user?.onReply({ kind: "message", head: relayedHead(head, head.status === 426), body });
  }

  finished(): void {
    if (this.#reader.hasStrayBytes) this.#persists = false;
    const user = this.#user;
    if (!this.#persists && !this.#isRequestSent) user?.onUnwritable();
    user?.onReplyEnd();
    this.#settle();
  }

  cancelled(error: SallyError): void {
    if (this.#state !== "busy") return;
    const user = this.#user;
    this.#drop(error);
    user?.onFailed(error);
  }

  // Life.

  /** The reply is complete and the origin goes: what is left of the request has nowhere to go. */
  #noteUnwritable(): void {
    if (!this.#persists && !this.#isRequestSent) this.#user?.onUnwritable();
    this.#settle();
  }

  /** Ends the request's use of this stream, once everything is there and read. */
  #settle(): void {
    if (this.#state !== "busy" || !this.#reader.isDone || this.#reader.unreadBytes > 0) return;
    if (!this.#isRequestSent && this.#persists) return;
    const user = this.#user;
    this.#user = undefined;
    user?.onDetached();
    if (!this.#isRequestSent) this.#drop(new SallyError("CANCELLED"));
    else if (!this.#persists) this.#closeCleanly();
    else {
      this.#state = "idle";
      this.#keeper.onFree(this);
    }
  }

  /** The stream ended in the middle. */
  #break(error: SallyError | undefined): void {
    if (this.#reader.hasBytes) return this.#fail(error ?? new SallyError("ORIGIN_CLOSED"));
    const delivered = this.#stream.deliveredBytes;
    const loss: Loss = {
      error,
      linkId: this.linkId,
      isUnseen: delivered !== undefined && delivered <= this.#writtenBefore,
      wasOpened: this.#stream.isOpened,
      wasReused: this.#requestCount > 1,
    };
    const user = this.#user;
    this.#drop(error ?? new SallyError("ORIGIN_CLOSED"));
    user?.onLost(loss);
  }

  #fail(error: SallyError): void {
    const user = this.#user;
    this.#drop(error);
    this.#reader.fail(error);
    user?.onFailed(error);
  }

  #closeCleanly(): void {
    this.#state = "closing";
    this.dueMs = this.#nowMs() + this.#limits.socketLingerMs;
    this.#keeper.onRetired(this);
    this.#stream.end();
  }

  #drop(error: SallyError): void {
    this.#stream.reset(error);
    this.#leave();
  }

  #leave(): StreamUser | undefined {
    const user = this.#user;
    this.#user = undefined;
    if (this.#state === "gone") return user;
    this.#state = "gone";
    this.#keeper.onGone(this);
    return user;
  }
}

function relayedHead(head: ParsedReply, keepsUpgrade: boolean): ReplyHead {
  const headers = withoutHopByHop(head.headers, head.nominated, keepsUpgrade);
  return { status: head.status, reason: head.reason, headers };
}
