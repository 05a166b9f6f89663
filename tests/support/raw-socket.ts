/**
 * A TCP connection of a test, bytes as they are: what comes in is kept until the test reads it, and a clean end is told
 * from a reset. Text is latin1, one character a byte. Nothing here knows HTTP beyond where a head ends.
 */

import net from "node:net";

const deadlineMs = 20_000;

export class RawSocket implements Disposable {
  /** Bytes that came in so far, read or not. */
  receivedBytes = 0;
  /** The peer ended its direction cleanly. */
  hasEnded = false;
  /** The connection was reset. */
  wasReset = false;
  isClosed = false;
  readonly #socket: net.Socket;
  readonly #waiters = new Set<() => void>();
  #unread = "";
  #keepsBytes = true;

  /** Opens a connection to a port on loopback. */
  static async connect(port: number, host = "127.0.0.1"): Promise<RawSocket> {
    const socket = net.connect({ port, host, allowHalfOpen: true, noDelay: true });
    const raw = new RawSocket(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", () => resolve());
      socket.once("error", reject);
    });
    return raw;
  }

  /** A port of loopback on which nothing listens. */
  static async freePort(): Promise<number> {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo; // it listens on TCP
    await new Promise<void>((resolve) => server.close(() => resolve()));
    return port;
  }

  constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.receivedBytes += chunk.length;
      if (this.#keepsBytes) this.#unread += chunk.toString("latin1");
      this.#wake();
    });
    socket.on("end", () => {
      this.hasEnded ||= !this.wasReset;
      this.#wake();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.wasReset ||= error.code === "ECONNRESET" || error.code === "EPIPE";
      this.#wake();
    });
    socket.on("close", () => {
      this.isClosed = true;
      this.#wake();
    });
  }

  /** What came in and was not read. */
  get unread(): string {
    return this.#unread;
  }

  /** Bytes that were written and are not with the kernel yet. */
  get queuedBytes(): number {
    return this.#socket.writableLength;
  }

  /** False once the peer takes no more for now. */
  write(bytes: string | Uint8Array): boolean {
    return this.#socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  }

  /** Ends our direction; the other stays open. */
  end(bytes = ""): void {
    if (bytes !== "") this.write(bytes);
    this.#socket.end();
  }

  /** Breaks off, as a crash does: the peer sees a reset. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }

  /** Closes both directions, as a program does that goes away. */
  close(): void {
    this.#socket.destroy();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** From now on what comes in is counted and dropped. */
  discard(): void {
    this.#keepsBytes = false;
    this.#unread = "";
  }

  /** Exactly so many bytes. */
  async read(byteCount: number): Promise<string> {
    await this.#untilRead(() => this.#unread.length >= byteCount, `${byteCount} bytes`);
    return this.#take(byteCount);
  }

  /** Everything up to and with `marker`. */
  async readUntil(marker: string): Promise<string> {
    await this.#untilRead(() => this.#unread.includes(marker), JSON.stringify(marker));
    return this.#take(this.#unread.indexOf(marker) + marker.length);
  }

  /** The next head, with its empty line. */
  readHead(): Promise<string> {
    return this.readUntil("\r\n\r\n");
  }

  /** Whatever has come, at least one byte. */
  async readSome(): Promise<string> {
    await this.#untilRead(() => this.#unread !== "", "a byte");
    return this.#take(this.#unread.length);
  }

  /** The rest, up to a clean end. */
  async readToEnd(): Promise<string> {
    await this.until(() => this.hasEnded, "a clean end");
    return this.#take(this.#unread.length);
  }

  /** How the peer leaves: the rest of what it sent, and whether it ended or broke off. */
  async readToClose(): Promise<{ readonly rest: string; readonly wasReset: boolean }> {
    await this.until(() => this.hasEnded || this.wasReset || this.isClosed, "an end");
    return { rest: this.#take(this.#unread.length), wasReset: this.wasReset };
  }

  /** Waits for a state of this socket; looked at whenever something happens to it. */
  until(test: () => boolean, what: string): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(look);
      };
      const look = (): void => {
        if (test()) resolve(settle());
        else if (this.isClosed) fail("the connection is closed");
      };
      const fail = (why: string): void => {
        settle();
        reject(new Error(`no ${what}: ${why}; unread: ${JSON.stringify(this.#unread.slice(0, 2_000))}`));
      };
      const timer = setTimeout(() => fail(`waited ${deadlineMs} ms`), deadlineMs);
      this.#waiters.add(look);
      look();
    });
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  /** As `until`, and gives up as soon as nothing more can come. */
  async #untilRead(test: () => boolean, what: string): Promise<void> {
    await this.until(() => test() || this.hasEnded, what);
    if (!test())
      throw new Error(`no ${what}: the peer has ended; unread: ${JSON.stringify(this.#unread.slice(0, 2_000))}`);
  }

  #take(byteCount: number): string {
    const taken = this.#unread.slice(0, byteCount);
    this.#unread = this.#unread.slice(byteCount);
    return taken;
  }

  #wake(): void {
    for (const look of this.#waiters) look();
  }
}
