/** The whole way of a request between two hosts: a node, an agent, an origin and visitors, each a process in its place. */

import {
  Scratch,
  spawnAgent,
  startNode,
  type JsonEvent,
  type JsonProcess,
  type SallyProcess,
} from "../../support/sally.ts";
import type { TestNode } from "../../support/sally.ts";
import { TwoHosts, type WireOptions } from "./two-hosts.ts";

export interface RoadOptions {
  readonly wire?: WireOptions;
  readonly transport?: "auto" | "quic" | "websocket";
  /** Runs between the start of the node and of the agent. */
  readonly beforeAgent?: (hosts: TwoHosts) => Promise<void>;
  /** What the agent forwards to, instead of the checked origin. */
  readonly target?: string;
}

export interface LoadOptions {
  readonly seed: number;
  readonly kept?: number;
  readonly fresh?: number;
  readonly isSafe?: boolean;
}

export interface LoadResult {
  readonly summary: string;
  readonly outcomes: readonly JsonEvent[];
  /** Everything but right answers. */
  readonly others: readonly JsonEvent[];
}

export class Road implements AsyncDisposable {
  readonly hosts: TwoHosts;
  readonly node: TestNode;
  readonly agent: SallyProcess;
  readonly #stack: AsyncDisposableStack;

  static async open(options: RoadOptions = {}): Promise<Road> {
    await using stack = new AsyncDisposableStack();
    const hosts = stack.use(await TwoHosts.open(options.wire));
    const { edge, laptop } = hosts;
    const node = stack.use(await startNode({ wrap: edge.wrap, tunnelHost: edge.address }));
    const target = options.target ?? (await startOrigin(stack, hosts));
    await options.beforeAgent?.(hosts);
    const home = stack.use(new Scratch()).path;
    const { transport = "auto" } = options;
    const agent = stack.use(spawnAgent({ node, target, name: "demo", transport, home, wrap: laptop.wrap }));
    return new Road({ hosts, node, agent, stack: stack.move() });
  }

  private constructor(parts: { hosts: TwoHosts; node: TestNode; agent: SallyProcess; stack: AsyncDisposableStack }) {
    this.hosts = parts.hosts;
    this.node = parts.node;
    this.agent = parts.agent;
    this.#stack = parts.stack;
  }

  /** The tunnel as visitors name it. */
  get host(): string {
    return `demo.localhost:${this.node.port}`;
  }

  /** Waits until the tunnel is proved over this transport; a new proof counts when `isNew`. */
  async up(transport: string, { isNew = false, timeoutMs = 60_000 } = {}): Promise<void> {
    const test = ({ event, transport: over }: JsonEvent): boolean => event === "tunnel" && over === transport;
    await (isNew ? this.agent.waitForNext(test, timeoutMs) : this.agent.waitFor(test, timeoutMs));
  }

  /** Visitors on the edge's host. */
  load({ seed, kept = 8, fresh = 2, isSafe = false }: LoadOptions): RoadLoad {
    const numbers = [seed, kept, fresh].map(String);
    const command = ["visitors.fixture.ts", String(this.node.port), this.host, ...numbers, isSafe ? "safe" : "any"];
    return new RoadLoad(this.hosts.edge.start(command));
  }

  /** SHA-256 of what curl downloads on the edge's host. @throws Error when it fails */
  async download(path: string): Promise<string> {
    const url = `http://127.0.0.1:${this.node.port}${path}`;
    const script = 'set -o pipefail; curl -sS --fail --max-time 100 -H "Host: $1" "$2" | sha256sum';
    const output = await this.hosts.edge.run(["bash", "-c", script, "bash", this.host, url]);
    return output.slice(0, 64);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

async function startOrigin(stack: AsyncDisposableStack, { laptop }: TwoHosts): Promise<string> {
  const origin = stack.use(laptop.start(["origin.fixture.ts"]));
  return `127.0.0.1:${Number((await origin.waitFor("listening"))["port"])}`;
}

export class RoadLoad implements AsyncDisposable {
  readonly #process: JsonProcess;

  constructor(process: JsonProcess) {
    this.#process = process;
  }

  /** Waits for so many right answers from now on. */
  async run(count: number, timeoutMs = 60_000): Promise<void> {
    let left = count;
    await this.#process.waitForNext(({ kind }) => kind === "right" && --left === 0, timeoutMs);
  }

  async stop(): Promise<LoadResult> {
    this.#process.writeLine("stop");
    const { summary } = await this.#process.waitFor("stopped", 60_000);
    const outcomes = this.#process.events.filter(({ event }) => event === "outcome");
    return { summary: String(summary), outcomes, others: outcomes.filter(({ kind }) => kind !== "right") };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#process[Symbol.asyncDispose]();
  }
}
