/** One step of the pipeline, and how steps are joined into one function at start. */

import type { StreamProtocol } from "../ports/dialer.ts";
import type { TunnelEntry } from "../ports/tunnel-directory.ts";
import type { Exchange, Reply } from "../http/exchange.ts";
import { assert } from "../core/errors.ts";

/** What the stages know about one exchange; each adds what those after it need. */
export interface Visit {
  readonly exchange: Exchange;
  /** Set by `resolve tunnel`. */
  tunnel: TunnelEntry | undefined;
  /** Set by `route`: how the origin is dialled. */
  protocol: StreamProtocol;
}

export type Next = (visit: Visit) => Promise<Reply>;

/** Answers, or calls `next` and may change what comes back. Throws SallyError for expected trouble. */
export type Stage = (visit: Visit, next: Next) => Promise<Reply>;

/** Joins stages, first one outermost. The last stage must not call `next`. */
export function composeStages(stages: readonly Stage[]): Next {
  const end: Next = () => {
    assert(false, "the last stage answers");
  };
  return stages.reduceRight<Next>((next, stage) => (visit) => stage(visit, next), end);
}
