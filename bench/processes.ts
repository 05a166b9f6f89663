/**
 * Starts programs, keeps their last lines of output and ends them again. Only processes that were started here are ever
 * signalled, each by its own id, in the reverse order of their start: a client goes before the server it talks to.
 */

import { openSync, closeSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

export interface StartOptions {
  /** Short name, used for the log file and in messages. */
  readonly name: string;
  readonly argv: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

const keptLines = 500;
const stopGraceMs = 3_000;

/** One running program. */
export class Running {
  readonly name: string;
  readonly pid: number;
  readonly #child: Bun.Subprocess<"ignore", "pipe", number>;
  readonly #logFile: string;
  readonly #lines: string[] = [];
  readonly #watchers = new Set<() => void>();

  constructor(name: string, child: Bun.Subprocess<"ignore", "pipe", number>, logFile: string) {
    this.name = name;
    this.pid = child.pid;
    this.#child = child;
    this.#logFile = logFile;
    void this.#collect();
  }

  get hasExited(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** The first line of stdout that `accept` turns into a value. */
  async line<T>(accept: (line: string) => T | undefined, timeoutMs: number): Promise<T> {
    const deadline = Date.now() + timeoutMs;
    let next = 0;
    for (;;) {
      for (; next < this.#lines.length; next++) {
        const value = accept(this.#lines[next] ?? "");
        if (value !== undefined) return value;
      }
      if (this.hasExited) throw new Error(`${this.name} ended early: ${this.lastWords()}`);
      const leftMs = deadline - Date.now();
      if (leftMs <= 0) throw new Error(`${this.name} did not get ready in ${timeoutMs} ms: ${this.lastWords()}`);
      await this.#change(Math.min(leftMs, 250));
    }
  }

  /** What the program said last, for a message about its failure. */
  lastWords(): string {
    const text = readFileSync(this.#logFile, "utf8").trim().split("\n").slice(-5);
    const words = [...this.#lines.slice(-3), ...text].join(" | ").trim();
    return words === "" ? "it said nothing" : words.slice(-600);
  }

  async stop(): Promise<void> {
    if (!this.hasExited) {
      this.#child.kill("SIGTERM");
      await Promise.race([this.#child.exited, Bun.sleep(stopGraceMs)]);
    }
    if (!this.hasExited) this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  async #collect(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child.stdout) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      if (this.#lines.length < keptLines) this.#lines.push(...parts);
      for (const watcher of this.#watchers) watcher();
    }
    for (const watcher of this.#watchers) watcher();
  }

  async #change(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#watchers.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#watchers.add(done);
    });
  }
}

/** Starts programs and remembers them until they are stopped. */
export class ProcessKeeper {
  readonly #scratch: string;
  readonly #running: Running[] = [];
  #count = 0;

  constructor(scratch: string) {
    this.#scratch = scratch;
  }

  start({ name, argv, cwd, env }: StartOptions): Running {
    const logFile = join(this.#scratch, `${++this.#count}-${name}.log`);
    const log = openSync(logFile, "w");
    // Five hundred visitors need more descriptors than the usual soft limit; `exec` keeps the process id.
    const child = Bun.spawn(["sh", "-c", 'ulimit -n "$(ulimit -H -n)"; exec "$@"', "sh", ...argv], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: log,
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...Bun.env, RUST_BACKTRACE: "0", ...env }, // a cause is one line
    });
    closeSync(log);
    const running = new Running(name, child, logFile);
    this.#running.push(running);
    return running;
  }

  async stop(processes: readonly Running[]): Promise<void> {
    for (const running of processes.toReversed()) {
      await running.stop();
      const index = this.#running.indexOf(running);
      if (index >= 0) this.#running.splice(index, 1);
    }
  }

  async stopAll(): Promise<void> {
    await this.stop([...this.#running]);
  }
}

/** Runs a program to its end and returns what it printed; throws with its last words when it fails. */
export async function run(argv: readonly string[], options: { timeoutMs?: number } = {}): Promise<string> {
  const child = Bun.spawn([...argv], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 60_000);
  const [out, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  clearTimeout(timer);
  if (code !== 0) throw new Error(`${argv.join(" ")} ended with ${code}: ${(errors + out).trim().slice(-400)}`);
  return out + errors;
}

/** A TCP port that was free a moment ago, for programs that cannot pick one and say so. */
export async function freePort(host = "127.0.0.1"): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, host, resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port was given");
  return address.port;
}
