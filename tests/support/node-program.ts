/** Programs of tests/support/programs on Node itself: clients and servers as users have them, not Bun's own. */

import { join } from "node:path";
import type { Subprocess } from "bun";

const programs = join(import.meta.dir, "programs");

/** A program that says what it has to say as JSON lines. */
export class NodeProgram implements AsyncDisposable {
  readonly lines: Readonly<Record<string, unknown>>[] = [];
  readonly exited: Promise<number>;
  readonly #child: Subprocess<"ignore", "pipe", "inherit">;
  readonly #waiters = new Set<() => void>();
  #hasEnded = false;

  constructor(program: string, args: readonly (string | number)[] = []) {
    const node = Bun.which("node");
    if (node === null) throw new Error("Node is not on the PATH");
    this.#child = Bun.spawn([node, join(programs, program), ...args.map(String)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const reading = this.#read();
    this.exited = this.#child.exited.then(async (code) => {
      await reading;
      this.#hasEnded = true;
      this.#wake();
      return code;
    });
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** The first line, past or future, that has this key. */
  waitFor(key: string, timeoutMs = 30_000): Promise<Readonly<Record<string, unknown>>> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(look);
      };
      const look = (): void => {
        const line = this.lines.find((one) => key in one);
        if (line !== undefined) resolve((settle(), line));
        else if (this.#hasEnded) reject((settle(), new Error(`the program ended without "${key}"`)));
      };
      const timer = setTimeout(() => {
        settle();
        reject(new Error(`no "${key}" within ${timeoutMs} ms; so far: ${JSON.stringify(this.lines.slice(-20))}`));
      }, timeoutMs);
      this.#waiters.add(look);
      look();
    });
  }

  kill(signal: NodeJS.Signals = "SIGKILL"): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.exited;
  }

  #wake(): void {
    for (const look of this.#waiters) look();
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child.stdout) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.lines.push(JSON.parse(line) as Record<string, unknown>); // programs print objects
      this.#wake();
    }
  }
}
