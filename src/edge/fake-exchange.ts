/** Requests as a listener would hand them over, for tests and benchmarks. */

import type { Address } from "../core/address.ts";
import { utf8Decode } from "../core/bytes.ts";
import type { SallyError } from "../core/errors.ts";
import { type Body, bytesBody, emptyBody } from "../http/body.ts";
import type { Exchange, ReplyHead, VisitorConnection } from "../http/exchange.ts";
import { HeaderList } from "../http/header-list.ts";

export class FakeConnection implements VisitorConnection {
  readonly id = 1;
  readonly remote: Address;
  readonly #callbacks: (() => void)[] = [];

  constructor(host = "192.0.2.7") {
    this.remote = { host, port: 40_000 };
  }

  onClose(callback: () => void): void {
    this.#callbacks.push(callback);
  }

  close(): void {
    for (const callback of this.#callbacks) callback();
  }
}

export interface FakeExchangeOptions {
  readonly method?: string;
  readonly target?: string;
  /** Without Host, which is `demo.localhost:8080` unless `authority` differs. */
  readonly fields?: readonly (readonly [string, string])[];
  readonly body?: Uint8Array | Body;
  readonly wantsUpgrade?: boolean;
  readonly minorVersion?: number;
  readonly authority?: string;
  readonly connection?: FakeConnection;
}

export class FakeExchange implements Exchange {
  readonly id = "test";
  readonly request;
  readonly body: Body;
  readonly wantsUpgrade: boolean;
  readonly scheme = "http";
  readonly connection: FakeConnection;
  readonly authority: string;
  readonly startedMs = 0;
  readonly informed: ReplyHead[] = [];
  readonly #aborts: ((error: SallyError) => void)[] = [];
  #abortError: SallyError | undefined;

  constructor(options: FakeExchangeOptions = {}) {
    const { method = "GET", target = "/", fields = [], body, minorVersion = 1 } = options;
    this.authority = options.authority ?? "demo.localhost:8080";
    const raw = ["Host", this.authority, ...fields.flat()];
    if (body instanceof Uint8Array) raw.push("Content-Length", String(body.length));
    this.request = { method, target, minorVersion, headers: new HeaderList(raw) };
    this.body = body instanceof Uint8Array ? bytesBody(body) : (body ?? emptyBody);
    this.wantsUpgrade = options.wantsUpgrade ?? false;
    this.connection = options.connection ?? new FakeConnection();
  }

  inform(head: ReplyHead): void {
    this.informed.push(head);
  }

  onAbort(callback: (error: SallyError) => void): void {
    if (this.#abortError === undefined) this.#aborts.push(callback);
    else callback(this.#abortError);
  }

  abort(error: SallyError): void {
    this.#abortError = error;
    for (const callback of this.#aborts) callback(error);
  }
}

/** A body of unknown or announced length that a test feeds piece by piece. */
export class FedBody implements Body {
  readonly length: number | undefined;
  trailers: HeaderList | undefined;
  readCount = 0;
  cancelled: SallyError | undefined;
  #pieces: (Uint8Array | null)[] = [];
  #error: SallyError | undefined;
  #wake: (() => void) | undefined;

  constructor(pieces: readonly Uint8Array[] = [], length?: number) {
    this.#pieces = [...pieces];
    this.length = length;
  }

  feed(piece: Uint8Array | null): void {
    this.#pieces.push(piece);
    this.#wake?.();
  }

  break(error: SallyError): void {
    this.#error = error;
    this.#wake?.();
  }

  read(): Uint8Array | null | Promise<Uint8Array | null> {
    this.readCount++;
    return this.#next() ?? this.#wait();
  }

  cancel(error: SallyError): void {
    this.cancelled = error;
  }

  /** An end is never at hand at once: the harder case for a reader. */
  #next(): Uint8Array | undefined {
    const piece = this.#pieces[0];
    if (piece === undefined || piece === null) return undefined;
    this.#pieces.shift();
    return piece;
  }

  async #wait(): Promise<Uint8Array | null> {
    while (this.#pieces.length === 0 && this.#error === undefined) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#error !== undefined) throw this.#error;
    return this.#pieces[0] === null ? null : this.#pieces.shift()!; // not empty
  }
}

/** Everything that a body gives, as text. */
export async function readText(body: Body): Promise<string> {
  let text = "";
  for (;;) {
    const piece = await body.read();
    if (piece === null) return text;
    text += utf8Decode(piece);
  }
}
