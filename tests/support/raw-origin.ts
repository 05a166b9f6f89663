/**
 * A local service of a test that speaks no protocol by itself: it records every byte, and the test writes the replies.
 */

import net from "node:net";
import type { AddressInfo } from "node:net";
import { RawSocket } from "./raw-socket.ts";

const deadlineMs = 20_000;

export class RawOrigin implements AsyncDisposable {
  readonly connections: RawSocket[] = [];
  /** Answers connections as they come; without it the test asks for them with `accept`. */
  onConnection: ((connection: RawSocket) => void) | undefined;
  readonly #server: net.Server;
  readonly #waiters = new Set<() => void>();

  /** Listens on a port of the system's choice. */
  static async listen(): Promise<RawOrigin> {
    const origin = new RawOrigin();
    await new Promise<void>((resolve) => origin.#server.listen(0, "127.0.0.1", 4_096, resolve));
    return origin;
  }

  private constructor() {
    this.#server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      const connection = new RawSocket(socket);
      this.connections.push(connection);
      socket.on("data", () => this.#wake());
      // The agent looks whether something listens: such a connection ends without a byte.
      socket.on("end", () => {
        if (connection.receivedBytes === 0) connection.end();
      });
      this.onConnection?.(connection);
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port; // it listens on TCP
  }

  /** Bytes that came in on all connections. */
  get receivedBytes(): number {
    return this.connections.reduce((sum, connection) => sum + connection.receivedBytes, 0);
  }

  /** Connections on which anything came. */
  get usedConnections(): number {
    return this.connections.filter((connection) => connection.receivedBytes > 0).length;
  }

  /** The first connection with bytes that nobody has read, kept-alive or new. */
  accept(): Promise<RawSocket> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(look);
      };
      const look = (): void => {
        const found = this.connections.find((connection) => connection.unread !== "");
        if (found === undefined) return;
        settle();
        resolve(found);
      };
      const timer = setTimeout(() => {
        settle();
        reject(new Error(`no request reached the origin within ${deadlineMs} ms`));
      }, deadlineMs);
      this.#waiters.add(look);
      look();
    });
  }

  /** Ends every connection and forgets it, so that the next test meets none of them. */
  forget(): void {
    for (const connection of this.connections.splice(0)) connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.forget();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #wake(): void {
    for (const look of this.#waiters) look();
  }
}
