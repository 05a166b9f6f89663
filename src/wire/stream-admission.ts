/**
 * How many streams a peer may open, and how fast it may open and drop them. Streams over a limit are refused, which
 * costs the peer tokens, as resets do; a peer that goes on although it has none left loses its link.
 */

import { SallyError } from "../core/errors.ts";
import { TokenBucket } from "../core/token-bucket.ts";
import type { LaneHost } from "./lane-host.ts";

/** A stream that we had to refuse costs as much as so many resets. */
const refusalCost = 10;

export class StreamAdmission {
  readonly #host: Pick<LaneHost, "clock" | "limits" | "budget">;
  readonly #bucket: TokenBucket;
  /** Streams of the peer's that are open. */
  count = 0;

  constructor(host: Pick<LaneHost, "clock" | "limits" | "budget">) {
    this.#host = host;
    const { streamChurnBurst: burst, streamChurnPerSecond: perSecond } = host.limits;
    this.#bucket = new TokenBucket({ clock: host.clock, burst, perSecond });
  }

  /** The peer dropped a stream that it had opened. */
  onReset(): void {
    this.#bucket.spend(1);
  }

  /**
   * Undefined: the stream may open, its window is reserved. An error: refuse it with that.
   * @throws SallyError STREAM_LIMIT when the peer has gone too far
   */
  admit(isDraining: boolean): SallyError | undefined {
    if (isDraining) return this.#refuse("DRAINING");
    if (this.count >= this.#host.limits.streamsPerLink) return this.#refuse("STREAM_LIMIT");
    if (this.#bucket.tokens <= 0) return this.#refuse("OVERLOADED");
    if (!this.#host.budget.tryReserve(this.#host.limits.streamWindowInitialBytes)) return new SallyError("OVERLOADED");
    this.count++;
    return undefined;
  }

  #refuse(code: "DRAINING" | "STREAM_LIMIT" | "OVERLOADED"): SallyError {
    const left = this.#bucket.spend(refusalCost);
    if (left < -this.#host.limits.streamChurnBurst) throw new SallyError("STREAM_LIMIT");
    return new SallyError(code);
  }
}
