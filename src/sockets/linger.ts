/**
 * The polite way to be done with a connection that we end first: everything queued goes out, then our end, then we
 * listen until the peer has ended too. Closing at once would make the kernel answer late bytes with RST, which can
 * destroy what the peer has not read yet (RFC 9112 §9.6).
 */

import type { Clock } from "../core/clock.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";

export interface LingerOptions {
  readonly clock: Clock;
  /** How long the peer may take once it has everything, and how long nothing may leave. Usually limits.socketLingerMs. */
  readonly lingerMs: number;
  /** Called once when it is over, either way. */
  readonly onDone?: () => void;
}

/** A reset would throw away what waits in our system, too. */
function undelivered(duplex: Duplex): number {
  return duplex.undeliveredBytes ?? duplex.queuedBytes;
}

/** Takes the duplex over: ends it, drops what still comes in, and resets it when the peer takes too long. */
export function endThenLinger(duplex: Duplex, { clock, lingerMs, onDone }: LingerOptions): void {
  let leftBytes = undelivered(duplex);
  const check = (): void => {
    const nowLeft = undelivered(duplex);
    if (nowLeft < leftBytes) {
      leftBytes = nowLeft;
      timer = clock.after(lingerMs, check);
      return;
    }
    duplex.leave?.();
    duplex.reset(new SallyError("CANCELLED", "the peer did not end the connection in time"));
    onDone?.();
  };
  let timer = clock.after(lingerMs, check);
  duplex.handler = {
    onData: (chunk) => duplex.consume(chunk.length),
    onEnd() {},
    onDrain() {},
    onClose() {
      timer.cancel();
      onDone?.();
    },
  };
  duplex.end();
}
