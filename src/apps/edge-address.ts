/** The URL of a node, as `--edge` takes it, and the requests an agent sends there before it has a link. */

import type { ApiRequest } from "../api/request.ts";
import type { Address } from "../core/address.ts";
import { formatAddress } from "../core/address.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { type ConnectedSocket, connectSocket } from "../sockets/connect.ts";
import { connectThroughProxy } from "../sockets/connect-through-proxy.ts";
import type { TlsClientOptions } from "../sockets/tls-options.ts";
import { nodeServerName } from "../trust/certificates.ts";
import { callHttp } from "./http-call.ts";
import { bypassesProxy, type Environment } from "./load-config.ts";

export interface EdgeAddress extends Address {
  /** As it was given, for messages. */
  readonly url: string;
  /** `host:port`: what both sides sign, and the Host field. */
  readonly authority: string;
  readonly proxyUrl: string | undefined;
}

/** `https://host[:port]`; port 7443 by default. @throws SallyError USAGE */
export function parseEdgeUrl(text: string, environment: Environment): EdgeAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url !== undefined && url.pathname === "/" && url.search === "" && url.username === "";
  if (url?.protocol !== "https:" || !isPlain) {
    throw new SallyError("USAGE", `"${text}" is not the address of a node: use https://HOST:PORT with its tunnel port`);
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  // URL drops the scheme's default port; a node's tunnel port is 7443 unless one was written.
  const port = url.port !== "" ? Number(url.port) : /:443\/?$/.test(text) ? 443 : 7443;
  const { proxyUrl, noProxy } = environment;
  return {
    url: text,
    host,
    port,
    authority: formatAddress({ host, port }),
    proxyUrl: isLoopback(host) || bypassesProxy(host, noProxy) ? undefined : proxyUrl,
  };
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host.endsWith(".localhost") || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** Requests to the node's login paths. Without `caPem` the node is not verified: only for fetching the CA itself. */
export function nodeRequest(edge: EdgeAddress, caPem: string | undefined, signal: AbortSignal): ApiRequest {
  const trust = caPem === undefined ? { rejectUnauthorized: false } : { caPem };
  return async (method, path, { body, headers }) => {
    const socket = await connectToNode(edge, { serverName: nodeServerName, ...trust }, signal);
    const call = { method, path, host: edge.authority };
    return await callHttp(
      socket.duplex,
      { ...call, ...(headers === undefined ? {} : { headers }), ...(body === undefined ? {} : { body }) },
      AbortSignal.any([signal, AbortSignal.timeout(limits.connectMs)]),
    );
  };
}

function connectToNode(edge: EdgeAddress, tls: TlsClientOptions, signal: AbortSignal): Promise<ConnectedSocket> {
  const options = { tls, signal, timeoutMs: limits.connectMs };
  if (edge.proxyUrl !== undefined) return connectThroughProxy(edge.proxyUrl, edge, options);
  return connectSocket({ kind: "tcp", host: edge.host, port: edge.port }, options);
}
