/**
 * Looks at the first line of requests and replies as they pass, for the live status. It never holds, changes or delays
 * bytes, and a stream has a tap only while somebody listens. A guess by design: a chunk that follows bytes of the other
 * direction is taken as the start of a message, which is so for pooled streams, where requests never overlap.
 */

import type { Clock } from "../core/clock.ts";
import { limits } from "../core/limits.ts";

export interface TappedRequest {
  readonly tunnel: string;
  readonly method: string;
  /** At most 1 KiB of it, as sent. */
  readonly target: string;
  readonly status: number;
  /** From the request's first byte at the agent to the reply's. */
  readonly durationMs: number;
}

const requestPattern = /^([A-Z-]{1,20}) ([\x21-\x7e\x80-\xff]+)(?: HTTP\/1\.[01])?$/;
const statusPattern = /^HTTP\/1\.[01] (\d{3})/;

export class StreamTap {
  readonly #tunnel: string;
  readonly #clock: Clock;
  readonly #onRequest: (request: TappedRequest) => void;
  #last: "none" | "request" | "reply" = "none";
  #pending: { readonly method: string; readonly target: string; readonly startedMs: number } | undefined;
  #isDeaf = false;

  constructor(tunnel: string, clock: Clock, onRequest: (request: TappedRequest) => void) {
    this.#tunnel = tunnel;
    this.#clock = clock;
    this.#onRequest = onRequest;
  }

  toOrigin(chunk: Uint8Array): void {
    if (this.#last === "request" || this.#isDeaf) return;
    this.#last = "request";
    const match = requestPattern.exec(firstLine(chunk));
    if (match === null) return;
    this.#pending = { method: match[1]!, target: match[2]!, startedMs: this.#clock.nowMs() }; // both groups always match
  }

  fromOrigin(chunk: Uint8Array): void {
    const isStart = this.#last === "request" || this.#pending !== undefined;
    if (!isStart || this.#isDeaf) return;
    this.#last = "reply";
    const match = statusPattern.exec(firstLine(chunk));
    if (match === null || this.#pending === undefined) return;
    const status = Number(match[1]);
    // An interim reply: the final one follows.
    if (status < 200 && status !== 101) return;
    const { method, target, startedMs } = this.#pending;
    this.#pending = undefined;
    this.#isDeaf = status === 101;
    const durationMs = this.#clock.nowMs() - startedMs;
    this.#onRequest({ tunnel: this.#tunnel, method, target, status, durationMs });
  }
}

function firstLine(chunk: Uint8Array): string {
  let text = "";
  const end = Math.min(chunk.length, limits.tappedLineBytes);
  for (let i = 0; i < end; i++) {
    const byte = chunk[i]!; // below the length
    if (byte === 13 || byte === 10) break;
    text += String.fromCharCode(byte);
  }
  return text;
}
