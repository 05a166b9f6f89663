/** What the access log says about one request, from what the connection knows when the request is over. */

import type { Clock } from "../core/clock.ts";
import { errorTable, type SallyError } from "../core/errors.ts";
import { type Http1Exchange, RefusedRequest } from "./http1-exchange.ts";
import type { AccessRecord } from "./http1-options.ts";
import type { ReplyWriter } from "./http1-reply-writer.ts";

export interface RequestOutcome {
  readonly asked: Http1Exchange | RefusedRequest;
  readonly writer: Pick<ReplyWriter, "status" | "bytesOut">;
  /** Body bytes of the request. */
  readonly bytesIn: number;
  /** The reply had begun. */
  readonly hasReply: boolean;
  /** Why there is no complete reply. */
  readonly error: SallyError | undefined;
  readonly clock: Clock;
}

export function accessRecord({ asked, writer, bytesIn, hasReply, error, clock }: RequestOutcome): AccessRecord {
  return {
    time: new Date(clock.wallMs()).toISOString(),
    id: asked.id,
    method: asked.request?.method,
    target: asked.request?.target,
    host: asked.authority,
    status: hasReply ? writer.status : errorTable.VISITOR_GONE.status,
    bytesIn,
    bytesOut: hasReply ? writer.bytesOut : 0,
    durationMs: Math.round((clock.nowMs() - asked.startedMs) * 1_000) / 1_000,
    visitor: asked.connection.remote,
    error: error?.code ?? (asked instanceof RefusedRequest ? asked.code : undefined),
  };
}
