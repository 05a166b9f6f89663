/**
 * Visitors who keep asking while something breaks, and a judge of what they get. Each answer is right to the byte, a
 * clear refusal, or a connection that visibly broke; anything else (a wrong body, a body that ends early and looks
 * complete, a request that hangs) is wrong. They speak HTTP/1.1 over plain sockets, with no code of the product.
 */

import { bodyOf, slowBodyBytes } from "./checked-origin.ts";
import { RawSocket } from "./raw-socket.ts";
import type { Seeded } from "./seeded.ts";

export interface Outcome {
  readonly kind: "right" | "refused" | "broken" | "wrong";
  readonly request: string;
  /** It went out on a connection that had served a request before. */
  readonly isReused: boolean;
  readonly isSafe: boolean;
  readonly status: number | undefined;
  /** The head of an answer had come. */
  readonly hasBegun: boolean;
  /** The Sally-Error field, or what broke. */
  readonly detail: string;
  readonly startedMs: number;
  readonly tookMs: number;
}

export interface VisitOptions {
  readonly port: number;
  /** The Host field. */
  readonly host: string;
}

interface Wanted {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body: string;
  readonly expected: string;
}

interface Answer {
  readonly status: number;
  readonly code: string;
  readonly body: string;
  readonly closes: boolean;
}

const refusals = new Set([502, 503, 504]);
let lastId = 0;

/** One visitor, one request at a time; keeps its connection while the server does. */
export class Visitor implements Disposable {
  readonly #options: VisitOptions;
  #socket: RawSocket | undefined;

  constructor(options: VisitOptions) {
    this.#options = options;
  }

  get isConnected(): boolean {
    return this.#socket !== undefined && !this.#socket.isClosed && !this.#socket.hasEnded;
  }

  /** A GET of so many bytes. */
  get(length: number, kind: "bytes" | "chunks" = "bytes"): Promise<Outcome> {
    const id = nextId();
    return this.#ask({ method: "GET", path: `/${kind}/${id}/${length}`, body: "", expected: bodyOf(id, length) });
  }

  /** A GET whose answer begins at once and ends after `slowMs`. */
  getSlow(slowMs: number): Promise<Outcome> {
    const id = nextId();
    return this.#ask({ method: "GET", path: `/slow/${id}/${slowMs}`, body: "", expected: bodyOf(id, slowBodyBytes) });
  }

  post(length: number): Promise<Outcome> {
    const id = nextId();
    const body = bodyOf(id, length);
    return this.#ask({ method: "POST", path: `/echo/${id}`, body, expected: body });
  }

  /** Ends the connection after the last answer. */
  [Symbol.dispose](): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #ask(wanted: Wanted): Promise<Outcome> {
    if (!this.isConnected) this[Symbol.dispose]();
    const isReused = this.#socket !== undefined;
    const startedMs = performance.now();
    const progress = { hasBegun: false };
    const outcome = (kind: Outcome["kind"], detail: string, status?: number): Outcome => ({
      kind,
      request: `${wanted.method} ${wanted.path}`,
      isReused,
      isSafe: wanted.method === "GET",
      status,
      ...progress,
      detail,
      startedMs,
      tookMs: performance.now() - startedMs,
    });
    let answer: Answer;
    try {
      this.#socket ??= await RawSocket.connect(this.#options.port);
      answer = await exchange(this.#socket, { host: this.#options.host, wanted, progress });
    } catch (thrown) {
      const isHung = this.#socket !== undefined && !this.#socket.isClosed && !this.#socket.hasEnded;
      this[Symbol.dispose]();
      return outcome(isHung ? "wrong" : "broken", String(thrown));
    }
    if (answer.closes) this[Symbol.dispose]();
    const { status, code, body } = answer;
    if (status === 200 && body === wanted.expected) return outcome("right", "", status);
    if (refusals.has(status) && code !== "") return outcome("refused", code, status);
    return outcome("wrong", `${code} ${difference(body, wanted.expected)}`, status);
  }
}

function nextId(): string {
  return `r${++lastId}`;
}

function difference(got: string, wanted: string): string {
  let at = 0;
  while (at < got.length && got[at] === wanted[at]) at++;
  return `${got.length} of ${wanted.length} bytes, different from byte ${at}: ${JSON.stringify(got.slice(at, at + 200))}`;
}

interface Asking {
  readonly host: string;
  readonly wanted: Wanted;
  readonly progress: { hasBegun: boolean };
}

async function exchange(socket: RawSocket, { host, wanted, progress }: Asking): Promise<Answer> {
  const { method, path, body } = wanted;
  const length = method === "POST" ? `Content-Length: ${body.length}\r\n` : "";
  socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${host}\r\n${length}\r\n${body}`);
  let head = await socket.readHead();
  while (/^HTTP\/1\.1 1\d\d /.test(head)) head = await socket.readHead();
  progress.hasBegun = true;
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1]);
  const field = (name: string): string => new RegExp(`\r\n${name}: *([^\r\n]*)`, "i").exec(head)?.[1] ?? "";
  return {
    status,
    code: field("sally-error"),
    closes: /\bclose\b/i.test(field("connection")),
    body: await readBody(socket, field("transfer-encoding"), field("content-length")),
  };
}

/** Only lengths and chunks end a body: one that ends with its connection could not be told from a cut one. */
async function readBody(socket: RawSocket, coding: string, length: string): Promise<string> {
  if (coding.toLowerCase() !== "chunked") {
    if (length === "") throw new Error("an answer without length or chunks");
    return await socket.read(Number(length));
  }
  const pieces: string[] = [];
  for (;;) {
    const size = Number.parseInt(await socket.readUntil("\r\n"), 16);
    if (size > 0) pieces.push(await socket.read(size));
    const rest = await socket.readUntil("\r\n");
    if (rest !== "\r\n") throw new Error(`a chunk does not end where it should: ${JSON.stringify(rest)}`);
    if (size === 0) return pieces.join("");
  }
}

export interface LoadOptions extends VisitOptions {
  readonly seeded: Seeded;
  /** Visitors who keep their connections. */
  readonly kept?: number;
  /** Visitors who come anew for each request. */
  readonly fresh?: number;
  /** Pause between two requests of a visitor, at most. */
  readonly pauseMs?: number;
  /** Only GET. */
  readonly isSafe?: boolean;
  readonly onOutcome?: (outcome: Outcome) => void;
}

/** Runs until it is stopped; a handful of visitors, each with one request at a time. */
export class VisitorLoad implements AsyncDisposable {
  readonly outcomes: Outcome[] = [];
  readonly #options: LoadOptions;
  readonly #visitors: Promise<void>[] = [];
  #isStopped = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    const { kept = 8, fresh = 3, seeded } = options;
    for (let i = 0; i < kept; i++) this.#visitors.push(this.#visit(seeded.fork(), true));
    for (let i = 0; i < fresh; i++) this.#visitors.push(this.#visit(seeded.fork(), false));
  }

  /** Right answers that were asked for from this moment on. */
  rightSince(sinceMs: number): number {
    return this.outcomes.filter(({ kind, startedMs }) => kind === "right" && startedMs >= sinceMs).length;
  }

  count(kind: Outcome["kind"]): number {
    return this.outcomes.filter((outcome) => outcome.kind === kind).length;
  }

  /** How often each outcome came, for the log and for failures. */
  get summary(): string {
    const counts = new Map<string, number>();
    for (const { kind, status, detail } of this.outcomes) {
      const key = kind === "refused" ? `${status} ${detail}` : kind;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const slowest = Math.max(0, ...this.outcomes.map(({ tookMs }) => tookMs));
    return `${[...counts].map(([key, count]) => `${count} ${key}`).join(", ")}; slowest ${slowest.toFixed(0)} ms`;
  }

  /** Lets the running requests finish. */
  async stop(): Promise<readonly Outcome[]> {
    this.#isStopped = true;
    await Promise.all(this.#visitors);
    return this.outcomes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #visit(seeded: Seeded, keepsConnection: boolean): Promise<void> {
    using visitor = new Visitor(this.#options);
    const { pauseMs = 20, isSafe = false } = this.#options;
    while (!this.#isStopped) {
      const outcome = await askSomething(visitor, seeded, isSafe);
      this.outcomes.push(outcome);
      this.#options.onOutcome?.(outcome);
      if (!keepsConnection) visitor[Symbol.dispose]();
      // Who is turned away does not hammer.
      await Bun.sleep(outcome.kind === "right" ? seeded.between(0, pauseMs) : 50);
    }
  }
}

function askSomething(visitor: Visitor, seeded: Seeded, isSafe: boolean): Promise<Outcome> {
  const length = seeded.pick([0, 1, 100, 3_000, 20_000, 100_000]);
  const kind = seeded.pick(["bytes", "chunks", isSafe ? "bytes" : "echo"] as const);
  return kind === "echo" ? visitor.post(length) : visitor.get(length, kind);
}
