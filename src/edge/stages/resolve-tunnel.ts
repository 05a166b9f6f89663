/**
 * The first stage: which tunnel a host name means. It reads the exchange's validated authority and nothing else, so
 * routing and every later rule look at the same name (Host fields are never compared again).
 */

import { SallyError } from "../../core/errors.ts";
import type { Handler, Reply } from "../../http/exchange.ts";
import type { TunnelDirectory, TunnelEntry } from "../../ports/tunnel-directory.ts";
import type { Next, Stage, Visit } from "../stage.ts";

export interface ResolveTunnelOptions {
  /** Tunnels are `NAME.domain`. */
  readonly domain: string;
  readonly directory: TunnelDirectory;
  /** Answers requests to the bare domain; without it they get 404. */
  readonly nodeHandler?: Handler | undefined;
}

/** Where a host name leads. */
export type HostMeaning =
  | { readonly kind: "tunnel"; readonly name: string }
  | { readonly kind: "node" }
  | { readonly kind: "unknown" };

const node: HostMeaning = { kind: "node" };
const unknown: HostMeaning = { kind: "unknown" };

/** The host of `host:port` in lower case, without port and without the dot that ends a full DNS name. */
export function hostOf(authority: string): string {
  const isBracketed = authority.startsWith("[");
  const colon = isBracketed ? authority.indexOf(":", authority.indexOf("]") + 1) : authority.indexOf(":");
  const host = (colon < 0 ? authority : authority.slice(0, colon)).toLowerCase();
  return host.endsWith(".") ? host.slice(0, -1) : host;
}

/** Reads a host name: one label before `domain` is a tunnel; IP addresses and deeper names are unknown. */
export function readHost(authority: string, domain: string): HostMeaning {
  const host = hostOf(authority);
  if (host === domain) return node;
  const nameLength = host.length - domain.length - 1;
  if (nameLength < 1 || host.charCodeAt(nameLength) !== 0x2e || !host.endsWith(domain)) return unknown;
  const name = host.slice(0, nameLength);
  return name.includes(".") ? unknown : { kind: "tunnel", name };
}

/** @throws SallyError TUNNEL_UNKNOWN, TUNNEL_OFFLINE, NOT_FOUND (the bare domain without a handler) */
export function resolveTunnel({ domain, directory, nodeHandler }: ResolveTunnelOptions): Stage {
  const ownDomain = hostOf(domain);
  const proceed = (visit: Visit, entry: TunnelEntry | undefined, next: Next): Promise<Reply> => {
    if (entry === undefined) {
      const { authority } = visit.exchange;
      throw new SallyError(
        "TUNNEL_UNKNOWN",
        authority === "" ? "The request names no host." : `No tunnel is called ${authority}.`,
      );
    }
    if (entry.state === "offline") {
      throw new SallyError("TUNNEL_OFFLINE", `The tunnel ${entry.name} has no agent connected: start it again.`);
    }
    visit.tunnel = entry;
    return next(visit);
  };
  return (visit, next) => {
    const meaning = readHost(visit.exchange.authority, ownDomain);
    if (meaning.kind === "tunnel") {
      const found = directory.lookup(meaning.name);
      return found instanceof Promise
        ? found.then((entry) => proceed(visit, entry, next))
        : proceed(visit, found, next);
    }
    if (meaning.kind === "unknown") return proceed(visit, undefined, next);
    if (nodeHandler !== undefined) return nodeHandler(visit.exchange);
    throw new SallyError("NOT_FOUND", `This is a Sallyport node. Tunnels are at NAME.${ownDomain}.`);
  };
}
