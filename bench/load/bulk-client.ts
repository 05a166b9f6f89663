/**
 * Fetches or sends one large body over a raw socket and prints what happened as JSON. One process of its own, so that
 * hashing here does not disturb the other measurements. Content length only: that is what the origins speak.
 *
 *   bulk-client.ts down HOST PORT HOSTHEADER PATH
 *   bulk-client.ts up   HOST PORT HOSTHEADER FILE
 */

import { fstatSync, openSync, readSync } from "node:fs";

export interface BulkResult {
  readonly seconds: number;
  /** Bytes of the large body. */
  readonly bytes: number;
  /** Of what was received; when sending, what the origin says that it received. */
  readonly sha256: string;
  readonly error?: string;
}

const stallMs = 20_000;
const pieceBytes = 256 * 1024;

/** The request, piece by piece: a head, and the file behind it when there is one. */
class Outgoing {
  readonly #file: number | undefined;
  readonly #piece = Buffer.alloc(pieceBytes);
  #pending: Buffer;

  constructor(head: string, file: number | undefined) {
    this.#pending = Buffer.from(head, "latin1");
    this.#file = file;
  }

  /** Writes until the socket is full or nothing is left. */
  pump(socket: Bun.Socket): void {
    for (;;) {
      if (this.#pending.length === 0) {
        const read = this.#file === undefined ? 0 : readSync(this.#file, this.#piece);
        if (read === 0) return;
        this.#pending = this.#piece.subarray(0, read);
      }
      this.#pending = this.#pending.subarray(Math.max(socket.write(this.#pending), 0));
      if (this.#pending.length > 0) return;
    }
  }
}

/** The reply: takes pieces as they come and knows when it is complete. */
class Incoming {
  readonly #hash = new Bun.CryptoHasher("sha256");
  #head = "";
  #start = "";
  #expectedBytes: number | undefined;
  receivedBytes = 0;

  /** True when the whole body is there. */
  take(chunk: Buffer): boolean {
    if (this.#expectedBytes !== undefined) return this.#takeBody(chunk);
    this.#head += chunk.toString("latin1");
    if (this.#head.startsWith("HTTP/1.1 100 ")) this.#head = this.#head.split("\r\n\r\n").slice(1).join("\r\n\r\n");
    const end = this.#head.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const head = this.#head.slice(0, end);
    const length = /^content-length:\s*(\d+)/im.exec(head)?.[1];
    if (!head.startsWith("HTTP/1.1 200 ") || length === undefined) {
      throw new Error(`the reply was: ${head.split("\r\n")[0]}, content length ${length}`);
    }
    this.#expectedBytes = Number(length);
    return this.#takeBody(Buffer.from(this.#head.slice(end + 4), "latin1"));
  }

  get sha256(): string {
    return this.#hash.digest("hex");
  }

  /** A short body as text. */
  get text(): string {
    return this.#start.trim();
  }

  #takeBody(chunk: Buffer): boolean {
    this.receivedBytes += chunk.length;
    this.#hash.update(chunk);
    if (this.receivedBytes < 1024) this.#start += chunk.toString("latin1");
    return this.receivedBytes >= (this.#expectedBytes ?? 0);
  }
}

function exchange(hostname: string, port: number, outgoing: Outgoing): Promise<Incoming> {
  const { promise, resolve, reject } = Promise.withResolvers<Incoming>();
  const incoming = new Incoming();
  const stalled = (): void =>
    reject(new Error(`nothing moved for ${stallMs} ms after ${incoming.receivedBytes} bytes`));
  let stall = setTimeout(stalled, stallMs);
  const moved = (): void => {
    clearTimeout(stall);
    stall = setTimeout(stalled, stallMs);
  };
  void Bun.connect({
    hostname,
    port,
    socket: {
      open: (socket) => outgoing.pump(socket),
      drain(socket) {
        moved();
        outgoing.pump(socket);
      },
      data(_, chunk) {
        moved();
        try {
          if (incoming.take(chunk)) resolve(incoming);
        } catch (error) {
          reject(error);
        }
      },
      close: () => reject(new Error(`the connection ended after ${incoming.receivedBytes} bytes`)),
      error: (_, error) => reject(error),
      connectError: (_, error) => reject(error),
    },
  }).catch(reject);
  return promise;
}

async function transfer([
  mode = "",
  host = "",
  port = "",
  hostHeader = "",
  subject = "",
]: string[]): Promise<BulkResult> {
  const isUpload = mode === "up";
  const file = isUpload ? openSync(subject, "r") : undefined;
  const fileBytes = file === undefined ? 0 : fstatSync(file).size;
  const line = isUpload ? "POST /upload HTTP/1.1" : `GET ${subject} HTTP/1.1`;
  const length = isUpload ? `Content-Length: ${fileBytes}\r\n` : "";
  const outgoing = new Outgoing(`${line}\r\nHost: ${hostHeader}\r\n${length}\r\n`, file);
  const startedMs = performance.now();
  const reply = await exchange(host, Number(port), outgoing);
  const seconds = (performance.now() - startedMs) / 1000;
  return isUpload
    ? { seconds, bytes: fileBytes, sha256: reply.text }
    : { seconds, bytes: reply.receivedBytes, sha256: reply.sha256 };
}

const result = await transfer(Bun.argv.slice(2)).catch((error: unknown): BulkResult => ({
  seconds: 0,
  bytes: 0,
  sha256: "",
  error: error instanceof Error ? error.message : String(error),
}));
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
