/** What the edge needs to know about a tunnel to route to it. */

/** What happens to the Host field: kept, set to the origin's own `host:port`, or set to a value. */
export type HostHeaderPolicy =
  | { readonly kind: "preserve" }
  | { readonly kind: "rewrite"; readonly originHost: string }
  | { readonly kind: "value"; readonly value: string };

export interface TunnelEntry {
  readonly name: string;
  readonly state: "live" | "offline";
  readonly hostHeader: HostHeaderPolicy;
  /** Path prefix of the origin (`http://host/prefix`), without a slash at the end; usually empty. */
  readonly pathPrefix: string;
  /** What the agent dials, for error pages: `localhost:3000`. */
  readonly originLabel: string;
}

export interface TunnelDirectory {
  /** Undefined: no such name here. Offline: the name is reserved, but no agent serves it now. */
  lookup(name: string): TunnelEntry | undefined | Promise<TunnelEntry | undefined>;
}
