/** The four things of Deno that h1spec uses, so that it runs under Bun: arguments, exit, and one plain TCP connection. */

import { connect, type Socket } from "node:net";

class Connection {
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  #hasEnded = false;
  #isClosed = false;
  #wake: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#wake();
    });
    for (const event of ["end", "close", "error"]) {
      socket.on(event, () => {
        this.#hasEnded = true;
        this.#wake();
      });
    }
  }

  /** What has arrived, as much as fits; null at the end; rejects after our own `close`, as in Deno. */
  async read(buffer: Uint8Array): Promise<number | null> {
    while (this.#chunks.length === 0) {
      if (this.#isClosed) throw new Error("the connection was closed");
      if (this.#hasEnded) return null;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = Buffer.concat(this.#chunks.splice(0));
    const taken = all.subarray(0, buffer.length);
    buffer.set(taken);
    if (all.length > taken.length) this.#chunks.push(all.subarray(taken.length));
    return taken.length;
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.#socket.write(bytes);
    return bytes.length;
  }

  close(): void {
    this.#isClosed = true;
    this.#socket.destroy();
  }
}

function open({ hostname, port }: { hostname: string; port: number }): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, hostname);
    socket.once("connect", () => {
      // In Deno an idle connection does not keep the program alive.
      socket.unref();
      resolve(new Connection(socket));
    });
    socket.once("error", reject);
  });
}

Object.assign(globalThis, {
  Deno: { args: Bun.argv.slice(2), exit: (code: number) => process.exit(code), connect: open },
});
