/** What the access log says about one request, from what the connection knows when the request is over. */

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
  readonly nowMs: number;
}

export function accessRecord({ exchange, writer, bytesIn, error, nowMs }: RequestOutcome): AccessRecord {
  const hasReply = error === undefined || writer.isActive;
  return {
    id: exchange.id,
    method: exchange.request.method,
    target: exchange.request.target,
    host: exchange.authority,
    status: hasReply ? writer.status : errorTable.VISITOR_GONE.status,
    bytesIn,
    bytesOut: hasReply ? writer.bytesOut : 0,
    durationMs: nowMs - exchange.startedMs,
    visitor: exchange.connection.remote,
    error: error?.code,
  };
}
