/**
 * How an agent reaches a node over TCP: enrolment and the WebSocket link. TLS is verified by the node's own CA. Where
 * something else answers at the node's address (a load balancer that ends TLS, or the node's public HTTPS port), that
 * has a certificate for the address itself, and is verified by the roots of this machine; who the node is, is then told
 * by the fingerprint in the join token and by the proofs in the link's handshake alone.
 */

import type { ApiRequest } from "../api/request.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Connector } from "../ports/session.ts";
import { type ConnectedSocket, connectSocket } from "../sockets/connect.ts";
import { connectThroughProxy } from "../sockets/connect-through-proxy.ts";
import type { TlsClientOptions } from "../sockets/tls-options.ts";
import { createWebsocketConnector } from "../transport/websocket/connector.ts";
import { nodeServerName } from "../trust/certificates.ts";
import type { EdgeAddress } from "./edge-address.ts";
import { callHttp } from "./http-call.ts";

const nodeTls = { plainAdvice: "use the node's tunnel port" } as const;

/** Requests to the node's login paths. Without `caPem` the node is not verified: only for fetching the CA itself. */
export function nodeRequest(edge: EdgeAddress, caPem: string | undefined, signal: AbortSignal): ApiRequest {
  const pinned = { ...nodeTls, ...(caPem === undefined ? { rejectUnauthorized: false } : { caPem }) };
  return async (method, path, { body, headers }) => {
    const socket = await viaEither(
      () => connectToNode(edge, { serverName: nodeServerName, ...pinned }, signal),
      () => connectToNode(edge, { serverName: edge.host }, signal),
    );
    const call = { method, path, host: edge.authority };
    return await callHttp(
      socket.duplex,
      { ...call, ...(headers === undefined ? {} : { headers }), ...(body === undefined ? {} : { body }) },
      AbortSignal.any([signal, AbortSignal.timeout(limits.connectMs)]),
    );
  };
}

export interface NodeWebsocketOptions {
  readonly edge: EdgeAddress;
  /** As it is now: a renewed certificate counts for the next lane. */
  readonly tls: () => { readonly keyPem: string; readonly certPem: string; readonly caPem: string };
  readonly clock: Clock;
}

/** Links over WebSocket, on the tunnel port or behind whatever ends TLS in front of the node. */
export function createNodeWebsocket({ edge, tls, clock }: NodeWebsocketOptions): Connector {
  const base = {
    url: `wss://${edge.authority}`,
    clock,
    ...(edge.proxyUrl === undefined ? {} : { proxyUrl: edge.proxyUrl }),
  };
  const pinned = createWebsocketConnector({
    ...base,
    tls: () => ({ serverName: nodeServerName, ...nodeTls, ...tls() }),
  });
  const open = createWebsocketConnector({ ...base, tls: { serverName: edge.host }, isNodeCertificate: false });
  return {
    connect: (signal) =>
      viaEither(
        () => pinned.connect(signal),
        () => open.connect(signal),
      ),
  };
}

/** Tries the platform's roots where the pinned way fails in TLS. Some servers refuse a server name that is not theirs. */
async function viaEither<T>(pinned: () => Promise<T>, open: () => Promise<T>): Promise<T> {
  try {
    return await pinned();
  } catch (first) {
    if (!(first instanceof SallyError) || (first.code !== "CA_MISMATCH" && first.code !== "CONNECT_FAILED"))
      throw first;
    try {
      return await open();
    } catch (second) {
      if (!(second instanceof SallyError)) throw second;
      // Neither way works: the first tells of the node that was meant, unless the second got further.
      throw second.code === "CA_MISMATCH" || second.code === "CONNECT_FAILED" ? first : second;
    }
  }
}

function connectToNode(edge: EdgeAddress, tls: TlsClientOptions, signal: AbortSignal): Promise<ConnectedSocket> {
  const options = { tls, signal, timeoutMs: limits.connectMs };
  if (edge.proxyUrl !== undefined) return connectThroughProxy(edge.proxyUrl, edge, options);
  return connectSocket({ kind: "tcp", host: edge.host, port: edge.port }, options);
}
