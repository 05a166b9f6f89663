/**
 * The edge: what happens to a visitor's request between the listener and the origin. The list of stages below is the
 * table of contents of the product; each stage is one file in `stages/`.
 */

import type { Clock } from "../core/clock.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Handler } from "../http/exchange.ts";
import type { Dialer } from "../ports/dialer.ts";
import type { TunnelDirectory } from "../ports/tunnel-directory.ts";
import { OriginClient } from "./origin-client/origin-client.ts";
import type { ProbeBoard } from "./probe-board.ts";
import { composeStages } from "./stage.ts";
import { forward } from "./stages/forward.ts";
import { resolveTunnel } from "./stages/resolve-tunnel.ts";
import { route } from "./stages/route.ts";

export interface EdgeOptions {
  /** Tunnels are `NAME.domain`. */
  readonly domain: string;
  readonly directory: TunnelDirectory;
  readonly dialer: Dialer;
  /** Without it, nothing is a probe. */
  readonly probes?: ProbeBoard | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  /** Answers requests to the bare domain; without it they get 404. */
  readonly nodeHandler?: Handler | undefined;
  /** Whether what this address says in forwarding fields is believed. Default: nobody is. */
  readonly isTrustedProxy?: ((host: string) => boolean) | undefined;
}

export interface Edge {
  readonly handler: Handler;
  /** Nothing new goes over this link: it drains, or lost the right to serve. */
  retireLink(linkId: string): void;
  /** The link answers nothing, and its agent has another: safe requests that wait for a reply are sent again there. */
  forsakeLink(linkId: string): void;
  /** A link lost its claim on the tunnel. */
  retireTunnel(name: string): void;
  /** Idle streams close now; running requests finish. */
  close(): void;
}

export function createEdge(options: EdgeOptions): Edge {
  const { domain, directory, dialer, probes, clock, log, limits, nodeHandler, isTrustedProxy } = options;
  const client = new OriginClient({ dialer, clock, limits, isTrustedProxy });

  const run = composeStages([
    resolveTunnel({ domain, directory, nodeHandler }),
    // ip rules
    // limit by address
    // authenticate
    // limit by identity
    // webhook inbox
    // static assets
    // cache
    // collapse
    // shed
    route({ probes }),
    forward(client),
  ]);

  return {
    handler(exchange) {
      try {
        return run({ exchange, tunnel: undefined, protocol: "http" });
      } catch (thrown) {
        return Promise.reject(thrown);
      }
    },
    retireLink: (linkId) => client.retireLink(linkId),
    forsakeLink: (linkId) => client.forsakeLink(linkId),
    retireTunnel: (name) => client.retireTunnel(name),
    close() {
      log.debug("the edge closes");
      client.close();
    },
  };
}
