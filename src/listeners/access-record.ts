/** What the access log says about one request, from what the connection knows when the request is over. */

import type { Clock } from "../core/clock.ts";
import { errorTable, type SallyError } from "../core/errors.ts";
import type { Exchange } from "../http/exchange.ts";
import type { AccessRecord } from "./http1-options.ts";
import type { ReplyWriter } from "./http1-reply-writer.ts";

export interface RequestOutcome {
  readonly exchange: Exchange;
  readonly writer: Pick<ReplyWriter, "isActive" | "status" | "bytesOut">;
  /** Body bytes of the request. */
  readonly bytesIn: number;
  /** Why there is no complete reply. */
  readonly error: SallyError | undefined;
  readonly clock: Clock;
}

export function accessRecord({ exchange, writer, bytesIn, error, clock }: RequestOutcome): AccessRecord {
  const hasReply = error === undefined || writer.isActive;
  return {
    time: new Date(clock.wallMs()).toISOString(),
    id: exchange.id,
    method: exchange.request.method,
    target: exchange.request.target,
    host: exchange.authority,
    status: hasReply ? writer.status : errorTable.VISITOR_GONE.status,
    bytesIn,
    bytesOut: hasReply ? writer.bytesOut : 0,
    durationMs: Math.round((clock.nowMs() - exchange.startedMs) * 1_000) / 1_000,
    visitor: exchange.connection.remote,
    error: error?.code,
  };
}
