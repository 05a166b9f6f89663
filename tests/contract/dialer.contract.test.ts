/** The edge over the exit's `Dialer`: a name that changes hands takes its visitors along, whatever was pooled before. */

import { expect, test } from "bun:test";
import { FakeClock } from "../../src/core/fake-clock.ts";
import type { LinkAuth } from "../../src/core/identity.ts";
import { limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import type { MemoryDuplex } from "../../src/core/memory-duplex.ts";
import { createEdge, type Edge } from "../../src/edge/edge.ts";
import { FakeExchange, readText } from "../../src/edge/fake-exchange.ts";
import { settle } from "../../src/edge/test-rig.ts";
import { createExit, type Exit } from "../../src/exit/exit.ts";
import type { Session } from "../../src/ports/session.ts";
import type { LinkStream, Preamble } from "../../src/wire/link.ts";
import { StubLink, streamPair, type StubLinkOptions } from "../../src/wire/testing/stub-link.ts";
import { WindowBudget } from "../../src/wire/window-budget.ts";

/** A link whose agent answers every request itself with its name, those for `/hold` when it is told to. */
class AnsweringLink extends StubLink {
  readonly held: MemoryDuplex[] = [];

  override open(preamble: Preamble): LinkStream {
    super.open(preamble);
    const [near, far] = streamPair(preamble);
    far.accept();
    far.handler = {
      onData: (chunk) => {
        far.consume(chunk.length);
        if (new TextDecoder().decode(chunk).includes("/hold")) this.held.push(far);
        else this.answer(far);
      },
      onEnd: () => far.end(),
      onDrain() {},
      onClose() {},
    };
    return near;
  }

  answer(stream: MemoryDuplex): void {
    const { identity } = this.peer;
    const body = `${identity} ${this.peerProcess}`;
    stream.write(new TextEncoder().encode(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`));
  }
}

class Rig {
  readonly #owners = new Map<string, string>();
  readonly #exit: Exit;
  readonly #edge: Edge;

  /** `isTold`: the edge hears of what happens to claims, as a node's does. */
  constructor(isTold: boolean) {
    const clock = new FakeClock();
    this.#exit = createExit({
      auth: {} as LinkAuth, // the handshake is replaced
      claims: {
        claim: async (_peer, { name = "" }) => ({ ok: true, name }),
        release: (_peer, name) => void this.#owners.delete(name),
        touch() {},
      },
      publicUrl: (name) => `http://${name}.test`,
      findReserved: () => undefined,
      isRevoked: () => false,
      probe: async () => ({ ok: true, rttMs: 1 }),
      clock,
      log: silentLogger,
      limits,
      budget: new WindowBudget(limits.processWindowBudgetBytes),
      random: () => 0,
      onEvent: (event) => {
        if (isTold && (event.event === "released" || event.event === "replaced")) this.#edge.retireTunnel(event.name);
      },
      accept: async (session, _auth, options) => {
        const { link } = session as unknown as { readonly link: StubLink }; // see `linkUp`
        link.options = options;
        return link;
      },
    });
    const { dialer, directory } = this.#exit;
    this.#edge = createEdge({ domain: "localhost", dialer, directory, clock, log: silentLogger, limits });
  }

  async linkUp(options: StubLinkOptions, names: readonly string[]): Promise<AnsweringLink> {
    const link = new AnsweringLink(options);
    this.#exit.acceptSession({ link, remote: link.remote, close() {} } as unknown as Session); // only `accept` looks
    await settle();
    await this.claim(link, names);
    return link;
  }

  async claim(link: StubLink, names: readonly string[]): Promise<void> {
    const hostHeader = { kind: "preserve" } as const;
    const tunnel = { originLabel: "localhost:3000", hostHeader, pathPrefix: "", shared: false };
    const tunnels = names.map((name) => ({ ...tunnel, name }));
    link.receive({ type: "claim", requestId: 1, process: link.peerProcess, tunnels });
    await settle();
  }

  close(name: string): void {
    this.#exit.closeTunnel(name);
  }

  async ask(target = "/", host = "shop.localhost"): Promise<string> {
    const reply = await this.#edge.handler(new FakeExchange({ target, authority: host }));
    return reply.kind === "message" ? await readText(reply.body) : "upgrade";
  }
}

const losses: Record<string, (rig: Rig, mallory: StubLink) => Promise<string>> = {
  "is released, and claimed by another owner": async (rig, mallory) => {
    mallory.receive({ type: "release", names: ["shop"] });
    await rig.linkUp({ identity: "bob" }, ["shop"]);
    return "bob p1";
  },
  "is closed by the admin, and claimed by another owner": async (rig) => {
    rig.close("shop");
    await rig.linkUp({ identity: "bob" }, ["shop"]);
    return "bob p1";
  },
  "goes to another owner while the old one is live": async (rig) => {
    await rig.linkUp({ identity: "bob" }, ["shop"]);
    return "bob p1";
  },
  "goes to a newer process of its owner": async (rig) => {
    await rig.linkUp({ identity: "mallory", process: "p2" }, ["shop"]);
    return "mallory p2";
  },
};

for (const [what, lose] of Object.entries(losses)) {
  for (const isTold of [true, false]) {
    test(`a name that ${what} is served by nobody else, ${isTold ? "" : "not even where the edge is not told, "}from then on`, async () => {
      const rig = new Rig(isTold);
      const mallory = await rig.linkUp({ identity: "mallory" }, ["shop", "other"]);
      const running = rig.ask("/hold");
      await settle();
      expect(await rig.ask()).toBe("mallory p1"); // idles when the name is lost
      const next = await lose(rig, mallory);
      mallory.answer(mallory.held[0]!); // the one above
      expect(await running).toBe("mallory p1");
      await settle();
      const seen = [];
      for (let n = 0; n < 5; n++) seen.push(await rig.ask());
      expect(seen).toEqual(Array.from({ length: 5 }, () => next));
      expect(await rig.ask("/", "other.localhost")).toBe("mallory p1");
    });
  }
}
