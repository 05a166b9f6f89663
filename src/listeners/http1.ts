/** The public HTTP/1.1 listener: accepted sockets, plain or TLS, become visitors' connections. */

import type { Address } from "../core/address.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";
import { listenTcp } from "../sockets/listen.ts";
import type { TlsServerOptions } from "../sockets/tls-options.ts";
import type { ConnectionMeta, Http1Options } from "./http1-options.ts";
import { Http1Service } from "./http1-service.ts";

export interface Http1ListenOptions extends Http1Options {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly tls?: TlsServerOptions | undefined;
}

export interface Http1Listener {
  readonly address: Address;
  readonly connectionCount: number;
  /** The certificate for connections from now on. */
  replaceTls(tls: TlsServerOptions): void;
  /**
   * Accepts nothing more, lets each connection end with its current reply, which says `Connection: close`, and resets
   * what is left after `graceMs`, upgraded connections too. Resolves when no connection is left.
   */
  drain(graceMs: number): Promise<void>;
  /** Resets every connection. */
  close(): Promise<void>;
}

/** @throws SallyError ADDRESS_IN_USE, CERTIFICATE_INVALID */
export async function listenHttp1(options: Http1ListenOptions): Promise<Http1Listener> {
  const { host, port, tls, clock, limits } = options;
  const service = new Http1Service(options);
  const scheme = tls === undefined ? "http" : "https";
  const listener = await listenTcp({
    host,
    port,
    clock,
    limits,
    ...(tls === undefined ? {} : { tls }),
    onConnection: ({ duplex, remote, tls: proven }) => service.serve(duplex, { remote, scheme, tls: proven }),
  });
  return {
    address: listener.address,
    get connectionCount() {
      return service.connectionCount;
    },
    replaceTls: (next) => listener.replaceTls(next),
    drain(graceMs) {
      listener.stopAccepting();
      return service.drain(graceMs);
    },
    async close() {
      service.abortAll(new SallyError("DRAINING"));
      await listener.close();
    },
  };
}

/** Serves one connection over any duplex; the service it returns ends it. */
export function serveHttp1(duplex: Duplex, meta: ConnectionMeta, options: Http1Options): Http1Service {
  const service = new Http1Service(options);
  service.serve(duplex, meta);
  return service;
}
