/**
 * The fields that tell the origin who asked: `X-Forwarded-For`, `-Host`, `-Proto` and `Forwarded` (RFC 7239). They are
 * built from what the edge itself saw. What the visitor claimed is used only when the visitor is a trusted proxy.
 */

import type { VisitorConnection } from "../../http/exchange.ts";

export interface SeenByEdge {
  readonly connection: VisitorConnection;
  readonly authority: string;
  readonly scheme: "http" | "https";
}

/** What a trusted proxy said; values of repeated fields are joined in order. */
export interface ClaimedByProxy {
  readonly for: string | undefined;
  readonly host: string | undefined;
  readonly proto: string | undefined;
  readonly forwarded: string | undefined;
}

interface Remembered {
  readonly authority: string;
  readonly scheme: string;
  readonly raw: readonly string[];
}

export class ForwardedFields {
  // hot: requests on one connection nearly always name one host, so the fields are made once for each connection.
  readonly #remembered = new WeakMap<VisitorConnection, Remembered>();

  /** Alternating names and values for a visitor. */
  of(seen: SeenByEdge): readonly string[] {
    const known = this.#remembered.get(seen.connection);
    if (known !== undefined && known.authority === seen.authority && known.scheme === seen.scheme) return known.raw;
    const raw = forwardedFields(seen);
    this.#remembered.set(seen.connection, { authority: seen.authority, scheme: seen.scheme, raw });
    return raw;
  }
}

/** Alternating names and values; with `claimed`, our own knowledge goes behind what a trusted proxy said. */
export function forwardedFields(seen: SeenByEdge, claimed?: ClaimedByProxy): string[] {
  const { authority, scheme } = seen;
  const address = seen.connection.remote.host;
  const node = address.includes(":") ? `"[${address}]"` : address;
  const host = /^[\w.-]+$/.test(authority) ? authority : `"${authority}"`;
  const element = `for=${node};host=${host};proto=${scheme}`;
  return [
    "X-Forwarded-For",
    behind(claimed?.for, address),
    "X-Forwarded-Host",
    claimed?.host ?? authority,
    "X-Forwarded-Proto",
    claimed?.proto ?? scheme,
    "Forwarded",
    behind(claimed?.forwarded, element),
  ];
}

function behind(before: string | undefined, own: string): string {
  return before === undefined || before === "" ? own : `${before}, ${own}`;
}
