/** One attempt at one address: Bun's connect and TLS events as a promise that can be cancelled. */

import { formatAddress, type Address } from "../core/address.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError, type ErrorCode } from "../core/errors.ts";
import { readExporter, readPeerCertificate, tuneSocket, type BunSocket } from "./bun-socket.ts";
import { SocketDuplex } from "./socket-duplex.ts";
import { clientTlsOptions, type TlsClientOptions } from "./tls-options.ts";

export interface ConnectedTls {
  /** DER of the server's leaf; verified unless `rejectUnauthorized` was false. */
  readonly peerCertificate: Uint8Array | undefined;
  readonly exporter: Uint8Array;
  readonly alpn: string | undefined;
}

export interface ConnectedSocket {
  readonly duplex: Duplex;
  /** The address that answered. For a unix socket the path, and port 0. */
  readonly remote: Address;
  readonly tls: ConnectedTls | undefined;
}

export interface OpenOptions {
  readonly tls: TlsClientOptions | undefined;
  readonly closeCode: ErrorCode;
  readonly signal: AbortSignal;
}

/** Connects to an address, or to a unix socket's path. */
export function openRaw(where: Address | string, options: OpenOptions): Promise<ConnectedSocket> {
  const { tls, closeCode, signal } = options;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const attempt = new Attempt(where, { tls, closeCode, signal, resolve, reject });
    const target = typeof where === "string" ? { unix: where } : { hostname: where.host, port: where.port };
    const options = {
      ...target,
      allowHalfOpen: true,
      data: attempt.duplex,
      socket: attempt.events(),
      ...(tls === undefined ? {} : { tls: clientTlsOptions(tls) }),
    };
    // Bun's types know neither the shared handler table nor both kinds of target at once.
    Bun.connect(options as never).catch((error: unknown) => attempt.fail(connectError(error, attempt.label)));
  });
}

interface AttemptOptions extends OpenOptions {
  resolve(socket: ConnectedSocket): void;
  reject(error: unknown): void;
}

/** Also used by the proxy client, which starts TLS on a socket that is already open. */
export class Attempt {
  readonly duplex: SocketDuplex;
  readonly label: string;
  readonly #where: Address | string;
  readonly #options: AttemptOptions;
  readonly #onAbort = (): void => this.fail(this.#options.signal.reason);
  #socket: BunSocket | undefined;
  #isSettled = false;

  constructor(where: Address | string, options: AttemptOptions) {
    this.#where = where;
    this.label = typeof where === "string" ? where : formatAddress(where);
    this.#options = options;
    const carrier = options.tls !== undefined ? "tls" : typeof where === "string" ? "unix" : "tcp";
    this.duplex = new SocketDuplex(undefined, options.closeCode, carrier);
    options.signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  events(): Record<string, unknown> {
    return {
      ...SocketDuplex.events,
      open: (socket: BunSocket) => {
        this.adopt(socket);
        if (isOwnEnd(socket)) return this.fail(connectError(nobodyListens, this.label));
        if (this.#options.tls === undefined) this.#succeed(socket, undefined);
      },
      handshake: (socket: BunSocket, isOk: boolean, error: Error | null) => this.#onHandshake(socket, isOk, error),
      close: (socket: BunSocket, error?: Error) => {
        if (this.#isSettled) return SocketDuplex.events.close(socket, error);
        const doing = this.#options.tls === undefined ? "before it was usable" : "during the TLS handshake";
        const why = error === undefined ? "" : `: ${error.message}`;
        this.fail(
          new SallyError("CONNECT_FAILED", `${this.label} closed the connection ${doing}${why}`, { cause: error }),
        );
      },
      error: (socket: BunSocket, error: Error) => {
        if (this.#isSettled) return SocketDuplex.events.error(socket, error);
        this.fail(new SallyError("CONNECT_FAILED", `${this.label}: TLS failed: ${error.message}`, { cause: error }));
      },
      connectError: (_socket: BunSocket, error: Error) => this.fail(connectError(error, this.label)),
    };
  }

  /** Takes the socket that has opened; one that comes after the attempt was given up is dropped. */
  adopt(socket: BunSocket): void {
    this.#socket = socket;
    if (this.#isSettled) socket.terminate();
    else if (typeof this.#where !== "string") tuneSocket(socket);
  }

  fail(error: unknown): void {
    if (!this.#settle()) return;
    this.#socket?.terminate();
    this.#options.reject(error);
  }

  #onHandshake(socket: BunSocket, isOk: boolean, error: Error | null): void {
    const { tls } = this.#options;
    if (this.#isSettled || tls === undefined) return;
    const isAccepted =
      tls.rejectUnauthorized === false
        ? isOk || isOnlyUnverified(socket, error)
        : isOk && error === null && socket.authorized;
    if (isAccepted) {
      return this.#succeed(socket, {
        peerCertificate: readPeerCertificate(socket),
        exporter: readExporter(socket),
        alpn: socket.alpnProtocol || undefined,
      });
    }
    const why = error?.message ?? "the handshake failed";
    if (isNoHandshake(error)) {
      // The library's own text is all that tells the reason.
      const text = why.includes("WRONG_VERSION_NUMBER")
        ? `${this.label} does not speak TLS${tls.plainAdvice === undefined ? "" : `: ${tls.plainAdvice}`}`
        : `the TLS handshake with ${this.label} failed: ${why}`;
      return this.fail(new SallyError(tls.failureCode ?? "CONNECT_FAILED", text, { cause: error }));
    }
    const code = tls.failureCode ?? "CA_MISMATCH";
    const advice = code === "CA_MISMATCH" ? "; a node that was set up anew needs a new token: log in again" : "";
    const text = `the TLS certificate of ${this.label} (${tls.serverName}) was not accepted: ${why}${advice}`;
    this.fail(new SallyError(code, text, { cause: error }));
  }

  #succeed(socket: BunSocket, tls: ConnectedSocket["tls"]): void {
    if (!this.#settle()) return;
    SocketDuplex.events.open(socket);
    const remote = typeof this.#where === "string" ? { host: this.#where, port: 0 } : this.#where;
    this.#options.resolve({ duplex: this.duplex, remote, tls });
  }

  #settle(): boolean {
    if (this.#isSettled) return false;
    this.#isSettled = true;
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    return true;
  }
}

const nobodyListens = Object.assign(new Error("the socket was connected to itself"), { code: "ECONNREFUSED" });

/**
 * Where nobody listens on a port of this machine that the system hands out, it may hand out that very port, and connect
 * the socket to itself.
 */
function isOwnEnd(socket: BunSocket): boolean {
  return (
    socket.localPort !== undefined &&
    socket.localPort > 0 &&
    socket.localPort === socket.remotePort &&
    socket.localAddress === socket.remoteAddress
  );
}

/** Bun reports a wrong name as a failed handshake also where nothing is to be verified; the session works. */
function isOnlyUnverified(socket: BunSocket, error: Error | null): boolean {
  return !isNoHandshake(error) && readPeerCertificate(socket) !== undefined;
}

/** The handshake broke off, which says nothing about a certificate: the other side may not speak TLS at all. */
function isNoHandshake(error: Error | null): boolean {
  const code = (error as { readonly code?: string } | null)?.code; // Errors of the system carry one.
  return code === "EPROTO" || code === "ECONNRESET";
}

function connectError(cause: unknown, label: string): SallyError {
  if (cause instanceof SallyError) return cause;
  const { code, message } = cause as { readonly code?: string; readonly message?: string }; // Errors of the system carry both.
  const why =
    code === "ECONNREFUSED"
      ? `nothing listens on ${label}`
      : code === "ENOENT"
        ? `there is no socket ${label}`
        : `cannot connect to ${label}: ${message ?? String(cause)}`;
  return new SallyError("CONNECT_FAILED", why, { cause });
}
