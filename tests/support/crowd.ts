/**
 * Thousands of visitors in one process: plain TCP connections that share one handler and keep nothing but counts, so
 * that the test does not become what is measured.
 */

import type { Socket } from "bun";
import { until } from "./until.ts";

interface Member {
  receivedBytes: number;
}

/** So many connect at a time: more would overflow the listener's backlog. */
const batchSize = 100;

export class Crowd implements Disposable {
  /** Connections that have received anything. */
  answered = 0;
  /** Connections that ended or failed. */
  ended = 0;
  receivedBytes = 0;
  /** What the first connection received first. */
  firstText = "";
  readonly #port: number;
  readonly #sockets: Socket<Member>[] = [];
  readonly #handler = {
    open: () => {},
    data: (socket: Socket<Member>, chunk: Uint8Array) => {
      if (socket.data.receivedBytes === 0) this.answered++;
      if (this.firstText === "") this.firstText = new TextDecoder("latin1").decode(chunk);
      socket.data.receivedBytes += chunk.length;
      this.receivedBytes += chunk.length;
    },
    drain: () => {},
    end: (socket: Socket<Member>) => void socket.end(),
    close: () => void this.ended++,
    error: () => {},
  };

  constructor(port: number) {
    this.#port = port;
  }

  get size(): number {
    return this.#sockets.length;
  }

  /** Opens `count` more connections, each of which sends `bytes`. */
  async join(count: number, bytes: string): Promise<void> {
    for (let opened = 0; opened < count; opened += batchSize) {
      const batch = Array.from({ length: Math.min(batchSize, count - opened) }, async () => {
        const socket = await Bun.connect<Member>({
          hostname: "127.0.0.1",
          port: this.#port,
          data: { receivedBytes: 0 },
          socket: this.#handler,
        });
        this.#sockets.push(socket);
        socket.write(bytes);
      });
      await Promise.all(batch);
    }
  }

  /** Opens `count` connections that each send `bytes`, and waits until all were answered. */
  async joinAndWait(count: number, bytes: string): Promise<void> {
    for (let opened = 0; opened < count; opened += batchSize) {
      await this.join(Math.min(batchSize, count - opened), bytes);
      await until("an answer for each", () => this.answered + this.ended >= this.size, 30_000);
    }
  }

  /** Every connection that is open sends these bytes. */
  say(bytes: string): void {
    for (const socket of this.#sockets) socket.write(bytes);
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.terminate();
  }
}
