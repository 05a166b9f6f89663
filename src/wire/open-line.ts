/**
 * OPENs that wait: for a place among the streams of their link, then for window of the process's budget. Nothing of such
 * a stream has left, so who takes it out of the line loses nothing. First come, first served; line and wait are bounded.
 */

import { SallyError } from "../core/errors.ts";
import type { LaneHost } from "./lane-host.ts";
import type { Lane } from "./lane.ts";
import type { Preamble } from "./preamble.ts";
import type { WireStream } from "./wire-stream.ts";

export interface OpenLineOptions {
  readonly host: Pick<LaneHost, "clock" | "limits" | "budget">;
  /** Whether the link may have one more stream besides those that wait for a place. */
  readonly hasPlace: () => boolean;
}

export class OpenLine {
  readonly #host: OpenLineOptions["host"];
  readonly #hasPlace: () => boolean;
  /** What to do with a place, by who waits for one. */
  readonly #placeless = new Set<() => void>();

  constructor({ host, hasPlace }: OpenLineOptions) {
    this.#host = host;
    this.#hasPlace = hasPlace;
  }

  /** Streams that wait for a place. */
  get placeless(): number {
    return this.#placeless.size;
  }

  /** @throws SallyError STREAM_LIMIT or OVERLOADED when the line is full */
  open(lane: Lane, preamble: Preamble): WireStream {
    const { clock, limits } = this.#host;
    let stream: WireStream | undefined;
    const refuse = (): void => {
      if (stream !== undefined) lane.failStream(stream, new SallyError("OVERLOADED"));
    };
    const grant = (): void => {
      timer.cancel();
      if (stream === undefined) return;
      stream.cancelWait = undefined;
      lane.activate(stream);
    };
    const leave = this.#hasPlace() ? this.#waitForWindow(grant, refuse) : this.#waitForPlace(grant, refuse);
    const timer = clock.after(limits.openWaitMs, refuse);
    stream = lane.open(preamble, false);
    stream.cancelWait = () => {
      timer.cancel();
      leave();
    };
    return stream;
  }

  /** A stream of the link is over. */
  serve(): void {
    for (const onPlace of this.#placeless) {
      if (!this.#hasPlace()) return;
      this.#placeless.delete(onPlace);
      onPlace();
    }
  }

  /** Returns the way to leave the line. */
  #waitForPlace(onGranted: () => void, onRefused: () => void): () => void {
    const { limits, budget } = this.#host;
    if (this.#placeless.size >= limits.openWaitersMax) throw new SallyError("STREAM_LIMIT");
    let leave = (): void => void this.#placeless.delete(onPlace);
    const onPlace = (): void => {
      leave = () => {};
      if (budget.tryReserve(limits.streamWindowInitialBytes)) return onGranted();
      try {
        leave = this.#waitForWindow(onGranted, onRefused);
      } catch {
        onRefused(); // the line for window is full
      }
    };
    this.#placeless.add(onPlace);
    return () => leave();
  }

  #waitForWindow(onGranted: () => void, onRefused: () => void): () => void {
    return this.#host.budget.wait(this.#host.limits.streamWindowInitialBytes, onGranted, onRefused);
  }
}
