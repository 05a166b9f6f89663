/** What the benchmark knows of a tunnel: how to tell whether it is installed, start its server, and start its client. */

import type { Place, Visitor } from "../place.ts";
import type { ProcessKeeper, Running } from "../processes.ts";
import type { Tools } from "../tools.ts";
import type { Certificate } from "../certificate.ts";

export interface Peer {
  /** Name on the command line. */
  readonly name: string;
  /** How it is set up, for the report. */
  readonly setup: string;
  /** Programs that must be there. */
  readonly programs: readonly string[];
  /** What the report calls its version. */
  version(tools: Tools): Promise<string>;
  startServer(context: PeerContext): Promise<PeerServer>;
}

export interface PeerContext {
  readonly keeper: ProcessKeeper;
  readonly tools: Tools;
  /** A folder of this instance alone. */
  readonly folder: string;
  readonly certificate: Certificate;
  readonly serverPlace: Place;
  readonly clientPlace: Place;
}

export interface PeerServer {
  readonly processes: readonly Running[];
  /** Starts the client beside the origin, which listens on 127.0.0.1 of the client's place. */
  startClient(originPort: number): Promise<PeerClient>;
}

export interface PeerClient {
  readonly processes: readonly Running[];
  readonly visitor: Visitor;
  /** When the client itself said that the public address works, after its start. */
  readonly readyMs?: number;
}

/** The host name that visitors ask for where the tunnel looks at it. */
export const benchHost = "bench.localhost";

/** The first thing in `text` that looks like a version. */
export function versionIn(text: string): string {
  return /\d+\.\d+(\.\d+)?([-\w.]*)/.exec(text)?.[0] ?? "unknown version";
}
