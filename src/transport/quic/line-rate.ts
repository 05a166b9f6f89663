/**
 * How fast a QUIC connection sends: bytes that left the library while it had more, over time. Times in which nobody had
 * anything to send say nothing of the line, so they do not lower the rate; after a second of them it is forgotten.
 */

/** The rate is looked at after so long at the earliest, and averaged over about so long. */
const everyMs = 20;
const averagedOverMs = 100;
const forgottenAfterMs = 1_000;
/** While nothing is known. */
const presumedBytesPerMs = 300;

export class LineRate {
  /** Undefined until it is known. */
  bytesPerMs: number | undefined;
  #sinceMs: number;
  #sentBytes = 0;
  #wasIdle = false;

  constructor(nowMs: number) {
    this.#sinceMs = nowMs;
  }

  isDue(nowMs: number): boolean {
    return nowMs - this.#sinceMs >= everyMs;
  }

  /** Of all bytes that were handed on so far, `sentBytes` have left and `unsentBytes` have not. */
  observe(nowMs: number, sentBytes: number, unsentBytes: number): void {
    if (unsentBytes === 0) this.#wasIdle = true;
    const sinceMs = nowMs - this.#sinceMs;
    if (sinceMs < everyMs) return;
    const latest = (sentBytes - this.#sentBytes) / sinceMs;
    const isOfLine = !this.#wasIdle && sinceMs < 2 * everyMs; // else nobody looked, since nobody waited
    if (sinceMs >= forgottenAfterMs) this.bytesPerMs = undefined;
    else if (isOfLine || latest > (this.bytesPerMs ?? presumedBytesPerMs)) {
      const before = this.bytesPerMs ?? latest;
      this.bytesPerMs = before + (latest - before) * Math.min(1, sinceMs / averagedOverMs);
    }
    this.#sinceMs = nowMs;
    this.#sentBytes = sentBytes;
    this.#wasIdle = unsentBytes === 0;
  }

  /** For so long nothing was handed on although there was something. */
  skip(ms: number): void {
    this.#sinceMs += ms;
  }
}
