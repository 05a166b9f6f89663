/** The last stage: sends the request to the origin and hands its reply back. */

import { assert } from "../../core/errors.ts";
import type { OriginClient } from "../origin-client/origin-client.ts";
import type { Stage } from "../stage.ts";

export function forward(client: OriginClient): Stage {
  return (visit) => {
    assert(visit.tunnel !== undefined, "a tunnel was resolved before forward");
    return client.send({ exchange: visit.exchange, tunnel: visit.tunnel, protocol: visit.protocol });
  };
}
