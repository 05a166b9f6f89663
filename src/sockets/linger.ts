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
  /** How long the peer may take, and how long a queue may stand still. Usually limits.socketLingerMs. */
  readonly lingerMs: number;
  /** Called once when it is over, either way. */
  readonly onDone?: () => void;
}

/** Takes the duplex over: ends it, drops what still comes in, and resets it when the peer takes too long. */
export function endThenLinger(duplex: Duplex, { clock, lingerMs, onDone }: LingerOptions): void {
  let queuedBytes = duplex.queuedBytes;
  const check = (): void => {
    if (duplex.queuedBytes < queuedBytes) {
      queuedBytes = duplex.queuedBytes;
      timer = clock.after(lingerMs, check);
      return;
    }
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
