/**
 * One WebSocket connection as a byte pipe: a lane. It hides frames, masks, pings and the closing handshake. What is
 * promised about ends: a close with 1000 is a clean end, 4000 + wire code carries an error of the table, and anything
 * else is an error. WebSocket knows no half-close: when the peer has ended, our direction is over too, and that is
 * clean only if we had ended or do so within `onEnd`.
 */

import {
  encodeFrame,
  frameHeadroomBytes,
  frameInPlace,
  framePayloadMaxBytes,
  FrameReader,
  opcode,
  type Masks,
} from "./frames.ts";
import { utf8Decode, utf8Encode } from "../../core/bytes.ts";
import type { Clock } from "../../core/clock.ts";
import { idleHandler, type Duplex, type DuplexHandler } from "../../core/duplex.ts";
import { errorCodeFromWire, SallyError, type ErrorCode } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import { endThenLinger } from "../../sockets/linger.ts";

export interface WebsocketOptions {
  /** Present on the client, which masks; a server expects masked frames. */
  readonly masks: Masks | undefined;
  readonly clock: Clock;
  /** Bytes that came behind the HTTP head. */
  readonly earlyBytes?: Uint8Array;
  /** Called once when the lane is over: undefined after a clean end by either side. */
  readonly onOver?: (reason: SallyError | undefined) => void;
}

const closeNormal = 1000;
const closeViolation = 1002;
const closeTooLarge = 1009;
const closePrivate = 4000;

export class WebsocketDuplex implements Duplex {
  readonly headroomBytes = frameHeadroomBytes;
  readonly #carrier: Duplex;
  readonly #options: WebsocketOptions;
  readonly #reader: FrameReader;
  #handler: DuplexHandler = idleHandler;
  /** Chunks that came before a handler was set. */
  #early: Uint8Array[] | undefined = [];
  #hasEnded = false;
  #isClosed = false;
  /** Bytes of the carrier that nobody has consumed yet. */
  #owedBytes = 0;
  /** Ran when the peer ended: why the pipe is over. */
  #peerClose: { readonly reason: SallyError | undefined } | undefined;

  /** Takes the carrier over. */
  constructor(carrier: Duplex, options: WebsocketOptions) {
    this.#carrier = carrier;
    this.#options = options;
    this.#reader = new FrameReader(options.masks === undefined, {
      onPayload: (piece) => this.#onPayload(piece),
      onControl: (code, payload) => this.#onControl(code, payload),
    });
    if (options.earlyBytes !== undefined && options.earlyBytes.length > 0) this.#early!.push(options.earlyBytes); // just made
    carrier.handler = {
      onData: (chunk) => (this.#early === undefined ? this.#receive(chunk) : void this.#early.push(chunk)),
      onEnd: () => this.#carrierLost(undefined),
      onDrain: () => this.#handler.onDrain(),
      onClose: (error) => this.#carrierLost(error),
    };
  }

  get handler(): DuplexHandler {
    return this.#handler;
  }

  set handler(handler: DuplexHandler) {
    this.#handler = handler;
    if (this.#early === undefined) return;
    if (this.#early.length === 0) this.#early = undefined;
    else queueMicrotask(() => this.#deliverEarly());
  }

  get queuedBytes(): number {
    return this.#carrier.queuedBytes;
  }

  get copiesWrites(): boolean {
    return this.#carrier.copiesWrites === true;
  }

  write(chunk: Uint8Array): boolean {
    if (this.#isClosed || this.#hasEnded || chunk.length === 0) return true;
    const { masks } = this.#options;
    let isRoom = true;
    for (let at = 0; at < chunk.length; at += framePayloadMaxBytes) {
      const piece = chunk.length <= framePayloadMaxBytes ? chunk : chunk.subarray(at, at + framePayloadMaxBytes);
      isRoom = this.#carrier.write(encodeFrame(opcode.binary, piece, masks));
    }
    return isRoom;
  }

  writeOver(buffer: Uint8Array, start: number, end: number): boolean {
    if (this.#isClosed || this.#hasEnded) return true;
    if (end - start > framePayloadMaxBytes) return this.write(buffer.subarray(start, end));
    const from = frameInPlace(opcode.binary, { buffer, start, end }, this.#options.masks);
    return this.#carrier.write(buffer.subarray(from, end));
  }

  end(): void {
    if (this.#hasEnded || this.#isClosed) return;
    this.#hasEnded = true;
    this.#sendClose(closeNormal, "");
  }

  reset(error: SallyError): void {
    if (this.#isClosed) return;
    this.#handler = idleHandler;
    this.#over(error, closePrivate + error.row.wire);
  }

  consume(byteCount: number): void {
    if (this.#isClosed) return;
    this.#owedBytes -= byteCount;
    this.#carrier.consume(byteCount);
  }

  /**
   * Ends the lane on behalf of its session, whatever its owner does: without an error what is queued still goes out
   * and `onClose` reports a clean end; with one the peer and the owner are told its code.
   */
  close(error: SallyError | undefined): void {
    if (this.#isClosed) return;
    if (error !== undefined) return this.#fail(error, closePrivate + error.row.wire);
    this.#over(undefined, undefined);
    this.#report(undefined);
  }

  #deliverEarly(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const chunk of early) this.#receive(chunk);
  }

  #receive(chunk: Uint8Array): void {
    if (this.#isClosed) return this.#carrier.consume(chunk.length);
    this.#owedBytes += chunk.length;
    try {
      const overhead = this.#reader.push(chunk);
      if (overhead > 0) this.consume(overhead);
    } catch (error) {
      if (!(error instanceof SallyError)) throw error;
      return this.#fail(error, error.code === "FRAME_TOO_LARGE" ? closeTooLarge : closeViolation);
    }
    if (this.#peerClose !== undefined) this.#peerEnded(this.#peerClose.reason);
  }

  #onPayload(piece: Uint8Array): void {
    if (!this.#isClosed) this.#handler.onData(piece);
  }

  #onControl(code: number, payload: Uint8Array): boolean {
    if (code === opcode.ping && !this.#hasEnded && this.#carrier.queuedBytes < limits.socketQueueHighBytes) {
      this.#carrier.write(encodeFrame(opcode.pong, payload, this.#options.masks));
    }
    if (code !== opcode.close) return true;
    this.#peerClose = { reason: reasonOfClose(payload) };
    return false;
  }

  /** The peer's close frame: its direction is over, and by the rules of WebSocket ours too. */
  #peerEnded(reason: SallyError | undefined): void {
    if (this.#isClosed) return;
    if (reason !== undefined) return this.#fail(reason, undefined);
    this.#handler.onEnd();
    if (this.#isClosed) return; // The handler reset us.
    const isClean = this.#hasEnded;
    this.#over(undefined, undefined);
    this.#report(isClean ? undefined : new SallyError("LINK_LOST", "the peer closed the lane while it was in use"));
  }

  /** Without a cause: the carrier ended, but is still open in our direction. */
  #carrierLost(cause: SallyError | undefined): void {
    if (this.#isClosed) return;
    if (this.#early !== undefined) this.#deliverEarly();
    if (this.#isClosed) return;
    const why = cause === undefined ? "it ended without a closing frame" : cause.message;
    const error = new SallyError("LINK_LOST", `the WebSocket was lost: ${why}`, { cause });
    this.#isClosed = true;
    if (cause === undefined) endThenLinger(this.#carrier, this.#linger());
    this.#options.onOver?.(error);
    this.#report(error);
  }

  /** `status` tells the peer; undefined when it is the peer who told us. */
  #fail(error: SallyError, status: number | undefined): void {
    this.#over(error, status);
    this.#report(error);
  }

  #report(error: SallyError | undefined): void {
    const handler = this.#handler;
    this.#handler = idleHandler;
    queueMicrotask(() => handler.onClose(error));
  }

  /**
   * Nothing is handed on from here; the carrier gets time to deliver what is queued. A session that closes cleanly
   * waits for that, one that fails does not.
   */
  #over(reason: SallyError | undefined, status: number | undefined): void {
    this.#isClosed = true;
    this.#early = undefined;
    const { onOver } = this.#options;
    if (reason !== undefined) onOver?.(reason);
    if (reason !== undefined && status !== undefined && this.#hasEnded) return this.#carrier.reset(reason);
    if (!this.#hasEnded) this.#sendClose(status ?? closeNormal, reason?.code ?? "");
    // Unread bytes would keep the carrier from ever seeing the peer's end.
    this.#carrier.consume(this.#owedBytes);
    endThenLinger(this.#carrier, {
      ...this.#linger(),
      onDone: () => (reason === undefined ? onOver?.(undefined) : undefined),
    });
  }

  #linger(): { readonly clock: Clock; readonly lingerMs: number } {
    return { clock: this.#options.clock, lingerMs: limits.socketLingerMs };
  }

  #sendClose(status: number, text: string): void {
    const reason = utf8Encode(text);
    const payload = new Uint8Array(2 + reason.length);
    payload[0] = status >>> 8;
    payload[1] = status & 255;
    payload.set(reason, 2);
    this.#carrier.write(encodeFrame(opcode.close, payload, this.#options.masks));
  }
}

/** Undefined for a clean end. */
function reasonOfClose(payload: Uint8Array): SallyError | undefined {
  if (payload.length === 1) return new SallyError("PROTOCOL_VIOLATION", "the peer sent half a closing status");
  const status = payload.length === 0 ? closeNormal : (payload[0]! << 8) | payload[1]!; // two bytes at least
  if (status === closeNormal) return undefined;
  if (status >= closePrivate && status < closePrivate + 1000) {
    const code: ErrorCode = errorCodeFromWire(status - closePrivate);
    return new SallyError(code);
  }
  const text = utf8Decode(payload.subarray(2)).replaceAll(/[^\x20-\x7e]/g, "?");
  const code = status === closeViolation ? "PROTOCOL_VIOLATION" : "LINK_LOST";
  return new SallyError(code, `the peer closed the WebSocket with status ${status} ${text}`.trim());
}
