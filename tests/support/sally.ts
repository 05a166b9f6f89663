/**
 * Real processes for end-to-end tests: a node, agents and other programs, each with its own folders, all on loopback
 * with ports that the system picks. `await using` ends what was started, by its own process handle.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";

const root = join(import.meta.dir, "..", "..");
const entry = join(root, "src", "cli", "main.ts");

export type JsonEvent = Readonly<Record<string, unknown>> & { readonly event: string };

/** A folder of its own, removed at the end. */
export class Scratch implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "sallyport-test-"));

  join(...names: string[]): string {
    return join(this.path, ...names);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

interface Waiter {
  readonly matches: (event: JsonEvent) => boolean;
  readonly resolve: (event: JsonEvent) => void;
  readonly reject: (error: Error) => void;
}

export interface ProcessOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** A running program that prints a JSON object a line: its events can be awaited, past ones included. */
export class JsonProcess implements AsyncDisposable {
  readonly events: JsonEvent[] = [];
  readonly exited: Promise<number>;
  stderr = "";
  readonly #child: Subprocess<"pipe", "pipe", "pipe">;
  readonly #waiters = new Set<Waiter>();
  #hasEnded = false;

  constructor(command: readonly string[], options: ProcessOptions = {}) {
    this.#child = Bun.spawn([...command], {
      cwd: options.cwd ?? root,
      env: { ...process.env, NO_COLOR: "1", ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    const reading = Promise.all([this.#readEvents(), this.#readErrors()]);
    this.exited = this.#child.exited.then(async (code) => {
      await reading;
      this.#end(code);
      return code;
    });
  }

  get pid(): number {
    return this.#child.pid;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** The first event, past or future, that matches. Rejects when the process ends or the time is over. */
  waitFor(matches: string | ((event: JsonEvent) => boolean), timeoutMs = 20_000): Promise<JsonEvent> {
    const test = typeof matches === "string" ? (event: JsonEvent) => event.event === matches : matches;
    const known = this.events.find(test);
    return known === undefined ? this.#waitForNew(test, timeoutMs) : Promise.resolve(known);
  }

  /** The next event after now that matches. */
  waitForNext(matches: (event: JsonEvent) => boolean, timeoutMs = 20_000): Promise<JsonEvent> {
    return this.#waitForNew(matches, timeoutMs);
  }

  /** A line on its stdin, for programs of tests. */
  writeLine(line: string): void {
    void this.#child.stdin.write(`${line}\n`);
    void this.#child.stdin.flush();
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
    if (!this.#hasEnded) this.#child.kill(signal);
    return await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasEnded) return;
    this.#child.kill("SIGCONT");
    this.#child.kill("SIGKILL");
    await this.exited;
  }

  #waitForNew(matches: (event: JsonEvent) => boolean, timeoutMs: number): Promise<JsonEvent> {
    if (this.#hasEnded) return Promise.reject(this.#broken("has ended"));
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
      };
      const timer = setTimeout(() => {
        settle();
        reject(this.#broken(`gave no such event within ${timeoutMs} ms`));
      }, timeoutMs);
      const waiter: Waiter = {
        matches,
        resolve: (event) => (settle(), resolve(event)),
        reject: (error) => (settle(), reject(error)),
      };
      this.#waiters.add(waiter);
    });
  }

  #broken(what: string): Error {
    return new Error(`the process ${what}; events: ${JSON.stringify(this.events)}\n${this.stderr}`);
  }

  #end(code: number): void {
    this.#hasEnded = true;
    for (const waiter of this.#waiters) waiter.reject(this.#broken(`ended with ${code}`));
  }

  async #readEvents(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child.stdout) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#accept(JSON.parse(line) as JsonEvent); // --json promises one object a line
    }
  }

  #accept(event: JsonEvent): void {
    this.events.push(event);
    for (const waiter of this.#waiters) if (waiter.matches(event)) waiter.resolve(event);
  }

  async #readErrors(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.#child.stderr) this.stderr += decoder.decode(chunk, { stream: true });
  }
}

export interface SallyOptions extends ProcessOptions {
  /** Put before the command, such as `ip netns exec NAME`. */
  readonly wrap?: readonly string[];
  /** Flags for Bun itself. */
  readonly runtimeArgs?: readonly string[];
}

/** A running `sally` command with --json. */
export class SallyProcess extends JsonProcess {
  constructor(args: readonly string[], { wrap = [], runtimeArgs = [], ...options }: SallyOptions = {}) {
    super([...wrap, process.execPath, ...runtimeArgs, "--no-env-file", entry, ...args], options);
  }
}

export interface TestNode extends AsyncDisposable {
  readonly process: SallyProcess;
  readonly http: string;
  readonly tunnel: string;
  readonly admin: string;
  readonly data: string;
  readonly tokenFile: string;
  /** Port of the public HTTP listener. */
  readonly port: number;
}

export interface NodeOptions extends Pick<SallyOptions, "wrap" | "runtimeArgs"> {
  readonly data?: string;
  readonly args?: readonly string[];
  readonly ports?: { readonly http: number; readonly tunnel: number; readonly admin: number };
  /** Where agents connect; default loopback. */
  readonly tunnelHost?: string;
}

/** `sally edge` on ports of the system's choice, with a data folder of its own unless one is given. */
export async function startNode(options: NodeOptions = {}): Promise<TestNode> {
  await using stack = new AsyncDisposableStack();
  const { data = stack.use(new Scratch()).path, args = [], wrap = [], runtimeArgs = [] } = options;
  const loopback = "127.0.0.1";
  const { http = 0, tunnel = 0, admin = 0 } = options.ports ?? {};
  const tunnelAddress = `${options.tunnelHost ?? loopback}:${tunnel}`;
  const addresses = ["--http", `${loopback}:${http}`, "--tunnel", tunnelAddress, "--admin", `${loopback}:${admin}`];
  const command = ["edge", "--data", data, ...addresses, "--json", ...args];
  const process = stack.use(new SallyProcess(command, { wrap, runtimeArgs }));
  const ready = await process.waitFor("ready");
  const started = stack.move();
  return {
    process,
    http: String(ready["http"]),
    tunnel: String(ready["tunnel"]),
    admin: String(ready["admin"]),
    data,
    tokenFile: join(data, "agent.token"),
    port: Number(new URL(String(ready["http"])).port),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

export interface TestAgent extends AsyncDisposable {
  readonly process: SallyProcess;
  readonly url: string;
  readonly name: string;
  readonly transport: string;
}

export interface AgentOptions {
  readonly node: Pick<TestNode, "tunnel" | "tokenFile">;
  readonly target: string | number;
  readonly name?: string;
  readonly transport?: "auto" | "quic" | "websocket";
  readonly home?: string;
  readonly args?: readonly string[];
  readonly cwd?: string;
  readonly wrap?: readonly string[];
}

/** Starts `sally http` without waiting for the tunnel. */
export function spawnAgent(options: AgentOptions & { home: string }): SallyProcess {
  const { node, target, name, transport = "auto", home, args = [], cwd, wrap = [] } = options;
  const naming = name === undefined ? [] : ["--name", name];
  return new SallyProcess(
    [
      "http",
      String(target),
      ...naming,
      "--edge",
      node.tunnel,
      "--token-file",
      node.tokenFile,
      "--transport",
      transport,
      "--json",
      ...args,
    ],
    { env: { SALLY_HOME: home }, wrap, ...(cwd === undefined ? {} : { cwd }) },
  );
}

/** `sally http`, up: the tunnel event was seen. */
export async function startAgent(options: AgentOptions): Promise<TestAgent> {
  await using stack = new AsyncDisposableStack();
  const { home = stack.use(new Scratch()).path } = options;
  const process = stack.use(spawnAgent({ ...options, home }));
  const tunnel = await process.waitFor("tunnel");
  const started = stack.move();
  return {
    process,
    url: String(tunnel["url"]),
    name: String(tunnel["name"]),
    transport: String(tunnel["transport"]),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}
