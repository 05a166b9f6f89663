/** Idle connections to origins keep nobody out: they make room when a link, or the node's memory for streams, is full. */

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { SallyProcess, Scratch, startNode, type TestNode } from "../support/sally.ts";
import { transports, type Transport } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

/** An origin that says on which connection a request came, and answers when it is let. */
class HeldOrigin implements AsyncDisposable {
  #arrived: (() => void)[] = [];
  #held: (() => void)[] = [];
  readonly #server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request, server) => {
      if (new URL(request.url).pathname === "/held") await this.#hold();
      return new Response(String(server.requestIP(request)?.port));
    },
  });

  get port(): number {
    return this.#server.port!; // it listens on TCP
  }

  /** So many requests are here at once. */
  async holds(count: number): Promise<void> {
    while (this.#held.length < count) await new Promise<void>((resolve) => this.#arrived.push(resolve));
  }

  async #hold(): Promise<void> {
    const released = new Promise<void>((resolve) => this.#held.push(resolve));
    for (const look of this.#arrived.splice(0)) look();
    await released;
  }

  /** Answers the request that came first. */
  releaseOne(): void {
    this.#held.shift()?.();
  }

  release(): void {
    for (const answer of this.#held.splice(0)) answer();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

/** A node, and one agent that serves the tunnels `one` and `two` from the same origin. */
class TwoTunnels implements AsyncDisposable {
  readonly origin: HeldOrigin;
  readonly #node: TestNode;
  readonly #stack: AsyncDisposableStack;

  static async open(transport: Transport, limits: Readonly<Record<string, number>>): Promise<TwoTunnels> {
    await using stack = new AsyncDisposableStack();
    const origin = stack.use(new HeldOrigin());
    const scratch = stack.use(new Scratch());
    const [nodeConfig, config] = [scratch.join("node.json"), scratch.join("sally.yaml")];
    writeFileSync(nodeConfig, JSON.stringify({ limits }));
    const node = stack.use(await startNode({ args: ["--config", nodeConfig] }));
    const tunnels = ["one", "two"].map((name) => ({ name, target: origin.port }));
    const settings = { edge: node.tunnel, tokenFile: node.tokenFile, transport, tunnels };
    writeFileSync(config, JSON.stringify(settings));
    const env = { SALLY_HOME: scratch.join("home") };
    const agent = stack.use(new SallyProcess(["start", "-c", config, "--json"], { env }));
    for (const { name } of tunnels) await agent.waitFor((event) => event.event === "tunnel" && event["name"] === name);
    return new TwoTunnels({ origin, node, stack: stack.move() });
  }

  private constructor(parts: { origin: HeldOrigin; node: TestNode; stack: AsyncDisposableStack }) {
    this.origin = parts.origin;
    this.#node = parts.node;
    this.#stack = parts.stack;
  }

  /** Status, and the connection to the origin or what the node says. */
  async ask(tunnel: "one" | "two", path: string): Promise<string> {
    const headers = { host: `${tunnel}.localhost:${this.#node.port}` };
    const reply = await fetch(`http://127.0.0.1:${this.#node.port}${path}`, { headers });
    return `${reply.status} ${reply.headers.get("sally-error") ?? (await reply.text())}`;
  }

  /** So many requests that are under way together, each on a connection of its own. */
  async fill(count: number): Promise<string[]> {
    const asked = Array.from({ length: count }, () => this.ask("one", "/held"));
    await this.origin.holds(count);
    this.origin.release();
    return await Promise.all(asked);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

describe.each([...transports])("with an agent over %s", (transport) => {
  test("a link that is full of idle streams takes a request for another tunnel at once, and gives up one for it", async () => {
    await using path = await TwoTunnels.open(transport, { streamsPerLink: 4 });
    const before = await path.fill(4);
    expect(new Set(before).size).toBe(4);
    expect(await path.ask("two", "/")).toStartWith("200 ");
    const after = await path.fill(3);
    expect(before).toEqual(expect.arrayContaining(after));
  });

  test("a request that waits for memory goes on over the first connection of its tunnel that is free", async () => {
    // Each stream takes a window of 64 KiB, and one owner may hold four times what it leaves free.
    await using path = await TwoTunnels.open(transport, { processWindowBudgetBytes: 5 * 64 * 1_024 });
    const first = Array.from({ length: 4 }, () => path.ask("one", "/held"));
    await path.origin.holds(4);
    const waiting = path.ask("one", "/held");
    path.origin.releaseOne();
    const answered = await Promise.race(first);
    await path.origin.holds(4);
    path.origin.release();
    expect(await waiting).toBe(answered);
    const before = await Promise.all(first);
    expect(await path.ask("two", "/")).toStartWith("200 ");
    const after = await path.fill(3);
    expect(before).toEqual(expect.arrayContaining(after));
  });
});
