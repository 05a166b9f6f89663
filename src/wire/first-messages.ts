/** The first lane during the handshake: hands one HANDSHAKE payload at a time to whoever waits for it. */

import { SallyError } from "../core/errors.ts";
import type { HandshakeChannel } from "./handshake.ts";
import type { Lane } from "./lane.ts";

export class FirstMessages implements HandshakeChannel {
  /** Set as soon as there is a first lane. */
  lane: Lane | undefined;
  /** Rejects when the link ends before the handshake does; never resolves. */
  readonly failed: Promise<never>;
  #fail!: (error: SallyError) => void;
  #early: Uint8Array | undefined;
  #take: ((payload: Uint8Array) => void) | undefined;
  #expected: number;

  /** `expected`: how many messages the peer has to say in all. */
  constructor(expected: number) {
    this.#expected = expected;
    this.failed = new Promise((_resolve, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {}); // whoever shakes hands awaits it too
  }

  send(payload: Uint8Array): void {
    this.lane?.sender.handshake(payload);
  }

  receive<T>(read: (payload: Uint8Array) => T): Promise<T> {
    return new Promise((resolve) => {
      const take = (payload: Uint8Array): void => resolve(read(payload));
      const early = this.#early;
      this.#early = undefined;
      if (early === undefined) this.#take = take;
      else take(early);
    });
  }

  /** A payload arrived; it is read before the next frame is decoded. @throws SallyError PROTOCOL_VIOLATION */
  push(payload: Uint8Array): void {
    if (this.#expected-- <= 0 || this.#early !== undefined) {
      throw new SallyError("PROTOCOL_VIOLATION", "a HANDSHAKE frame out of turn");
    }
    const take = this.#take;
    this.#take = undefined;
    if (take === undefined) this.#early = payload;
    else take(payload);
  }

  fail(error: SallyError): void {
    this.#fail(error);
  }
}
