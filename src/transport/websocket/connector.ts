/**
 * The agent's end: dials a node over WebSocket. It hides the HTTP upgrade, proxies, and that every lane is a TLS
 * connection of its own; names are resolved anew for each.
 */

import { randomMasks, type Masks } from "./frames.ts";
import {
  acceptFor,
  checkReply,
  createKey,
  labelOfUrl,
  type LaneRequest,
  linkPath,
  portOf,
  randomHex,
  upgradeRequest,
} from "./handshake.ts";
import { WebsocketSession } from "./session.ts";
import type { WebsocketDuplex } from "./websocket-duplex.ts";
import { utf8Encode } from "../../core/bytes.ts";
import { systemClock, type Clock } from "../../core/clock.ts";
import type { Duplex } from "../../core/duplex.ts";
import { SallyError, toSallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import { ReplyParser, type ParsedReply } from "../../http/http1/head-parser.ts";
import type { Connector, Session } from "../../ports/session.ts";
import { connectThroughProxy } from "../../sockets/connect-through-proxy.ts";
import { connectSocket, type ConnectedSocket } from "../../sockets/connect.ts";
import type { TlsClientOptions } from "../../sockets/tls-options.ts";

export interface WebsocketConnectOptions {
  /** `wss://host:port` or `ws://host:port`; a path replaces the default `/_sally/link`. */
  readonly url: string;
  /** The Host field, which both sides sign. Default: the URL's. */
  readonly host?: string;
  /** For `wss:`. A function is asked for each lane, so a renewed certificate counts. Default: the system's roots. */
  readonly tls?: TlsClientOptions | (() => TlsClientOptions);
  /** HTTP CONNECT proxy. */
  readonly proxyUrl?: string;
  /** The TLS peer is a proxy and not the node: its certificate and exporter mean nothing to the link. */
  readonly isProxied?: boolean;
  /**
   * False where the TLS certificate is one for the host name and not the one that the node links with: it is verified
   * by `tls` alone. The TLS connection may still end at the node, so its exporter is offered. Default true.
   */
  readonly isNodeCertificate?: boolean;
  readonly clock?: Clock;
  /** For each lane. Default limits.connectMs. */
  readonly connectMs?: number;
}

/** @throws SallyError USAGE for a URL that is none */
export function createWebsocketConnector(options: WebsocketConnectOptions): Connector {
  const dialler = new LaneDialler(options);
  return { connect: (signal) => dialler.connect(signal) };
}

class LaneDialler {
  readonly #options: WebsocketConnectOptions;
  readonly #url: URL;
  readonly #host: string;
  readonly #label: string;
  readonly #clock: Clock;
  readonly #masks: Masks = randomMasks();

  constructor(options: WebsocketConnectOptions) {
    const url = URL.parse(options.url);
    if (url === null || (url.protocol !== "wss:" && url.protocol !== "ws:")) {
      throw new SallyError("USAGE", "the WebSocket address must start with wss:// or ws://");
    }
    this.#options = options;
    this.#url = url;
    this.#host = (options.host ?? url.host).toLowerCase();
    this.#label = labelOfUrl(url);
    this.#clock = options.clock ?? systemClock;
  }

  async connect(signal: AbortSignal): Promise<Session> {
    const id = randomHex(16);
    let laneCount = 1;
    const { isProxied = false, isNodeCertificate = true } = this.#options;
    return this.#open({ session: id, lane: 0 }, signal, (socket, earlyBytes) => {
      const session: WebsocketSession = new WebsocketSession({
        remote: socket.remote,
        host: this.#host,
        peerCertificate: isProxied || !isNodeCertificate ? undefined : socket.tls?.peerCertificate,
        exporter: isProxied ? undefined : socket.tls?.exporter,
        isProxied,
        dialLane: (laneSignal) =>
          this.#open({ session: id, lane: laneCount++ }, laneSignal, (laneSocket, laneBytes) =>
            this.#addTo(session, laneSocket, laneBytes),
          ),
      });
      session.keepFirst(this.#addTo(session, socket, earlyBytes));
      return session;
    });
  }

  #addTo(session: WebsocketSession, socket: ConnectedSocket, earlyBytes: Uint8Array): WebsocketDuplex {
    return session.addLane(socket.duplex, { masks: this.#masks, clock: this.#clock, earlyBytes });
  }

  /** `make` runs in the same turn as the answer's arrival, so that nothing comes while the connection has no owner. */
  async #open<T>(
    wanted: LaneRequest,
    signal: AbortSignal,
    make: (socket: ConnectedSocket, earlyBytes: Uint8Array) => T,
  ): Promise<T> {
    const { connectMs = limits.connectMs } = this.#options;
    const startedMs = this.#clock.nowMs();
    const socket = await this.#dial(connectMs, signal);
    const key = createKey();
    const accept = acceptFor(key);
    const path = this.#url.pathname === "/" ? linkPath : this.#url.pathname;
    const leftMs = Math.max(1, connectMs - (this.#clock.nowMs() - startedMs));
    return this.#ask(socket.duplex, upgradeRequest({ ...wanted, path, host: this.#host, key }), {
      leftMs,
      signal,
      onReply: (reply, rest) => {
        checkReply(reply, accept, this.#label);
        return make(socket, rest);
      },
    });
  }

  #dial(timeoutMs: number, signal: AbortSignal): Promise<ConnectedSocket> {
    const { tls, proxyUrl } = this.#options;
    const host = this.#url.hostname.replace(/^\[|\]$/g, "");
    const target = { host, port: portOf(this.#url) };
    const given = typeof tls === "function" ? tls() : (tls ?? { serverName: host });
    const secure = this.#url.protocol === "wss:" ? { tls: { alpn: ["http/1.1"], ...given } } : {};
    const options = { ...secure, signal, timeoutMs, clock: this.#clock };
    if (proxyUrl !== undefined) return connectThroughProxy(proxyUrl, target, options);
    return connectSocket({ kind: "tcp", ...target }, options);
  }

  /** Sends the request and collects the head of the answer; what follows it belongs to the lane. */
  #ask<T>(duplex: Duplex, request: string, { leftMs, signal, onReply }: AskOptions<T>): Promise<T> {
    const parser = new ReplyParser(limits);
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        timer.cancel();
        signal.removeEventListener("abort", onAbort);
      };
      const fail = (error: SallyError): void => {
        settle();
        duplex.reset(error);
        reject(error);
      };
      const onAbort = (): void => fail(toSallyError(signal.reason, "CANCELLED"));
      const timer = this.#clock.after(leftMs, () =>
        fail(new SallyError("CONNECT_TIMEOUT", `${this.#label} did not answer the WebSocket request in time`)),
      );
      if (signal.aborted) return onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      duplex.handler = {
        onData: (chunk) => {
          try {
            const reply = parser.push(chunk, 0);
            duplex.consume(reply === undefined ? chunk.length : parser.end);
            if (reply === undefined) return;
            resolve(onReply(reply, chunk.subarray(parser.end)));
            settle();
          } catch (error) {
            fail(this.#badReply(error));
          }
        },
        onEnd: () => fail(this.#hungUp(undefined)),
        onDrain() {},
        onClose: (error) => fail(this.#hungUp(error)),
      };
      duplex.write(utf8Encode(request));
    });
  }

  #badReply(cause: unknown): SallyError {
    const error = toSallyError(cause);
    if (error.code !== "ORIGIN_BAD_REPLY") return error;
    return new SallyError("CONNECT_FAILED", `${this.#label} does not speak HTTP`, { cause });
  }

  #hungUp(cause: SallyError | undefined): SallyError {
    return new SallyError("CONNECT_FAILED", `${this.#label} closed the connection instead of answering`, { cause });
  }
}

interface AskOptions<T> {
  readonly leftMs: number;
  readonly signal: AbortSignal;
  /** Takes the connection over, and the bytes behind the head; throws when the answer is no. */
  readonly onReply: (reply: ParsedReply, rest: Uint8Array) => T;
}
