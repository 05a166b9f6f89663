/** An origin client on a fake origin and a clock that tests move. */

import { FakeClock } from "../core/fake-clock.ts";
import { type SallyError, toSallyError } from "../core/errors.ts";
import { type Limits, limits } from "../core/limits.ts";
import type { MemoryDuplexOptions } from "../core/memory-duplex.ts";
import type { Reply } from "../http/exchange.ts";
import type { StreamProtocol } from "../ports/dialer.ts";
import type { TunnelEntry } from "../ports/tunnel-directory.ts";
import { FakeExchange, type FakeExchangeOptions, readText } from "./fake-exchange.ts";
import { FakeOrigin, type OriginScript } from "./fake-origin.ts";
import { OriginClient } from "./origin-client/origin-client.ts";

export const demoTunnel: TunnelEntry = {
  name: "demo",
  state: "live",
  hostHeader: { kind: "preserve" },
  pathPrefix: "",
  originLabel: "localhost:3000",
};

export interface Answer {
  readonly reply: Extract<Reply, { kind: "message" }>;
  readonly text: string;
}

export class TestRig {
  readonly clock = new FakeClock();
  readonly origin: FakeOrigin;
  readonly client: OriginClient;

  constructor(script: OriginScript = {}, pipe: MemoryDuplexOptions = {}, changed: Partial<Limits> = {}) {
    this.origin = new FakeOrigin(script, pipe);
    this.client = new OriginClient({ dialer: this.origin, clock: this.clock, limits: { ...limits, ...changed } });
  }

  send(exchange: FakeExchange, tunnel: TunnelEntry = demoTunnel, protocol: StreamProtocol = "http"): Promise<Reply> {
    return this.client.send({ exchange, tunnel, protocol });
  }

  /** Sends and reads the whole reply. */
  async ask(options: FakeExchangeOptions | FakeExchange = {}, tunnel = demoTunnel): Promise<Answer> {
    const exchange = options instanceof FakeExchange ? options : new FakeExchange(options);
    const reply = await this.send(exchange, tunnel);
    if (reply.kind !== "message") throw new Error("expected a message, got an upgrade");
    return { reply, text: await readText(reply.body) };
  }

  /** The error that a request ends with. */
  async fails(options: FakeExchangeOptions | FakeExchange = {}): Promise<SallyError> {
    try {
      await this.ask(options);
    } catch (thrown) {
      return toSallyError(thrown);
    }
    throw new Error("the request did not fail");
  }
}

/** The code of the error that a promise rejects with. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (thrown) {
    return toSallyError(thrown).code;
  }
  return "no error";
}

/** Lets everything that is due happen. */
export async function settle(): Promise<void> {
  await new Promise<void>((resolve) => setTimeout(resolve, 0));
}
