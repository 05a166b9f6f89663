/**
 * Control messages arrive in order and exactly once although lanes come and go: each has a sequence number, the
 * receiver acknowledges the last, and what was not acknowledged is sent again when its lane is lost.
 */

import { SallyError } from "../core/errors.ts";

export class ControlChannel {
  readonly #unackedMax: number;
  readonly #unackedMaxBytes: number;
  #unackedBytes = 0;
  #unacked: { readonly sequence: number; readonly payload: Uint8Array }[] = [];
  #nextSequence = 1;
  #lastReceived = 0;

  constructor(unackedMax: number, unackedMaxBytes: number) {
    this.#unackedMax = unackedMax;
    this.#unackedMaxBytes = unackedMaxBytes;
  }

  get unacked(): number {
    return this.#unacked.length;
  }

  /** Numbers a message and keeps it until it is acknowledged. @throws SallyError OVERLOADED */
  add(payload: Uint8Array): number {
    const bytes = this.#unackedBytes + payload.length;
    if (this.#unacked.length >= this.#unackedMax || bytes > this.#unackedMaxBytes) {
      throw new SallyError("OVERLOADED", "the peer does not acknowledge control messages");
    }
    this.#unackedBytes = bytes;
    const sequence = this.#nextSequence++;
    this.#unacked.push({ sequence, payload });
    return sequence;
  }

  /** What must be sent again on another lane. */
  get pending(): readonly { readonly sequence: number; readonly payload: Uint8Array }[] {
    return this.#unacked;
  }

  /** Whether a received message is the next one; false for a repeated one. @throws SallyError PROTOCOL_VIOLATION */
  accepts(sequence: number): boolean {
    if (sequence <= this.#lastReceived) return false;
    if (sequence !== this.#lastReceived + 1) throw new SallyError("PROTOCOL_VIOLATION", "a control message is missing");
    this.#lastReceived = sequence;
    return true;
  }

  get lastReceived(): number {
    return this.#lastReceived;
  }

  /** @throws SallyError PROTOCOL_VIOLATION */
  onAcknowledged(sequence: number): void {
    if (sequence >= this.#nextSequence)
      throw new SallyError("PROTOCOL_VIOLATION", "an acknowledgement from the future");
    let count = 0;
    for (const message of this.#unacked) {
      if (message.sequence > sequence) break;
      this.#unackedBytes -= message.payload.length;
      count++;
    }
    if (count > 0) this.#unacked = this.#unacked.slice(count);
  }
}
