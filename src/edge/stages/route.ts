/** Decides how the origin is dialled: by an agent's own answer for a probe, else as pooled HTTP. */

import { probeFieldName, type ProbeBoard } from "../probe-board.ts";
import type { Stage } from "../stage.ts";

export interface RouteOptions {
  readonly probes?: ProbeBoard | undefined;
}

export function route({ probes }: RouteOptions): Stage {
  return (visit, next) => {
    if (probes !== undefined && probes.size > 0 && visit.tunnel !== undefined) {
      const nonce = visit.exchange.request.headers.get(probeFieldName);
      if (nonce !== undefined && probes.take(nonce, visit.tunnel.name)) visit.protocol = "probe";
    }
    return next(visit);
  };
}
