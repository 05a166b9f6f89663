/** The whole way of a request as real processes: a node, an agent on one transport, and a raw origin in the test. */

import { RawOrigin } from "./raw-origin.ts";
import { RawSocket } from "./raw-socket.ts";
import { Scratch, startAgent, startNode, type TestAgent, type TestNode } from "./sally.ts";

export const transports = ["websocket", "quic"] as const;
export type Transport = (typeof transports)[number];

export interface PathOptions {
  readonly transport: Transport;
  /** Limits of the node, as in its configuration file. */
  readonly limits?: Readonly<Record<string, number>>;
  /** More settings of the node's configuration file. */
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly agentArgs?: readonly string[];
  /** What the agent forwards to, instead of a raw origin. */
  readonly target?: string | number;
}

/** The public name of the tunnel in these tests. */
export const tunnelName = "demo";

export class VisitorPath implements AsyncDisposable {
  readonly node: TestNode;
  readonly agent: TestAgent;
  readonly origin: RawOrigin;
  readonly #stack: AsyncDisposableStack;
  readonly #visitors: RawSocket[] = [];

  static async open(options: PathOptions): Promise<VisitorPath> {
    await using stack = new AsyncDisposableStack();
    const origin = stack.use(await RawOrigin.listen());
    const scratch = stack.use(new Scratch());
    const config = scratch.join("node.json");
    await Bun.write(config, JSON.stringify({ ...options.settings, limits: options.limits ?? {} }));
    const node = stack.use(await startNode({ args: ["--config", config] }));
    const { transport, target = `127.0.0.1:${origin.port}`, agentArgs: args = [] } = options;
    const agent = stack.use(await startAgent({ node, target, name: tunnelName, transport, args }));
    return new VisitorPath({ node, agent, origin, stack: stack.move() });
  }

  private constructor(parts: { node: TestNode; agent: TestAgent; origin: RawOrigin; stack: AsyncDisposableStack }) {
    this.node = parts.node;
    this.agent = parts.agent;
    this.origin = parts.origin;
    this.#stack = parts.stack;
  }

  /** Host and port that visitors name. */
  get host(): string {
    return `${tunnelName}.localhost:${this.node.port}`;
  }

  /** A visitor's connection; ended by `forget` at the latest. */
  async visit(): Promise<RawSocket> {
    const visitor = await RawSocket.connect(this.node.port);
    this.#visitors.push(visitor);
    return visitor;
  }

  /** Ends the connections of visitors and to the origin, so that the next test meets none of them. */
  forget(): void {
    for (const visitor of this.#visitors.splice(0)) visitor.reset();
    this.origin.forget();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.forget();
    await this.#stack.disposeAsync();
  }
}
