/**
 * One small HTTP request over a fresh connection, the whole reply read: for enrolment, the admin API and the probe.
 * The reply is bounded, and the connection is closed whatever happens.
 */

import { concatBytes, utf8Decode, utf8Encode } from "../core/bytes.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { HeaderList } from "../http/header-list.ts";
import { type BodyDecoder, ChunkedDecoder, LengthDecoder, UntilCloseDecoder } from "../http/http1/body-decoder.ts";
import { ReplyParser } from "../http/http1/head-parser.ts";
import { encodeRequestHead } from "../http/http1/head-writer.ts";

export interface HttpCall {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: HeaderList;
  readonly body: string;
}

/** @throws SallyError PROTOCOL_VIOLATION for what is not HTTP or too long, LINK_LOST when it broke off, CONNECT_TIMEOUT when the signal's time is over, or its reason */
export function callHttp(duplex: Duplex, call: HttpCall, signal: AbortSignal): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void): void => {
      signal.removeEventListener("abort", onAbort);
      duplex.reset(new SallyError("CANCELLED"));
      settle();
    };
    const onAbort = (): void => finish(() => reject(abortError(signal.reason)));
    signal.addEventListener("abort", onAbort, { once: true });
    const reader = new AnswerReader();
    const step = (work: () => HttpAnswer | undefined): void => {
      try {
        const answer = work();
        if (answer !== undefined) finish(() => resolve(answer));
      } catch (error) {
        finish(() => reject(error));
      }
    };
    duplex.handler = {
      onData(chunk) {
        duplex.consume(chunk.length);
        step(() => reader.push(chunk));
      },
      onEnd: () => step(() => reader.finish()),
      onDrain() {},
      onClose: (error) =>
        finish(() => reject(error ?? new SallyError("LINK_LOST", "the node closed the connection without an answer"))),
    };
    if (signal.aborted) onAbort();
    else duplex.write(encodeCall(call));
  });
}

/** `AbortSignal.timeout` gives its own kind of reason. */
function abortError(reason: unknown): SallyError {
  if (reason instanceof DOMException && reason.name === "TimeoutError") {
    return new SallyError("CONNECT_TIMEOUT", "there was no answer in time: is this the address of a Sallyport node?");
  }
  return toSallyError(reason, "CANCELLED");
}

function encodeCall({ method, path, host, headers = {}, body }: HttpCall): Uint8Array {
  const list = new HeaderList(["Host", host, "Connection", "close", ...Object.entries(headers).flat()]);
  const bytes = body === undefined ? undefined : utf8Encode(body);
  if (bytes !== undefined) {
    list.append("Content-Type", "application/json");
    list.append("Content-Length", String(bytes.length));
  }
  return encodeRequestHead({ method, target: path, headers: list }, bytes);
}

class AnswerReader {
  readonly #parser = new ReplyParser(limits);
  readonly #pieces: Uint8Array[] = [];
  #head: { status: number; headers: HeaderList } | undefined;
  #decoder: BodyDecoder | undefined;
  #totalBytes = 0;

  /** The answer, once complete. */
  push(chunk: Uint8Array): HttpAnswer | undefined {
    this.#totalBytes += chunk.length;
    if (this.#totalBytes > limits.httpAnswerBytes)
      throw new SallyError("PROTOCOL_VIOLATION", "the node's answer is too long");
    let at = 0;
    while (this.#decoder === undefined) {
      const head = this.#parser.push(chunk, at);
      if (head === undefined) return undefined;
      at = this.#parser.end;
      if (head.status < 200) continue;
      this.#head = head;
      if (head.isChunked) this.#decoder = new ChunkedDecoder(limits, "PROTOCOL_VIOLATION");
      else if (head.contentLength === undefined) this.#decoder = new UntilCloseDecoder();
      else this.#decoder = new LengthDecoder(head.contentLength);
    }
    this.#decoder.push(chunk, at, { onBody: (piece) => void this.#pieces.push(piece) });
    return this.#decoder.isDone ? this.#answer() : undefined;
  }

  finish(): HttpAnswer {
    if (this.#decoder?.finish() === true) return this.#answer();
    throw new SallyError("LINK_LOST", "the node closed the connection without a complete answer");
  }

  #answer(): HttpAnswer {
    const { status, headers } = this.#head!; // set together with the decoder
    return { status, headers, body: utf8Decode(concatBytes(this.#pieces)) };
  }
}
