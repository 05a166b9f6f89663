import { describe, expect, test } from "bun:test";
import { StreamWriter, type TextSink } from "./stream-writer.ts";

/** A pipe whose reader takes what it is told to take. */
class Pipe implements TextSink {
  taken = "";
  flushes = 0;
  isSlow = false;
  isBroken = false;
  #buffer = "";
  #pending: PromiseWithResolvers<number> | undefined;

  write(text: string): void {
    if (this.isBroken) throw new Error("EPIPE");
    this.#buffer += text;
  }

  flush(): number | Promise<number> {
    if (this.isBroken) throw new Error("EPIPE");
    this.flushes++;
    if (!this.isSlow) return this.#take();
    this.#pending = Promise.withResolvers();
    return this.#pending.promise;
  }

  read(): void {
    this.#pending?.resolve(this.#take());
  }

  leave(): void {
    this.isBroken = true;
    this.#pending?.reject(new Error("EPIPE"));
  }

  #take(): number {
    this.taken += this.#buffer;
    const { length } = this.#buffer;
    this.#buffer = "";
    return length;
  }
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe("a stream writer", () => {
  test("writes at once where the reader keeps up, and opens nothing before the first text", async () => {
    const pipe = new Pipe();
    let opened = 0;
    const writer = new StreamWriter(() => (opened++, pipe), 100);
    await writer.drained();
    expect(opened).toBe(0);
    expect([writer.write("one\n"), writer.write("two\n")]).toEqual([true, true]);
    expect([pipe.taken, opened]).toEqual(["one\ntwo\n", 1]);
  });

  test("drained waits for everything, also for what came while it waited", async () => {
    const pipe = new Pipe();
    pipe.isSlow = true;
    const writer = new StreamWriter(() => pipe, 100);
    writer.write("one\n");
    let isDrained = false;
    const drained = writer.drained().then(() => (isDrained = true));
    await settle();
    writer.write("two\n");
    pipe.read();
    await settle();
    expect(isDrained).toBe(false);
    pipe.read();
    await drained;
    expect(pipe.taken).toBe("one\ntwo\n");
  });

  test("behind a reader that stands still it drops whole texts, and goes on when the reader does", async () => {
    const pipe = new Pipe();
    pipe.isSlow = true;
    const writer = new StreamWriter(() => pipe, 20);
    const written = Array.from({ length: 10 }, (_, i) => writer.write(`line number ${i}\n`));
    expect(written).toEqual([true, true, ...Array.from({ length: 8 }, () => false)]);
    pipe.isSlow = false;
    pipe.read();
    await writer.drained();
    expect(writer.write("and on\n")).toBe(true);
    expect(pipe.taken).toBe("line number 0\nline number 1\nand on\n");
  });

  test("a reader that leaves is no error, before a write or in the middle of one", async () => {
    const broken = new Pipe();
    broken.isBroken = true;
    const early = new StreamWriter(() => broken, 100);
    expect([early.write("x"), early.write("y")]).toEqual([false, false]);
    await early.drained();

    const pipe = new Pipe();
    pipe.isSlow = true;
    const writer = new StreamWriter(() => pipe, 100);
    expect(writer.write("x")).toBe(true);
    pipe.leave();
    await writer.drained();
    expect(writer.write("y")).toBe(false);
  });

  test("a sink that cannot be opened is one that nobody reads", () => {
    const writer = new StreamWriter(() => {
      throw new Error("EBADF");
    }, 100);
    expect(writer.write("x")).toBe(false);
  });
});
