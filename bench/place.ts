/**
 * Where a program of the benchmark runs. On loopback both ends of a tunnel share one place; on the lossy link the
 * servers and visitors are in one network namespace and the clients and origins in another.
 */

export interface Place {
  /** The address that the other end of the tunnel dials. */
  readonly address: string;
  /** Turns a command line into one that runs here. */
  command(argv: readonly string[]): readonly string[];
}

export const loopback: Place = { address: "127.0.0.1", command: (argv) => argv };

/** Where visitors send their requests, and the host name they ask for. */
export interface Visitor {
  readonly host: string;
  readonly port: number;
  readonly hostHeader: string;
}
