/**
 * A local service whose every answer can be checked to the byte: a body is made of lines that say which request it
 * belongs to and where they stand, so a swapped, cut or repeated piece shows.
 *
 *   GET /bytes/ID/LENGTH      with Content-Length
 *   GET /chunks/ID/LENGTH     chunked, in pieces
 *   GET /slow/ID/MS           chunked, a line now and the rest after so long
 *   POST /echo/ID             the body back, chunked
 *   Upgrade: echo             101, then every byte back
 */

import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";

const lineBytes = 64;
const pieceBytes = 8 * 1024;

/** The body that belongs to a request: `length` characters, all ASCII. */
export function bodyOf(id: string, length: number): string {
  const lines: string[] = [];
  for (let at = 0; at < length; at += lineBytes) lines.push(`${id} at ${at} `.padEnd(lineBytes - 1, ".") + "\n");
  return lines.join("").slice(0, length);
}

/** What GET /slow answers. */
export const slowBodyBytes = 4 * lineBytes;

export class CheckedOrigin implements AsyncDisposable {
  readonly #server: http.Server;
  readonly #upgraded = new Set<Duplex>();
  /** Answers of GET /slow that have begun and not ended. */
  slowRunning = 0;

  static async listen(): Promise<CheckedOrigin> {
    const origin = new CheckedOrigin();
    await new Promise<void>((resolve) => origin.#server.listen(0, "127.0.0.1", 1_024, resolve));
    return origin;
  }

  private constructor() {
    this.#server = http.createServer((request, response) => this.#answer(request, response));
    this.#server.keepAliveTimeout = 60_000; // stale connections have tests of their own
    this.#server.on("upgrade", (_request, socket: Duplex) => {
      this.#upgraded.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => this.#upgraded.delete(socket));
      socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
      socket.pipe(socket);
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port; // it listens on TCP
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#upgraded) socket.destroy();
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const [, kind = "", id = "", value = ""] = (request.url ?? "").split("/");
    if (kind === "") return void response.end("checked origin\n"); // the agent looks whether something listens
    response.on("error", () => {});
    request.on("error", () => {});
    if (kind === "echo") return void request.pipe(response);
    if (kind === "slow") {
      const body = bodyOf(id, slowBodyBytes);
      response.write(body.slice(0, lineBytes));
      this.slowRunning++;
      const timer = setTimeout(() => response.end(body.slice(lineBytes)), Number(value));
      response.on("close", () => {
        clearTimeout(timer);
        this.slowRunning--;
      });
      return;
    }
    const body = bodyOf(id, Number(value));
    if (kind === "bytes") {
      response.setHeader("content-length", body.length);
      return void response.end(body);
    }
    const send = (at: number): void => {
      if (response.destroyed) return;
      if (at >= body.length) return void response.end();
      response.write(body.slice(at, at + pieceBytes));
      setImmediate(send, at + pieceBytes);
    };
    send(0);
  }
}
