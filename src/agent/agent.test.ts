import { describe, expect, test } from "bun:test";
import { settle, streamPair, StubLink, type StubLinkOptions } from "../wire/testing/stub-link.ts";
import { parseOriginTarget } from "../config/origin-target.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { SallyError, type ErrorCode } from "../core/errors.ts";
import type { LinkAuth } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { memoryDuplexPair, type MemoryDuplex } from "../core/memory-duplex.ts";
import type { Connector, Session } from "../ports/session.ts";
import type { ClaimResult, ControlMessage } from "../wire/messages.ts";
import { WindowBudget } from "../wire/window-budget.ts";
import { createAgent, type AgentOptions } from "./agent.ts";
import type { AgentEvent } from "./events.ts";
import type { AgentTunnel } from "./tunnel-set.ts";

const auth = { process: "p1" } as LinkAuth; // the handshake is replaced

function tunnel(name: string | undefined, target = "3000"): AgentTunnel {
  return {
    name,
    stableKey: "key",
    target: parseOriginTarget(target),
    hostHeader: { kind: "preserve" },
    isShared: false,
  };
}

/** An agent, and a pretended node that answers claims and probes unless told otherwise. */
function setUp(overrides: Partial<AgentOptions> = {}) {
  const clock = new FakeClock();
  const events: AgentEvent[] = [];
  const links: StubLink[] = [];
  const origins: MemoryDuplex[] = [];
  const dialled: string[] = [];
  const node = {
    connectError: undefined as SallyError | undefined,
    linkOptions: {} as StubLinkOptions,
    probeOk: true,
    answersProbes: true,
    answersClaims: true,
    onClaim: undefined as (() => void) | undefined,
    originError: undefined as SallyError | undefined,
    results: (names: readonly (string | undefined)[]): ClaimResult[] =>
      names.map((name) => ({ ok: true, name: name ?? "derived", url: `http://${name ?? "derived"}.test` })),
  };
  const respond = (link: StubLink, message: ControlMessage): void => {
    if (message.type === "claim") node.onClaim?.();
    if (message.type === "claim" && node.answersClaims) {
      const results = node.results(message.tunnels.map(({ name }) => name));
      queueMicrotask(() => link.receive({ type: "claimed", requestId: message.requestId, results }));
    } else if (message.type === "probe" && node.answersProbes) {
      const { requestId, name } = message;
      const answer = node.probeOk ? { ok: true, rttMs: 1 } : { ok: false, code: "LINK_LOST" as const };
      queueMicrotask(() => link.receive({ type: "probed", requestId, name, ...answer }));
    }
  };
  const connector: Connector = {
    async connect() {
      if (node.connectError !== undefined) throw node.connectError;
      return { close() {}, closed: Promise.resolve(undefined) } as unknown as Session; // `connectLink` is replaced below
    },
  };
  const agent = createAgent({
    nodes: [{ label: "https://node", connector }],
    tunnels: [tunnel("demo")],
    auth: () => auth,
    agentVersion: "test",
    readLoad: () => ({ loadAverage: 0, processors: 1 }),
    clock,
    log: silentLogger,
    limits,
    budget: new WindowBudget(limits.processWindowBudgetBytes),
    onEvent: (event) => void events.push(event),
    random: () => 0,
    async dialOrigin(target) {
      dialled.push(target.label);
      if (node.originError !== undefined) throw node.originError;
      const [near, far] = memoryDuplexPair();
      origins.push(far);
      return near;
    },
    connectLink: async (_session, _auth, options) => {
      const link = new StubLink(node.linkOptions);
      link.options = options;
      link.onSend = (message) => respond(link, message);
      links.push(link);
      return link;
    },
    ...overrides,
  });
  const named = <K extends AgentEvent["event"]>(kind: K) =>
    events.filter((event) => event.event === kind) as Extract<AgentEvent, { readonly event: K }>[]; // by the filter
  const advance = async (ms: number): Promise<void> => {
    for (let done = 0; done < ms; done += 50) {
      clock.advance(50);
      await settle();
    }
  };
  return { agent, advance, clock, connector, dialled, events, links, named, node, origins };
}

type Rig = ReturnType<typeof setUp>;

async function started(overrides: Partial<AgentOptions> = {}): Promise<Rig> {
  const rig = setUp(overrides);
  rig.agent.start();
  await settle(50);
  return rig;
}

/** The clock of a laptop: `sleep` is an hour in which it did not run. */
function sleepyClock() {
  const fake = new FakeClock();
  let offsetMs = 0;
  const clock = {
    wallMs: () => fake.wallMs() + offsetMs,
    nowMs: () => fake.nowMs(),
    after: (delayMs: number, callback: () => void) => fake.after(delayMs, callback),
  };
  const sleep = async (): Promise<void> => {
    offsetMs += 3_600_000;
    fake.advance(1_000);
    await settle(50);
  };
  return { fake, clock, sleep };
}

describe("an agent's link", () => {
  test("is up after the claim, the tunnel after the probe", async () => {
    const { named, agent, links } = await started();
    expect(named("link")).toEqual([{ event: "link", state: "up", transport: "memory", node: "https://node" }]);
    expect(named("tunnel")).toEqual([{ event: "tunnel", name: "demo", url: "http://demo.test", transport: "memory" }]);
    expect(links[0]!.sentOf("claim")[0]!.tunnels).toMatchObject([{ name: "demo", originLabel: "localhost:3000" }]);
    expect(agent.status().link).toMatchObject({ node: "https://node" });
    await agent.close();
  });

  test("a probe that fails is repeated, and the tunnel is not called up before", async () => {
    const rig = setUp();
    rig.node.probeOk = false;
    rig.agent.start();
    await settle(50);
    expect(rig.named("tunnel")).toEqual([]);
    expect(rig.named("probe-failed")).toMatchObject([{ name: "demo", code: "LINK_LOST" }]);
    rig.node.probeOk = true;
    await rig.advance(300);
    expect(rig.named("tunnel")).toHaveLength(1);
  });

  test("a probe that fails for ever is repeated for ever, ever less often up to a bound", async () => {
    const rig = setUp();
    rig.node.probeOk = false;
    rig.agent.start();
    await settle(50);
    const failedAtMs = [rig.clock.nowMs()];
    while (failedAtMs.length < 9) {
      await rig.advance(50);
      if (rig.named("probe-failed").length > failedAtMs.length) failedAtMs.push(rig.clock.nowMs());
    }
    const pauses = failedAtMs.slice(1).map((atMs, i) => atMs - failedAtMs[i]!);
    expect(pauses.slice(0, 2)).toEqual([limits.probeRetryMinMs, 2 * limits.probeRetryMinMs]);
    expect(pauses.slice(-3)).toEqual(Array.from({ length: 3 }, () => limits.probeRetryMaxMs));
  });

  test("a probe that nobody answers counts as failed after twice its time, and is repeated", async () => {
    const rig = setUp();
    rig.node.answersProbes = false;
    rig.agent.start();
    await settle(50);
    await rig.advance(2 * limits.probeMs - 50);
    expect(rig.named("probe-failed")).toEqual([]);
    await rig.advance(50);
    expect(rig.named("probe-failed")).toMatchObject([{ name: "demo", code: "CONNECT_TIMEOUT" }]);
    rig.node.answersProbes = true;
    await rig.advance(300);
    expect(rig.named("tunnel")).toHaveLength(1);
  });

  test("a node that cannot be reached at first is tried again for ever, ever more slowly", async () => {
    const rig = setUp();
    rig.node.connectError = new SallyError("CONNECT_FAILED");
    rig.agent.start();
    await rig.advance(60_000);
    const delays = rig.named("retry").map(({ delayMs }) => delayMs);
    expect(delays.slice(0, 4)).toEqual([100, 200, 400, 800]);
    expect(Math.max(...delays)).toBe(limits.reconnectBackoffMaxMs / 2);
    expect(rig.named("fatal")).toEqual([]);
    rig.node.connectError = undefined;
    await rig.advance(8_000);
    expect(rig.named("tunnel")).toHaveLength(1);
  });

  test("a lost link is replaced, and the tunnel proved again", async () => {
    const { links, named, advance } = await started();
    await advance(20_000);
    links[0]!.close(new SallyError("LINK_IDLE"));
    await advance(200);
    expect(links).toHaveLength(2);
    expect(named("link").map(({ state }) => state)).toEqual(["up", "down", "up"]);
    expect(named("tunnel")).toHaveLength(2);
  });

  test("a node that takes links and drops them is not asked in a tight loop", async () => {
    const rig = await started();
    for (let i = 0; i < 600; i++) {
      rig.links.at(-1)!.close();
      await rig.advance(50);
    }
    expect(rig.links.length).toBeLessThan(15);
  });

  test.each([
    ["TOKEN_INVALID", 3],
    ["NAME_TAKEN", 4],
    ["CA_MISMATCH", 3],
  ] as const)("%s ends the agent with exit code %d", async (code: ErrorCode, exitCode: number) => {
    const rig = setUp();
    rig.node.connectError = new SallyError(code);
    rig.agent.start();
    await settle(50);
    expect(rig.named("fatal")).toMatchObject([{ exitCode }]);
    expect(rig.named("fatal")[0]!.error.code).toBe(code);
    expect(rig.clock.pending).toBe(0);
  });

  test("an unanswered claim is tried on a new link", async () => {
    const rig = setUp();
    rig.node.answersClaims = false;
    rig.agent.start();
    await settle(50);
    await rig.advance(limits.handshakeMs);
    expect(rig.links[0]!.isClosed).toBe(true);
    rig.node.answersClaims = true;
    await rig.advance(500);
    expect(rig.named("tunnel")).toHaveLength(1);
  });

  test("a drained node is left at once: the new link takes over, the old one finishes its streams", async () => {
    const { links, advance } = await started();
    await advance(20_000);
    links[0]!.receive({ type: "drain", graceMs: 5_000 });
    await settle(50);
    expect(links).toHaveLength(2);
    const [, late] = streamPair({ tunnel: "demo", protocol: "http" });
    links[0]!.options!.onStream(late, links[0]!);
    await settle();
    expect(late.isAccepted).toBe(true);
    await advance(5_000);
    expect(links[0]!.isDraining).toBe(true);
    expect(links[0]!.isClosed).toBe(false);
  });

  test("a node that drained is asked for its successor often, while that may come, and then less so", async () => {
    const rig = await started();
    await rig.advance(20_000);
    rig.node.connectError = new SallyError("CONNECT_FAILED");
    const graceMs = 5_000;
    rig.links[0]!.receive({ type: "drain", graceMs });
    rig.links[0]!.close();
    await rig.advance(graceMs + limits.hurryAfterGraceMs);
    const hurried = rig.named("retry").map(({ delayMs }) => delayMs);
    expect(Math.max(...hurried)).toBe(limits.hurriedRetryMs / 2); // half of it is random
    await rig.advance(2 * limits.reconnectBackoffMaxMs);
    expect(rig.named("retry").at(-1)?.delayMs).toBe(limits.reconnectBackoffMaxMs / 2);
  });

  test("shakes hands before the node has answered, and keeps the session that is chosen", async () => {
    const session = (): Session => ({ close() {}, closed: Promise.resolve(undefined) }) as unknown as Session; // the handshake is replaced
    const [early, loser, late] = [session(), session(), session()];
    for (const chosen of [early, late]) {
      const shaken: Session[] = [];
      const links: StubLink[] = [];
      const connector: Connector = {
        async connect(_signal, greet) {
          greet?.(early);
          greet?.(loser);
          expect(shaken).toEqual([early, loser]);
          return chosen;
        },
      };
      const { agent } = await started({
        nodes: [{ label: "n", connector }],
        async connectLink(given, _auth, options) {
          shaken.push(given);
          if (given === loser) throw new SallyError("CANCELLED");
          const link = new StubLink({});
          link.options = options;
          links.push(link);
          return link;
        },
      });
      expect(shaken).toEqual(chosen === early ? [early, loser] : [early, loser, late]);
      expect(links.map((link) => link.sentOf("claim").length)).toEqual(chosen === early ? [1] : [0, 1]);
      expect(agent.status().link).toBeUndefined(); // nobody answers the claim
    }
  });

  test("several nodes are tried in turn", async () => {
    const rig = setUp();
    const asked: string[] = [];
    const at = (label: string, error?: SallyError) => ({
      label,
      connector: {
        connect: (signal: AbortSignal) => {
          asked.push(label);
          return error === undefined ? rig.connector.connect(signal) : Promise.reject(error);
        },
      },
    });
    const nodes = [at("one", new SallyError("CONNECT_FAILED")), at("two")];
    const two = await started({ nodes });
    await two.advance(500);
    expect(asked.slice(0, 2)).toEqual(["one", "two"]);
    expect(two.named("link")).toMatchObject([{ state: "up", node: "two" }]);
  });

  test("after a sleep a new link takes over", async () => {
    const { fake, clock, sleep } = sleepyClock();
    const { links } = await started({ clock });
    await sleep();
    expect(links).toHaveLength(2);
    fake.advance(limits.linkRetireMs - 1);
    expect(links[0]!.isDraining).toBe(false);
    fake.advance(1);
    expect(links[0]!.isDraining).toBe(true);
  });

  describe("that the node closes, since the next one has the names", () => {
    /** Linked anew after a sleep; the node closes the first link as it sees the claim over the next. */
    async function linkedAnew(answersClaims: boolean): Promise<Rig & { sleep(): Promise<void> }> {
      const { clock, sleep } = sleepyClock();
      const rig = await started({ clock });
      rig.node.onClaim = () => rig.links.at(-2)?.close();
      rig.node.answersClaims = answersClaims;
      await sleep();
      return { ...rig, sleep };
    }

    test("is no loss", async () => {
      const { agent, links, named, sleep } = await linkedAnew(true);
      await sleep();
      expect(links.map(({ isClosed }) => isClosed)).toEqual([true, true, false]);
      expect(named("link").map(({ state }) => state)).toEqual(["up", "up", "up"]);
      expect(named("retry")).toEqual([]);
      await agent.close();
    });

    test("is a loss when that one fails", async () => {
      const { agent, links, named } = await linkedAnew(false);
      expect(named("link").map(({ state }) => state)).toEqual(["up"]);
      links[1]!.close(new SallyError("LINK_LOST"));
      await settle(50);
      expect(named("link").map(({ state }) => state)).toEqual(["up", "down"]);
      expect(agent.status().link).toBeUndefined();
      await agent.close();
    });
  });

  test("close waits for running streams up to the grace, and leaves no timer", async () => {
    const { agent, links, clock } = await started();
    let isDone = false;
    const closing = agent.close(3_000).then(() => (isDone = true));
    await settle(50);
    expect(links[0]!.isDraining).toBe(true);
    expect(isDone).toBe(false);
    clock.advance(3_000);
    await closing;
    expect(links[0]!.isClosed).toBe(true);
    expect(clock.pending).toBe(0);
  });
});

test("a closing agent waits only so long for what it said last", async () => {
  const stuck = { close() {}, closed: new Promise(() => {}) } as unknown as Session; // a node that reads nothing
  const { agent, clock } = await started({ nodes: [{ label: "n", connector: { connect: async () => stuck } }] });
  let isDone = false;
  const closing = agent.close().then(() => (isDone = true));
  await settle(50);
  clock.advance(limits.agentLastWordsMs - 1);
  await settle(50);
  expect(isDone).toBe(false);
  clock.advance(1);
  await closing;
  expect(clock.pending).toBe(0);
});

test("one whose streams were busy waits for that as long as its grace goes", async () => {
  const stuck = { close() {}, closed: new Promise(() => {}) } as unknown as Session; // a slow line
  const { agent, clock, links } = await started({ nodes: [{ label: "n", connector: { connect: async () => stuck } }] });
  links[0]!.streamCount = 1;
  let isDone = false;
  const closing = agent.close(3_000).then(() => (isDone = true));
  await settle(50);
  clock.advance(1_000);
  links[0]!.close(); // by the node: every stream is done
  await settle(50);
  clock.advance(1_999);
  await settle(50);
  expect(isDone).toBe(false);
  clock.advance(1);
  await closing;
  expect(clock.pending).toBe(0);
});

describe("a return to QUIC", () => {
  test("is tried every so often while the link is WebSocket; the old link is drained after the claim", async () => {
    let works = false;
    const rig = setUp();
    const quicConnector: Connector = {
      async connect(signal) {
        if (!works) throw new SallyError("CONNECT_FAILED");
        const session = await rig.connector.connect(signal);
        Object.assign(two.node.linkOptions, { transport: "quic" });
        return session;
      },
    };
    const two = setUp({ nodes: [{ label: "n", connector: rig.connector, quicConnector }] });
    two.node.linkOptions = { transport: "websocket" };
    two.agent.start();
    await settle(50);
    await two.advance(limits.quicReturnEveryMs + 100);
    expect(two.links).toHaveLength(1);
    works = true;
    await two.advance(limits.quicReturnEveryMs + 5_000);
    expect(two.links.map(({ transport }) => transport)).toEqual(["websocket", "quic"]);
    expect(two.links[0]!.isDraining).toBe(true);
    expect(two.named("link").map(({ state, transport }) => `${state} ${transport}`)).toEqual([
      "up websocket",
      "up quic",
    ]);
    await two.advance(limits.quicReturnEveryMs * 3);
    expect(two.links).toHaveLength(2);
  });

  test("gives way when the link that it would replace is in doubt", async () => {
    const rig = setUp();
    const aborted: unknown[] = [];
    const quicConnector: Connector = {
      connect: (signal) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            aborted.push(signal.reason);
            reject(signal.reason);
          });
        }),
    };
    const two = setUp({ nodes: [{ label: "n", connector: rig.connector, quicConnector }] });
    two.node.linkOptions = { transport: "websocket" };
    two.agent.start();
    await settle(50);
    await two.advance(limits.quicReturnEveryMs + 100);
    two.links[0]!.isInDoubt = true;
    two.links[0]!.options!.onDoubt!(two.links[0]!);
    await settle(50);
    expect(aborted).toHaveLength(1);
    expect(two.links).toHaveLength(2);
  });
});

test("QUIC that dies early again and again is returned to ever less often, up to a bound", async () => {
  const rig = setUp();
  const over = (transport: "quic" | "websocket"): Connector => ({
    async connect(signal) {
      two.node.linkOptions = { transport };
      return rig.connector.connect(signal);
    },
  });
  const nodes = [{ label: "n", connector: over("websocket"), quicConnector: over("quic") }];
  const two = setUp({ nodes, limits: { ...limits, quicReturnEveryMs: 1_000, quicPatienceMax: 4 } });
  two.agent.start();
  await settle(50);
  const waits: number[] = [];
  for (let round = 0; round < 5; round++) {
    await two.advance(100); // a pause before the next link
    while (two.links.at(-1)!.transport !== "websocket") await two.advance(50);
    const sinceMs = two.clock.nowMs();
    while (two.links.at(-1)!.transport !== "quic") await two.advance(50);
    waits.push(Math.round((two.clock.nowMs() - sinceMs) / 1_000));
    two.links.at(-1)!.close(new SallyError("LINK_LOST"));
    await settle(50);
  }
  expect(waits).toEqual([1, 2, 4, 4, 4]);
});

describe("a link that answers nothing", () => {
  test("is replaced before it is given up, over whatever works, and finishes what it can", async () => {
    const { links, named, advance, node } = await started();
    node.linkOptions = { transport: "websocket" };
    links[0]!.isInDoubt = true;
    links[0]!.options!.onDoubt!(links[0]!);
    await settle(50);
    expect(links.map(({ transport }) => transport)).toEqual(["memory", "websocket"]);
    expect(links.map((link) => link.sentOf("claim")[0]!.links)).toEqual([[], [links[0]!.id]]);
    expect(links[0]!.isClosed).toBe(false);
    expect(named("tunnel").map(({ transport }) => transport)).toEqual(["memory", "websocket"]);
    links[0]!.options!.onDoubt!(links[0]!); // of no interest any more
    await advance(5_100);
    expect(links[0]!.isDraining).toBe(true);
    expect(links).toHaveLength(2);
  });

  test("has another tried again and again while it stays silent, a second longer each time", async () => {
    const { links, advance, connector, clock } = await started();
    const begunMs: number[] = [];
    let isCut = true;
    const { connect } = connector;
    connector.connect = (signal) => {
      begunMs.push(clock.nowMs());
      if (!isCut) return connect(signal);
      return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    };
    links[0]!.isInDoubt = true;
    links[0]!.options!.onDoubt!(links[0]!);
    await advance(3_400);
    expect(begunMs.map((atMs) => atMs - begunMs[0]!)).toEqual([0, 1_100, 3_300]);
    links[0]!.rttMs = 250; // from now on a try takes longer than that
    isCut = false;
    await advance(3_300);
    expect(links).toHaveLength(2);
    expect([links[0]!.isBorne, links[0]!.isClosed]).toEqual([true, false]);
    isCut = true;
    links[1]!.rttMs = 250;
    links[1]!.isInDoubt = true;
    links[1]!.options!.onDoubt!(links[1]!);
    await advance(2_200);
    expect(begunMs.slice(4).map((atMs) => atMs - begunMs[4]!)).toEqual([0, 2_100]);
  });

  test("is heard again: nothing else is tried", async () => {
    const { links, advance, node } = await started();
    node.connectError = new SallyError("CONNECT_FAILED");
    links[0]!.isInDoubt = true;
    links[0]!.options!.onDoubt!(links[0]!);
    await advance(100);
    links[0]!.isInDoubt = false;
    node.connectError = undefined;
    await advance(5_000);
    expect(links).toHaveLength(1);
  });

  test("is replaced for good once the node was asked for the names over another, however late it answers", async () => {
    const { agent, links, advance, node } = await started();
    node.answersClaims = false;
    links[0]!.isInDoubt = true;
    links[0]!.options!.onDoubt!(links[0]!);
    await advance(limits.doubtTryMs + 100);
    // The node gave the names to the new link, and the old one is heard again, since the node says GOAWAY over it.
    links[0]!.isInDoubt = false;
    const { requestId } = links[1]!.sentOf("claim")[0]!;
    links[1]!.receive({ type: "claimed", requestId, results: node.results(["demo"]) });
    node.answersClaims = true;
    await advance(1_000);
    expect(links).toHaveLength(2);
    expect(links[1]!.isClosed).toBe(false);
    expect(links[0]!.isBorne).toBe(true);
    await agent.close();
  });

  test("is replaced although the other was lost while it claimed: the names may have gone with it", async () => {
    const { agent, links, advance, node } = await started();
    node.answersClaims = false;
    links[0]!.isInDoubt = true;
    links[0]!.options!.onDoubt!(links[0]!);
    await settle(50);
    links[0]!.isInDoubt = false;
    links[1]!.close(new SallyError("LINK_LOST"));
    node.answersClaims = true;
    await advance(1_000);
    expect(links).toHaveLength(3);
    expect([links[0]!.isBorne, links[2]!.isClosed]).toEqual([true, false]);
    await agent.close();
  });

  test("that ends while it is borne is not kept", async () => {
    const { agent, links, named } = await started();
    links[0]!.bear = () => {
      links[0]!.isClosed = true;
      links[0]!.options!.onClose(new SallyError("LINK_IDLE"), links[0]!);
    };
    links[0]!.isInDoubt = true;
    links[0]!.options!.onDoubt!(links[0]!);
    await settle(50);
    expect(named("link").map(({ state }) => state)).toEqual(["up", "up"]);
    let isClosed = false;
    void agent.close(5_000).then(() => (isClosed = true));
    await settle(50);
    links[1]!.close();
    await settle(50);
    expect(isClosed).toBe(true);
  });

  test("stays when nothing else works either", async () => {
    const { links, advance, connector } = await started();
    let tries = 0;
    connector.connect = async () => {
      tries++;
      throw new SallyError("CONNECT_FAILED");
    };
    links[0]!.isInDoubt = true;
    links[0]!.options!.onDoubt!(links[0]!);
    await advance(5_100);
    expect(tries).toBe(10); // after 0, 0.1, 0.2, 0.3 … seconds
    expect(links).toHaveLength(1);
    expect(links[0]!.isDraining).toBe(false);
  });
});

test("a node that drains is left at once, although a return to QUIC is being tried", async () => {
  const rig = setUp();
  const quicConnector: Connector = {
    connect: (signal) =>
      new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true })),
  };
  const two = setUp({ nodes: [{ label: "n", connector: rig.connector, quicConnector }] });
  two.node.linkOptions = { transport: "websocket" };
  two.agent.start();
  await settle(50);
  await two.advance(limits.quicReturnEveryMs + 100);
  two.links[0]!.receive({ type: "drain", graceMs: 1_000 });
  await settle(50);
  expect(two.links).toHaveLength(2);
});

describe("names", () => {
  test("a tunnel that is replaced is dropped; without another the agent ends with code 4", async () => {
    const { events, links, named, advance } = await started({ tunnels: [tunnel("a"), tunnel("b")] });
    links[0]!.receive({ type: "replaced", names: ["a"] });
    expect(named("refused")).toMatchObject([{ name: "a" }]);
    expect(named("fatal")).toEqual([]);
    links[0]!.receive({ type: "replaced", names: ["b"] });
    expect(named("fatal")).toMatchObject([{ exitCode: 4 }]);
    expect(events.slice(-2)).toMatchObject([{ event: "link", state: "down" }, { event: "fatal" }]);
    await advance(60_000);
    expect(links).toHaveLength(1);
  });

  test("a kept connection takes no request of a tunnel that was replaced, and goes on for others", async () => {
    const turn: (() => void)[] = [];
    const schedule = (task: () => void): void => void turn.push(task);
    const { agent, links, origins, dialled } = await started({ tunnels: [tunnel("a"), tunnel("b", "4000")], schedule });
    const streams = ["a", "b"].map((name) => streamPair({ tunnel: name, protocol: "http" }));
    for (const [, far] of streams) links[0]!.options!.onStream(far, links[0]!);
    await settle();
    const seen = new Map<string, string>();
    const serving = origins.slice(-2).map((origin, i) => {
      const label = dialled.at(i - 2)!; // the last two dials
      origin.handler = {
        onData: (chunk) => {
          origin.consume(chunk.length);
          seen.set(label, (seen.get(label) ?? "") + new TextDecoder().decode(chunk));
          origin.write(new TextEncoder().encode("reply"));
        },
        onEnd() {},
        onDrain() {},
        onClose() {},
      };
      return origin;
    });
    const request = async (target: string): Promise<void> => {
      for (const [near] of streams) near.write(new TextEncoder().encode(`GET ${target} HTTP/1.1\r\n\r\n`));
      await settle();
      for (const task of turn.splice(0)) task();
      await settle();
    };
    await request("/1");
    links[0]!.receive({ type: "replaced", names: ["a"] });
    await request("/2");
    expect(serving).toHaveLength(2);
    expect(seen.get("localhost:3000")).toBe("GET /1 HTTP/1.1\r\n\r\n");
    expect(seen.get("localhost:4000")).toBe("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    expect(streams[0]![0].deliveredBytes).toBe(19);
    await agent.close();
  });

  test("one refused name leaves the others up; all refused is fatal", async () => {
    const refusing = setUp({ tunnels: [tunnel("a"), tunnel("b")] });
    refusing.node.results = () => [
      { ok: false, name: "a", code: "NAME_TAKEN", message: "taken" },
      { ok: true, name: "b", url: "http://b.test" },
    ];
    refusing.agent.start();
    await settle(50);
    expect(refusing.named("tunnel").map(({ name }) => name)).toEqual(["b"]);
    expect(refusing.agent.status().tunnels[0]!.refusal?.code).toBe("NAME_TAKEN");
    const alone = setUp();
    alone.node.results = () => [{ ok: false, code: "NAME_IN_USE", message: "used" }];
    alone.agent.start();
    await settle(50);
    expect(alone.named("fatal")).toMatchObject([{ exitCode: 4 }]);
    expect(alone.links[0]?.closeError?.code).toBe("NAME_IN_USE"); // the node hears why its link ends
  });

  test("claims that would be too large for a message, as they are or answered, are several", async () => {
    const tunnels = Array.from({ length: limits.claimTunnels + 1 }, (_, n) => tunnel(`t${n}`));
    const many = setUp({ tunnels });
    many.agent.start();
    await settle(600);
    expect(many.links[0]!.sentOf("claim").map((claim) => claim.tunnels.length)).toEqual([limits.claimTunnels, 1]);
    expect(many.named("tunnel")).toHaveLength(tunnels.length);
    const target = parseOriginTarget(`http://localhost:3000/${"a".repeat(limits.pathPrefixChars - 1)}`);
    const long = setUp({ tunnels: Array.from({ length: 40 }, (_, n) => ({ ...tunnel(`t${n}`), target })) });
    long.agent.start();
    await settle(600);
    const claims = long.links[0]!.sentOf("claim");
    expect(claims.flatMap((claim) => claim.tunnels)).toHaveLength(40);
    for (const claim of claims) expect(JSON.stringify(claim).length).toBeLessThan(limits.controlMessageBytes);
    expect(claims.length).toBeGreaterThan(1);
  });

  test("a name that cannot be had just now is asked for again", async () => {
    const rig = setUp({ tunnels: [tunnel("a"), tunnel("b")] });
    let broken = true;
    rig.node.results = (names) =>
      names.map((name) =>
        name === "a" && broken
          ? { ok: false, name, code: "STORE_FAILED", message: "disk" }
          : { ok: true, name: name!, url: "http://x" },
      );
    rig.agent.start();
    await settle(50);
    broken = false;
    await rig.advance(6_000);
    expect(rig.named("tunnel").map(({ name }) => name)).toEqual(["b", "a"]);
  });

  test("a revocation ends the agent", async () => {
    const { links, named } = await started();
    links[0]!.receive({ type: "revoked", message: "" });
    expect(named("fatal")).toMatchObject([{ exitCode: 3 }]);
  });
});

describe("certificates", () => {
  test("a certificate that the node finds invalid is renewed, and the link tried at once", async () => {
    const rig = setUp();
    let renewals = 0;
    const { node } = rig;
    const certificate = {
      validity: () => ({ notBeforeMs: 0, notAfterMs: Number.MAX_SAFE_INTEGER }),
      renew: async () => {
        renewals++;
        two.node.connectError = undefined;
      },
    };
    expect(node.connectError).toBeUndefined();
    const two = setUp({ certificate });
    two.node.connectError = new SallyError("CERTIFICATE_INVALID");
    two.agent.start();
    await settle(80);
    expect(renewals).toBe(1);
    expect(two.named("tunnel")).toHaveLength(1);
    expect(two.named("retry")).toEqual([]);
  });

  test("a renewal that the node refuses is fatal", async () => {
    const certificate = {
      validity: () => ({ notBeforeMs: 0, notAfterMs: 1 }),
      renew: () => Promise.reject(new SallyError("CERTIFICATE_REVOKED")),
    };
    const { named } = await started({ certificate });
    expect(named("fatal")).toMatchObject([{ exitCode: 3 }]);
  });
});

describe("streams", () => {
  const get = { tunnel: "demo", protocol: "http" } as const;

  test("go to the configured origin, whatever the name; others are refused", async () => {
    const { links, dialled } = await started();
    const [, stream] = streamPair(get);
    links[0]!.options!.onStream(stream, links[0]!);
    const [, strange] = streamPair({ tunnel: "localhost:22", protocol: "raw" });
    links[0]!.options!.onStream(strange, links[0]!);
    await settle();
    expect(stream.isAccepted).toBe(true);
    expect(strange.refusal?.code).toBe("TUNNEL_UNKNOWN");
    expect(new Set(dialled)).toEqual(new Set(["localhost:3000"]));
  });

  test("that come before the node said the name are held until it does", async () => {
    const rig = setUp({ tunnels: [tunnel(undefined)] });
    rig.node.answersClaims = false;
    rig.agent.start();
    await settle(50);
    const link = rig.links[0]!;
    const [ours, strangers] = [
      streamPair({ ...get, tunnel: "derived" })[1],
      streamPair({ ...get, tunnel: "other" })[1],
    ];
    for (const stream of [ours, strangers]) link.options!.onStream(stream, link);
    await settle();
    expect(ours.isAccepted).toBe(false);
    const { requestId } = link.sentOf("claim")[0]!;
    link.receive({ type: "claimed", requestId, results: [{ ok: true, name: "derived", url: "http://d" }] });
    await settle(50);
    expect(ours.isAccepted).toBe(true);
    expect(strangers.refusal?.code).toBe("TUNNEL_UNKNOWN");
  });

  test("are held in a bounded number only, and one that is given up makes no room for a lost one", async () => {
    const rig = setUp({ tunnels: [tunnel(undefined)], limits: { ...limits, openWaitersMax: 2 } });
    rig.node.answersClaims = false;
    rig.agent.start();
    await settle(50);
    const link = rig.links[0]!;
    const pairs = [0, 1, 2].map(() => streamPair({ ...get, tunnel: "derived" }));
    for (const [, stream] of pairs) link.options!.onStream(stream, link);
    await settle();
    expect(pairs.map(([, stream]) => stream.refusal?.code)).toEqual([undefined, undefined, "TUNNEL_UNKNOWN"]);
    pairs[0]![0].reset(new SallyError("VISITOR_GONE"));
    await settle();
    const { requestId } = link.sentOf("claim")[0]!;
    link.receive({ type: "claimed", requestId, results: [{ ok: true, name: "derived", url: "http://d" }] });
    await settle(50);
    expect(pairs.map(([, stream]) => stream.isAccepted)).toEqual([false, true, false]);
  });

  test("whose origin takes no connection are refused once its time is over", async () => {
    const clock = new FakeClock();
    const { links } = await started({
      clock,
      dialOrigin: (_target, { timeoutMs }) =>
        new Promise((_resolve, reject) => clock.after(timeoutMs, () => reject(new SallyError("CONNECT_TIMEOUT")))),
    });
    const [, stream] = streamPair(get);
    links[0]!.options!.onStream(stream, links[0]!);
    clock.advance(limits.connectMs - 1);
    await settle();
    expect(stream.refusal).toBeUndefined();
    clock.advance(1);
    await settle();
    expect(stream.refusal).toMatchObject({
      code: "ORIGIN_REFUSED",
      message: "localhost:3000 did not accept a connection in time",
    });
  });

  test("a probe is answered without the origin; one for a stranger is refused", async () => {
    const { links, dialled } = await started();
    dialled.length = 0;
    const [ours, strange] = [
      streamPair({ ...get, protocol: "probe" })[1],
      streamPair({ tunnel: "x", protocol: "probe" })[1],
    ];
    for (const stream of [ours, strange]) links[0]!.options!.onStream(stream, links[0]!);
    expect(ours.isAccepted).toBe(true);
    expect(strange.refusal?.code).toBe("TUNNEL_UNKNOWN");
    expect(dialled).toEqual([]);
  });

  test("an origin that is down is told to the node, and seen again within two seconds; the tunnel stays up", async () => {
    const { links, node, named, advance } = await started();
    expect(named("origin")).toMatchObject([{ state: "up", origin: "localhost:3000" }]);
    const refused = Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
    node.originError = new SallyError("CONNECT_FAILED", undefined, { cause: refused });
    const [, stream] = streamPair(get);
    links[0]!.options!.onStream(stream, links[0]!);
    await settle();
    expect(stream.refusal).toMatchObject({
      code: "ORIGIN_REFUSED",
      message: "nothing listens on localhost:3000: start your app or pass another port",
    });
    expect(named("origin").at(-1)).toMatchObject({ state: "down", name: "demo" });
    expect(links[0]!.sentOf("origin").at(-1)).toMatchObject({ state: "down", cause: "ORIGIN_REFUSED" });
    await advance(4_000);
    node.originError = undefined;
    await advance(2_000);
    expect(named("origin").map(({ state }) => state)).toEqual(["up", "down", "up"]);
    expect(links[0]!.sentOf("origin").at(-1)).toEqual({ type: "origin", name: "demo", state: "up" });
    expect(named("link")).toHaveLength(1);
  });

  test("an origin that was down before the link is told to each new node", async () => {
    const rig = setUp();
    rig.node.originError = new SallyError("CONNECT_FAILED");
    rig.agent.start();
    await settle(50);
    expect(rig.links[0]!.sentOf("origin")).toMatchObject([{ name: "demo", state: "down" }]);
  });

  test("requests are looked at only while somebody listens; traffic is counted always", async () => {
    const { agent, links, origins, named, advance } = await started();
    const seen: string[] = [];
    const stop = agent.onRequest(({ method, target, status }) => void seen.push(`${method} ${target} ${status}`));
    const send = async (): Promise<void> => {
      const [edge, stream] = streamPair(get);
      links[0]!.options!.onStream(stream, links[0]!);
      edge.write(new TextEncoder().encode("GET /x HTTP/1.1\r\n\r\n"));
      await settle();
      origins.at(-1)!.write(new TextEncoder().encode("HTTP/1.1 204 No Content\r\n\r\n"));
      await settle();
    };
    await send();
    stop();
    await send();
    expect(seen).toEqual(["GET /x 204"]);
    await advance(1_000);
    expect(named("traffic").at(-1)).toMatchObject({
      streams: 2,
      openStreams: 2,
      bytesToOrigin: 38,
      bytesFromOrigin: 54,
    });
  });
});
