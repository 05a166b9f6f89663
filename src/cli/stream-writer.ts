/**
 * Writing to stdout and stderr. Hides what Bun's own streams get wrong here: `process.exit` cuts off what a slow reader
 * of a pipe has not taken yet, and a reader that goes away ends the process. A reader that stands still neither stops
 * us nor fills our memory: beyond a bound, whole texts are dropped.
 */

/** The part of Bun's FileSink that is used. */
export interface TextSink {
  write(text: string): unknown;
  flush(): number | Promise<number>;
}

export class StreamWriter {
  readonly #open: () => TextSink;
  readonly #queueMax: number;
  #sink: TextSink | undefined;
  #isGone = false;
  #queued = 0;
  #flushing: Promise<unknown> | undefined;

  /** `open` is called with the first text. `queueMax` counts characters that wait for the reader. */
  constructor(open: () => TextSink, queueMax: number) {
    this.#open = open;
    this.#queueMax = queueMax;
  }

  /** False when the text was dropped. Keeps texts whole, so that lines of JSON stay lines of JSON. */
  write(text: string): boolean {
    if (this.#isGone || this.#queued > this.#queueMax) return false;
    try {
      this.#sink ??= this.#open();
      this.#sink.write(text);
      if (this.#flushing === undefined) this.#flush(this.#sink);
      if (this.#flushing !== undefined) this.#queued += text.length;
    } catch {
      this.#isGone = true; // nobody reads this any more: that is no reason to end a tunnel
    }
    return !this.#isGone;
  }

  /** Resolves when the reader has taken everything, or has gone. */
  async drained(): Promise<void> {
    while (this.#flushing !== undefined) await this.#flushing;
  }

  #flush(sink: TextSink): void {
    const flushed = sink.flush();
    this.#queued = 0;
    if (!(flushed instanceof Promise)) return;
    this.#flushing = flushed.then(
      () => this.#onFlushed(sink),
      () => {
        this.#isGone = true;
        this.#flushing = undefined;
      },
    );
  }

  /** What came while the flush ran needs another one. */
  #onFlushed(sink: TextSink): void {
    this.#flushing = undefined;
    if (this.#queued === 0) return;
    try {
      this.#flush(sink);
    } catch {
      this.#isGone = true;
    }
  }
}
