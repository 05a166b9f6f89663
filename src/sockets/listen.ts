/**
 * Listening TCP, TLS and unix sockets that hand out `Duplex`es. It hides how TLS is started: every connection is
 * accepted plain and upgraded, so a new certificate counts from the next connection on without closing the port.
 * Rule kept: handshakes are bounded in number and in time, those that stay give way to those that come, and nobody
 * hears of a connection before its handshake is complete.
 */

import { addressGroup } from "../core/address-group.ts";
import { formatAddress, type Address } from "../core/address.ts";
import { systemClock, type Clock, type Timer } from "../core/clock.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";
import { FairSlots } from "../core/fair-slots.ts";
import { limits as defaultLimits, type Limits } from "../core/limits.ts";
import { localOf, readExporter, readPeerCertificate, remoteOf, tuneSocket, type BunSocket } from "./bun-socket.ts";
import { SocketDuplex } from "./socket-duplex.ts";
import { serverTlsOptions, type TlsServerOptions } from "./tls-options.ts";

export interface AcceptedTls {
  /** DER of the leaf; only when its chain was verified against `caPem`. */
  readonly peerCertificate: Uint8Array | undefined;
  /** True when the client showed a certificate that does not verify. */
  readonly peerCertificateRejected: boolean;
  readonly exporter: Uint8Array;
  readonly serverName: string | undefined;
  readonly alpn: string | undefined;
}

export interface AcceptedSocket {
  readonly duplex: Duplex;
  readonly remote: Address;
  readonly local: Address;
  readonly tls: AcceptedTls | undefined;
}

export interface TcpListener {
  /** With the port that was really taken. For a unix socket the path, and port 0. */
  readonly address: Address;
  /** Connections whose handshake runs. */
  readonly pendingHandshakes: number;
  /** Counts from the next connection on. @throws SallyError CERTIFICATE_INVALID, and keeps the old one */
  replaceTls(tls: TlsServerOptions): void;
  /** Closes the port; connections stay. */
  stopAccepting(): void;
  /** Closes the port and resets every connection. */
  close(): Promise<void>;
}

export interface ListenOptions {
  readonly tls?: TlsServerOptions;
  /** Called after the TLS handshake, if any. Sets the duplex's handler before it returns. */
  onConnection(socket: AcceptedSocket): void;
  readonly clock?: Clock;
  readonly limits?: Pick<Limits, "pendingHandshakes" | "handshakeMs">;
}

/** @throws SallyError ADDRESS_IN_USE, CERTIFICATE_INVALID, LISTEN_FAILED (no such address, or not allowed) */
export async function listenTcp(options: ListenOptions & { host: string; port: number }): Promise<TcpListener> {
  const { host, port } = options;
  return open(options, { hostname: host, port }, formatAddress({ host, port }));
}

/** @throws SallyError ADDRESS_IN_USE, CERTIFICATE_INVALID, LISTEN_FAILED (no such folder) */
export async function listenUnix(options: ListenOptions & { path: string }): Promise<TcpListener> {
  return open(options, { unix: options.path }, options.path);
}

interface RunningHandshake {
  readonly socket: BunSocket;
  readonly timer: Timer;
  readonly leave: () => void;
}

type Where = { readonly hostname: string; readonly port: number } | { readonly unix: string };

function open(options: ListenOptions, where: Where, label: string): TcpListener {
  const listener = new SocketListener(options);
  try {
    listener.open(where);
  } catch (cause) {
    throw listenError(cause, label);
  }
  return listener;
}

class SocketListener implements TcpListener {
  address: Address = { host: "", port: 0 };
  readonly #options: ListenOptions;
  readonly #clock: Clock;
  readonly #limits: Pick<Limits, "pendingHandshakes" | "handshakeMs">;
  readonly #handshakes = new Map<SocketDuplex, RunningHandshake>();
  readonly #slots: FairSlots;
  /** Bun's `stop(true)` would end these with a FIN, which looks clean. */
  readonly #connections = new Set<SocketDuplex>();
  readonly #plainEvents: Record<string, unknown>;
  readonly #tlsEvents: Record<string, unknown>;
  #tls: Record<string, unknown> | undefined;
  #server: { stop(closeActive?: boolean): void } | undefined;

  constructor(options: ListenOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#limits = options.limits ?? defaultLimits;
    this.#slots = new FairSlots(this.#limits.pendingHandshakes, "oldest");
    this.#tls = options.tls === undefined ? undefined : serverTlsOptions(options.tls);
    const close = (socket: BunSocket, error?: Error): void => {
      this.#connections.delete(socket.data);
      SocketDuplex.events.close(socket, error);
    };
    this.#plainEvents = { ...SocketDuplex.events, open: (socket: BunSocket) => this.#onPlain(socket), close };
    this.#tlsEvents = {
      ...SocketDuplex.events,
      open: () => {},
      handshake: (socket: BunSocket, isOk: boolean, error: Error | null) => this.#onHandshake(socket, isOk, error),
      close: (socket: BunSocket, error?: Error) => {
        this.#forget(socket.data);
        close(socket, error);
      },
      error: (socket: BunSocket, error: Error) => {
        this.#forget(socket.data);
        SocketDuplex.events.error(socket, error);
      },
    };
  }

  get pendingHandshakes(): number {
    return this.#handshakes.size;
  }

  open(where: Where): void {
    const socket =
      this.#tls === undefined
        ? this.#plainEvents
        : // No `data`: with it Bun would copy the ciphertext of every record to us.
          { open: (socket: BunSocket) => this.#startTls(socket), drain() {}, close() {}, error() {} };
    // Bun's types know neither a table shared by TCP and unix sockets nor `exclusive` on both.
    const server = Bun.listen({ ...where, allowHalfOpen: true, exclusive: true, socket } as never) as unknown as {
      readonly port?: number;
      readonly hostname?: string;
      stop(closeActive?: boolean): void;
    };
    this.#server = server;
    this.address =
      "unix" in where ? { host: where.unix, port: 0 } : { host: where.hostname, port: server.port ?? where.port };
  }

  replaceTls(tls: TlsServerOptions): void {
    if (this.#tls === undefined) throw new SallyError("USAGE", "this listener was opened without TLS");
    this.#tls = serverTlsOptions(tls);
  }

  stopAccepting(): void {
    this.#server?.stop(false);
  }

  async close(): Promise<void> {
    for (const duplex of this.#handshakes.keys()) this.#breakOff(duplex);
    this.#server?.stop(false);
    const reason = new Error("the listener was closed");
    for (const duplex of this.#connections) duplex.abort(reason);
    this.#connections.clear();
  }

  #onPlain(socket: BunSocket): void {
    tuneSocket(socket);
    const duplex = new SocketDuplex(socket);
    socket.data = duplex;
    this.#connections.add(duplex);
    this.#options.onConnection({ duplex, remote: remoteOf(socket), local: localOf(socket), tls: undefined });
  }

  #startTls(raw: BunSocket): void {
    tuneSocket(raw);
    const duplex = new SocketDuplex(undefined);
    const leave = this.#slots.take(addressGroup(remoteOf(raw).host), () => this.#breakOff(duplex));
    const [, socket] = raw.upgradeTLS({
      isServer: true,
      allowHalfOpen: true,
      data: duplex,
      tls: this.#tls,
      socket: this.#tlsEvents,
    });
    const timer = this.#clock.after(this.#limits.handshakeMs, () => this.#breakOff(duplex));
    this.#handshakes.set(duplex, { socket, timer, leave });
  }

  #breakOff(duplex: SocketDuplex): void {
    const socket = this.#handshakes.get(duplex)?.socket;
    this.#forget(duplex);
    socket?.terminate();
  }

  #forget(duplex: SocketDuplex): void {
    const running = this.#handshakes.get(duplex);
    if (running === undefined) return;
    this.#handshakes.delete(duplex);
    running.timer.cancel();
    running.leave();
  }

  #onHandshake(socket: BunSocket, isOk: boolean, error: Error | null): void {
    if (!this.#handshakes.has(socket.data)) return; // Timed out, or Bun's second report of a failure.
    this.#forget(socket.data);
    if (!isOk) return socket.terminate();
    const certificate = readPeerCertificate(socket);
    const isVerified = socket.authorized && error === null;
    SocketDuplex.events.open(socket);
    this.#connections.add(socket.data);
    this.#options.onConnection({
      duplex: socket.data,
      remote: remoteOf(socket),
      local: localOf(socket),
      tls: {
        peerCertificate: isVerified ? certificate : undefined,
        peerCertificateRejected: !isVerified && certificate !== undefined,
        exporter: readExporter(socket),
        serverName: socket.getServername() || undefined,
        alpn: socket.alpnProtocol || undefined,
      },
    });
  }
}

const listenReasons: Readonly<Record<string, string>> = {
  EACCES: "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE, or choose a higher port",
  ENOENT: "there is no such folder",
  EADDRNOTAVAIL: "this machine has no such address",
  ENOTFOUND: "the name is not known", // Bun gives no code for it
};

function listenError(cause: unknown, label: string): SallyError {
  if (cause instanceof SallyError) return cause;
  const code = (cause as { readonly code?: string }).code; // Errors of the system carry one.
  if (code === "EADDRINUSE") {
    return new SallyError(
      "ADDRESS_IN_USE",
      `another program listens on ${label}: stop it or choose another port (0 picks a free one)`,
      { cause },
    );
  }
  return new SallyError(
    "LISTEN_FAILED",
    `cannot listen on ${label}: ${listenReasons[code ?? "ENOTFOUND"] ?? String(cause)}`,
    {
      cause,
    },
  );
}
