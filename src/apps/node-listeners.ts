/**
 * The sockets of a node: the public HTTP(S) listeners, the tunnel port (TLS on TCP, QUIC on UDP, one number) and the
 * admin port. Whatever comes in as a link leaves here as a `Session`.
 */

import type { NodeConfig } from "../config/node-config.ts";
import type { Address } from "../core/address.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { hostOf } from "../edge/stages/resolve-tunnel.ts";
import { errorReply } from "../http/error-page.ts";
import type { Handler } from "../http/exchange.ts";
import { type Http1Listener, listenHttp1 } from "../listeners/http1.ts";
import type { AccessRecord, Http1Options, LinkRequest } from "../listeners/http1-options.ts";
import type { Session } from "../ports/session.ts";
import { resolveHost } from "../sockets/resolve-host.ts";
import { listenQuic, type QuicListener } from "../transport/quic/listener.ts";
import { WebsocketLinkAcceptor } from "../transport/websocket/acceptor.ts";
import { type CertificatePair, CertificateWatch, readCertificate } from "./public-certificate.ts";

export interface NodeListeners {
  readonly http: Http1Listener;
  readonly https: Http1Listener | undefined;
  readonly tunnel: Http1Listener;
  readonly admin: Http1Listener;
  /** Undefined where the runtime has no QUIC. */
  readonly quic: QuicListener | undefined;
  /** Ends visitors' connections with their current replies. */
  drainVisitors(graceMs: number): Promise<void>;
  close(): Promise<void>;
}

export interface ListenerOptions {
  readonly config: NodeConfig;
  readonly publicHandler: Handler;
  readonly enrolHandler: Handler;
  readonly adminHandler: Handler;
  readonly tls: { readonly keyPem: string; readonly certPem: string; readonly caPem: string };
  readonly onSession: (session: Session) => void;
  readonly onAccess: ((record: AccessRecord) => void) | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
}

/** @throws SallyError ADDRESS_IN_USE, USAGE, CERTIFICATE_INVALID */
export async function openListeners(options: ListenerOptions): Promise<NodeListeners> {
  const { config, clock, log, limits, onSession, onAccess } = options;
  const sessionsMax = limits.links + 2 * limits.pendingHandshakes; // of agents and of strangers
  const acceptor = new WebsocketLinkAcceptor({ onSession, trustsTlsProxy: config.trustTlsProxy, clock, sessionsMax });
  const base = { errorPage: errorReply, clock, log, limits };
  const opened: { close(): Promise<void> }[] = [];
  const open = async <T extends { close(): Promise<void> }>(listener: Promise<T>): Promise<T> => {
    const listening = await listener;
    opened.push(listening);
    return listening;
  };
  const closeAll = async (): Promise<void> => {
    await acceptor.close(new SallyError("DRAINING")); // a listener resets what is still open, and the reason with it
    await Promise.allSettled(opened.map((listener) => listener.close()));
  };
  const publicOptions: Http1Options = {
    ...base,
    handler: options.publicHandler,
    onLinkRequest: (request) => acceptPublicLink(acceptor, request, config.domain),
    ...(onAccess === undefined ? {} : { accessLog: onAccess }),
  };
  try {
    const http = await open(listenHttp1({ ...publicOptions, ...config.http }));
    const https = await openHttps(publicOptions, config, open);
    const { tunnel, quic } = await openTunnelPort(options, acceptor, open);
    const admin = await open(listenHttp1({ ...base, ...config.admin, handler: options.adminHandler }));
    const visitors = https === undefined ? [http] : [http, https];
    return {
      http,
      https,
      tunnel,
      admin,
      quic,
      drainVisitors: async (graceMs) => void (await Promise.all(visitors.map((listener) => listener.drain(graceMs)))),
      close: closeAll,
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

type Open = <T extends { close(): Promise<void> }>(listener: Promise<T>) => Promise<T>;

async function openHttps(base: Http1Options, config: NodeConfig, open: Open): Promise<Http1Listener | undefined> {
  const { https, tls } = config;
  if (https === undefined) return undefined;
  if (tls === undefined) {
    throw new SallyError(
      "USAGE",
      "--https needs a certificate: set tls.certFile and tls.keyFile in the configuration file",
    );
  }
  const current = await readCertificate(tls);
  const { clock, log, limits } = base;
  try {
    const listener = await open(listenHttp1({ ...base, ...https, tls: current }));
    const use = (pair: CertificatePair): void => listener.replaceTls(pair);
    const everyMs = limits.certificateRereadMs;
    await open(CertificateWatch.start({ files: tls, current, everyMs, use, clock, log }));
    return listener;
  } catch (cause) {
    if (!(cause instanceof SallyError) || cause.code !== "CERTIFICATE_INVALID") throw cause;
    const files = `${tls.certFile} and ${tls.keyFile}`;
    throw new SallyError("USAGE", `${files} are no certificate with its key in PEM form: check both`, { cause });
  }
}

/** On the public ports nobody is asked for a certificate: the link's handshake alone proves who the agent is. */
function acceptPublicLink(acceptor: WebsocketLinkAcceptor, request: LinkRequest, domain: string): boolean {
  if (hostOf(request.head.authority) !== hostOf(domain)) return false;
  const { duplex, head, meta, earlyBytes } = request;
  acceptor.accept({ duplex, head, remote: meta.remote, earlyBytes, tls: meta.tls });
  return true;
}

async function openTunnelPort(
  options: ListenerOptions,
  acceptor: WebsocketLinkAcceptor,
  open: Open,
): Promise<{ tunnel: Http1Listener; quic: QuicListener | undefined }> {
  const { config, tls, clock, log, limits, onSession } = options;
  const host = await ownAddress(config.tunnel.host);
  const listenTls = (port: number): Promise<Http1Listener> =>
    listenHttp1({
      host,
      port,
      errorPage: errorReply,
      clock,
      log,
      limits,
      handler: options.enrolHandler,
      tls: { ...tls, requestCert: true },
      onLinkRequest({ duplex, head, meta, earlyBytes }) {
        acceptor.accept({ duplex, head, remote: meta.remote, earlyBytes, tls: meta.tls });
        return true;
      },
    });
  for (let tries = 1; ; tries++) {
    const tunnel = await listenTls(config.tunnel.port);
    try {
      const quic = await listenQuic({ host, port: tunnel.address.port, tls, onSession, log, clock });
      return { tunnel: await open(Promise.resolve(tunnel)), quic: await open(Promise.resolve(quic)) };
    } catch (error) {
      if (!(error instanceof SallyError)) throw error;
      if (error.code === "CONNECT_FAILED") {
        log.warn("this runtime has no QUIC: agents link over WebSocket", { error: error.message });
        return { tunnel: await open(Promise.resolve(tunnel)), quic: undefined };
      }
      await tunnel.close();
      if (error.code !== "ADDRESS_IN_USE" || config.tunnel.port !== 0 || tries >= limits.portTries) throw error;
    }
  }
}

/** One address for TCP and UDP, whatever the name stands for. */
async function ownAddress(host: string): Promise<string> {
  try {
    return (await resolveHost(host))[0] ?? host;
  } catch {
    return host; // listening there says what is wrong
  }
}

/** The loopback or bound address under which this machine reaches a listener of its own. */
export function localAddressOf({ host, port }: Address): Address {
  if (host === "0.0.0.0") return { host: "127.0.0.1", port };
  return host === "::" ? { host: "::1", port } : { host, port };
}
