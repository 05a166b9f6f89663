/**
 * A connection through an HTTP proxy's CONNECT (RFC 9110 §9.3.6), with basic authentication from the proxy's URL, and
 * TLS to the target inside it. Proxies that are reached over TLS themselves are refused: Bun cannot nest TLS.
 */

import { concatBytes, emptyBytes } from "../core/bytes.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { BunSocket } from "./bun-socket.ts";
import { connectSocket, labelOf, withDeadline, type ConnectedSocket, type ConnectOptions } from "./connect.ts";
import { Attempt } from "./open-raw.ts";
import { SocketDuplex } from "./socket-duplex.ts";
import { clientTlsOptions } from "./tls-options.ts";

export interface ProxyTarget {
  readonly host: string;
  readonly port: number;
}

/** @throws SallyError USAGE (the proxy's URL), CONNECT_FAILED, CONNECT_TIMEOUT, AUTH_FAILED (407), CANCELLED, `tls.failureCode` */
export async function connectThroughProxy(
  proxyUrl: string,
  target: ProxyTarget,
  options: ConnectOptions,
): Promise<ConnectedSocket> {
  const proxy = parseProxyUrl(proxyUrl);
  const label = labelOf({ kind: "tcp", ...target });
  return withDeadline(`${label} through the proxy ${proxy.host}:${proxy.port}`, options, async (signal) => {
    const { tls: _tls, ...plain } = options;
    const toProxy = await connectSocket({ kind: "tcp", host: proxy.host, port: proxy.port }, { ...plain, signal });
    await askProxy(toProxy.duplex, connectHead(label, proxy.authorization), signal);
    if (options.tls === undefined) return toProxy;
    return startTls(toProxy, { ...options, signal });
  });
}

interface Proxy {
  readonly host: string;
  readonly port: number;
  readonly authorization: string | undefined;
}

/** Never repeats the URL in an error: it may hold a password. */
function parseProxyUrl(proxyUrl: string): Proxy {
  const url = URL.parse(proxyUrl.includes("://") ? proxyUrl : `http://${proxyUrl}`);
  if (url === null || url.protocol !== "http:" || url.hostname === "") {
    throw new SallyError("USAGE", "the proxy must be given as http://[user:password@]host:port");
  }
  const credentials = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? 80 : Number(url.port),
    authorization: credentials === ":" ? undefined : `Basic ${Buffer.from(credentials).toString("base64")}`,
  };
}

function connectHead(label: string, authorization: string | undefined): Uint8Array {
  const extra = authorization === undefined ? "" : `Proxy-Authorization: ${authorization}\r\n`;
  return Buffer.from(`CONNECT ${label} HTTP/1.1\r\nHost: ${label}\r\n${extra}\r\n`, "latin1");
}

/** Sends the request and waits for the end of a 2xx head. The server side of every protocol we tunnel speaks second. */
function askProxy(duplex: Duplex, head: Uint8Array, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => {
      signal.removeEventListener("abort", onAbort);
      duplex.reset(new SallyError("CANCELLED"));
      reject(error);
    };
    const onAbort = (): void => fail(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    let seen: Uint8Array = emptyBytes;
    duplex.handler = {
      onData(chunk) {
        duplex.consume(chunk.length);
        seen = concatBytes([seen, chunk]);
        const text = Buffer.from(seen).toString("latin1");
        const end = text.indexOf("\r\n\r\n");
        if (end < 0) {
          if (seen.length > limits.headBytes) fail(new SallyError("CONNECT_FAILED", "the proxy's answer is too long"));
          return;
        }
        const error = proxyRefusal(text) ?? (end + 4 < seen.length ? earlyBytes() : undefined);
        if (error !== undefined) return fail(error);
        signal.removeEventListener("abort", onAbort);
        resolve();
      },
      onEnd: () => fail(new SallyError("CONNECT_FAILED", "the proxy closed the connection without an answer")),
      onDrain() {},
      onClose: (error) =>
        fail(new SallyError("CONNECT_FAILED", "the proxy dropped the connection without an answer", { cause: error })),
    };
    duplex.write(head);
  });
}

function proxyRefusal(head: string): SallyError | undefined {
  const status = /^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1];
  if (status === undefined) return new SallyError("CONNECT_FAILED", "the proxy does not speak HTTP");
  if (status.startsWith("2")) return undefined;
  if (status === "407") return new SallyError("AUTH_FAILED", "the proxy wants other credentials (407)");
  return new SallyError("CONNECT_FAILED", `the proxy refused the connection (${status})`);
}

function earlyBytes(): SallyError {
  return new SallyError("CONNECT_FAILED", "the proxy sent bytes before the connection was used");
}

function startTls(toProxy: ConnectedSocket, options: ConnectOptions): Promise<ConnectedSocket> {
  const { tls, signal, closeCode = "LINK_LOST" } = options;
  const { duplex, remote } = toProxy;
  if (!(duplex instanceof SocketDuplex) || tls === undefined)
    throw new Error("a plain socket of ours, and TLS options");
  return new Promise((resolve, reject) => {
    const attempt = new Attempt(remote, { tls, closeCode, signal, resolve, reject });
    const raw = duplex.detach() as BunSocket | undefined; // SocketDuplex sees less of the same object.
    const [, secure] = raw!.upgradeTLS({
      allowHalfOpen: true,
      data: attempt.duplex,
      tls: clientTlsOptions(tls),
      socket: attempt.events(),
    });
    attempt.adopt(secure);
  });
}
