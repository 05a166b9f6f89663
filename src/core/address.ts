/** Where somebody is: an IP address and a port, as sockets report them. */
export interface Address {
  /** IPv4 dotted, or IPv6 without brackets; IPv4-mapped IPv6 is written as IPv4. */
  readonly host: string;
  readonly port: number;
}

/** `host:port`, with brackets around IPv6. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
