/** The URL of a node, as `--edge` takes it. */

import type { Address } from "../core/address.ts";
import { formatAddress } from "../core/address.ts";
import { SallyError } from "../core/errors.ts";
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
