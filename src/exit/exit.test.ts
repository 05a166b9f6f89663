import { describe, expect, test } from "bun:test";
import { settle, streamPair, StubLink, type StubLinkOptions } from "../wire/testing/stub-link.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { SallyError } from "../core/errors.ts";
import type { LinkAuth } from "../core/identity.ts";
import { limits, type Limits } from "../core/limits.ts";
import { createLogger, silentLogger } from "../core/log.ts";
import type { Session } from "../ports/session.ts";
import type { ControlMessage, TunnelRequest } from "../wire/messages.ts";
import { WindowBudget } from "../wire/window-budget.ts";
import type { ClaimPolicy } from "./claims.ts";
import { createExit, type ExitOptions } from "./exit.ts";
import type { ExitEvent } from "./link-info.ts";

const auth = {} as LinkAuth; // the handshake is replaced

function setUp(overrides: Partial<ExitOptions> = {}) {
  const clock = new FakeClock();
  const events: ExitEvent[] = [];
  const owners = new Map<string, string>();
  const policy: ClaimPolicy = {
    async claim(peer, request) {
      const name = request.name ?? `derived-${request.stableKey}`;
      const owner = owners.get(name) ?? peer.identity;
      if (owner !== peer.identity) return { ok: false, code: "NAME_TAKEN", message: "taken" };
      owners.set(name, owner);
      return { ok: true, name };
    },
    release: (_peer, name) => void owners.delete(name),
    touch() {},
  };
  const exit = createExit({
    auth,
    claims: policy,
    publicUrl: (name) => `http://${name}.test`,
    findReserved: (name) =>
      owners.has(name)
        ? { name, state: "offline", hostHeader: { kind: "preserve" }, pathPrefix: "", originLabel: "" }
        : undefined,
    isRevoked: () => false,
    probe: async () => ({ ok: true, rttMs: 3 }),
    clock,
    log: silentLogger,
    limits,
    budget: new WindowBudget(limits.processWindowBudgetBytes),
    onEvent: (event) => void events.push(event),
    random: () => 0,
    accept: async (session, _auth, options) => {
      const link = (session as unknown as { readonly link: StubLink }).link; // see `linkUp`
      link.options = options;
      return link;
    },
    ...overrides,
  });
  const linkUp = async (options: StubLinkOptions = {}): Promise<StubLink> => {
    const link = new StubLink(options);
    exit.acceptSession({ link, remote: link.remote, close() {} } as unknown as Session); // only `accept` above looks
    await settle();
    return link;
  };
  return { clock, events, exit, linkUp, owners };
}

let requests = 0;

async function claim(link: StubLink, names: readonly string[], extra: Partial<TunnelRequest> = {}) {
  const requestId = ++requests;
  link.receive({
    type: "claim",
    requestId,
    process: link.peerProcess,
    tunnels: names.map((name) => request(name, extra)),
  });
  await settle();
  return link.sentOf("claimed").find((message) => message.requestId === requestId)?.results ?? [];
}

function request(name: string, extra: Partial<TunnelRequest>): TunnelRequest {
  return {
    name,
    originLabel: "localhost:3000",
    hostHeader: { kind: "preserve" },
    pathPrefix: "",
    shared: false,
    ...extra,
  };
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (thrown) {
    return thrown instanceof SallyError ? thrown.code : String(thrown);
  }
  return "ok";
}

const dial = { tunnel: "demo", protocol: "http" } as const;

test("a node has so many links; for one more, the identity that has most of them loses its newest", async () => {
  const { exit, linkUp } = setUp({ limits: { ...limits, links: 4 } });
  const greedy: StubLink[] = [];
  for (let i = 0; i < 6; i++) greedy.push(await linkUp({ identity: "greedy", keyFingerprint: `g${i}` }));
  expect(greedy.map(({ isClosed }) => isClosed)).toEqual([false, false, false, false, true, true]);
  expect(greedy[4]!.closeError?.code).toBe("OVERLOADED");
  const modest = [
    await linkUp({ identity: "modest", keyFingerprint: "m1" }),
    await linkUp({ identity: "modest", keyFingerprint: "m2" }),
  ];
  expect(modest.map(({ isClosed }) => isClosed)).toEqual([false, false]);
  expect(greedy.filter(({ isClosed }) => !isClosed)).toEqual(greedy.slice(0, 2));
  expect(exit.links()).toHaveLength(4);
  greedy[0]!.close();
  await settle();
  expect((await linkUp({ identity: "third" })).isClosed).toBe(false);
  expect(exit.links()).toHaveLength(4);
});

test("an agent that comes back to a full node takes the place of an older link of its own that is of no more use", async () => {
  const { exit, linkUp } = setUp({ limits: { ...limits, links: 2 } });
  const laptop = { identity: "ann", keyFingerprint: "aa" };
  await linkUp({ identity: "ann", keyFingerprint: "bb" });
  const first = await linkUp({ ...laptop, process: "p1" });
  first.streamCount = 1;
  expect((await linkUp({ ...laptop, process: "p2" })).isClosed).toBe(true); // the first one may be a sibling
  first.isInDoubt = true;
  const second = await linkUp({ ...laptop, process: "p2" });
  expect([first.isClosed, second.isClosed]).toEqual([true, false]);
  second.streamCount = 1;
  expect((await linkUp({ ...laptop, process: "p2" })).isClosed).toBe(true);
  second.streamCount = 0;
  const third = await linkUp({ ...laptop, process: "p2" });
  expect([second.isClosed, third.isClosed]).toEqual([true, false]);
  expect(exit.links()).toHaveLength(2);
  third.close();
  await settle();
  expect((await linkUp({ identity: "bob" })).isClosed).toBe(false);
});

describe("what one link asks for", () => {
  const few = { ...limits, linkRequestBurst: 100, linkRequestsPerSecond: 10 };

  test("of names, beyond those that it may serve, is refused without asking who owns them", async () => {
    let asked = 0;
    const { linkUp, events } = setUp({
      limits: { ...limits, tunnelsPerLink: 6 },
      claims: {
        async claim() {
          asked++;
          return { ok: false, code: "NAME_INVALID", message: "no" };
        },
        release() {},
        touch() {},
      },
    });
    const results = await claim(
      await linkUp(),
      Array.from({ length: 9 }, (_, i) => `n${i}`),
    );
    expect(asked).toBe(6);
    const codes = [
      ...Array.from({ length: 6 }, () => "NAME_INVALID" as const),
      ...Array.from({ length: 3 }, () => "NAME_LIMIT" as const),
    ];
    expect(results.map((result) => (result.ok ? "ok" : result.code))).toEqual(codes);
    const refused = events.flatMap((event) => (event.event === "refused" ? [event.refused] : []));
    expect(refused.map((names) => names.map(({ code }) => code))).toEqual([codes]);
  });

  test("of names, in one claim, gives way to others in between", async () => {
    const turns: (() => void)[] = [];
    const { linkUp } = setUp({ schedule: (task) => void turns.push(task) });
    const link = await linkUp();
    const names = Array.from({ length: 10 }, (_, i) => `n${i}`);
    await claim(link, names);
    let taken = 0;
    for (; turns.length > 0; taken++) {
      turns.shift()?.();
      await settle();
    }
    expect(taken).toBe(3);
    expect(link.sentOf("claimed")[0]?.results.map(({ name }) => name)).toEqual(names);
  });

  test("of names, beyond its tokens, waits for them, and for no longer than the link is there", async () => {
    const { linkUp, clock, exit } = setUp({ limits: few });
    const link = await linkUp();
    await claim(link, ["a", "b", "c", "d", "e", "f", "g", "h", "i"]);
    await settle(100);
    expect(link.sentOf("claimed")[0]?.results).toHaveLength(9);
    expect(await claim(link, ["j"])).toEqual([]); // 8 tokens are left
    clock.advance(200);
    await settle();
    expect(link.sentOf("claimed")).toHaveLength(2);
    await claim(link, ["k"]);
    link.close();
    clock.advance(60_000);
    await settle();
    expect(exit.directory.lookup("k")).toBeUndefined();
  });

  test("of probes, beyond its tokens, is refused, and costs the link when it goes on", async () => {
    let probes = 0;
    const { linkUp, clock } = setUp({
      limits: few,
      probe: async () => ({ ok: true, rttMs: ++probes }),
    });
    const link = await linkUp();
    await claim(link, ["demo"]);
    const probe = async (): Promise<void> => {
      link.receive({ type: "probe", requestId: 1, name: "demo" });
      await settle();
    };
    for (let i = 0; i < 10; i++) await probe();
    expect([probes, link.sentOf("probed").at(-1)?.code]).toEqual([8, "OVERLOADED"]);
    clock.advance(5_000);
    await probe();
    expect(probes).toBe(9); // who asks again in time is not held back by what was refused
    for (let i = 0; i < 300 && !link.isClosed; i++) await probe();
    expect(link.closeError?.code).toBe("OVERLOADED");
  });

  test("of streams is refused, and costs the link when it goes on", async () => {
    const { linkUp } = setUp({ limits: { ...limits, linkRequestBurst: 1_000 } });
    const link = await linkUp();
    let refused = 0;
    while (!link.isClosed && refused < 100) {
      const [, far] = streamPair(dial);
      link.options?.onStream(far, link);
      expect(far.refusal?.code).toBe("FORBIDDEN");
      refused++;
    }
    expect([refused, link.closeError?.code]).toEqual([21, "OVERLOADED"]);
  });

  test("of messages of any kind is bounded", async () => {
    const { linkUp } = setUp({ limits: few });
    const link = await linkUp();
    for (let i = 0; i < 200; i++) link.receive({ type: "headroom", value: 1 });
    expect(link.isClosed).toBe(false);
    link.receive({ type: "headroom", value: 1 });
    expect(link.closeError?.code).toBe("OVERLOADED");
  });

  test("may be all of its names, each probed, twice as many tries as an agent makes at first", async () => {
    const { linkUp } = setUp();
    const link = await linkUp();
    const names = Array.from({ length: limits.tunnelsPerLink }, (_, i) => `n${i}`);
    const requestId = 1;
    link.receive({
      type: "claim",
      requestId,
      process: link.peerProcess,
      tunnels: names.map((name) => request(name, {})),
    });
    await settle(2_000);
    for (let tries = 0; tries < 2; tries++) {
      for (const name of names) link.receive({ type: "probe", requestId, name });
      await settle();
    }
    expect(link.sentOf("claimed")[0]?.results.filter(({ ok }) => ok)).toHaveLength(names.length);
    expect(link.sentOf("probed").filter(({ ok }) => ok)).toHaveLength(2 * names.length);
  });

  test("of a name that was let go just before gets it, and keeps it", async () => {
    const { linkUp, owners, exit } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    link.receive({ type: "release", names: ["demo"] });
    expect(await claim(link, ["demo"])).toMatchObject([{ ok: true }]);
    expect([owners.get("demo"), exit.links()[0]?.names]).toEqual(["ann", ["demo"]]);
  });
});

describe("claims", () => {
  test("a claimed name is live and can be dialled", async () => {
    const { exit, linkUp } = setUp();
    const link = await linkUp();
    expect(await claim(link, ["demo"])).toEqual([{ ok: true, name: "demo", url: "http://demo.test" }]);
    expect(exit.directory.lookup("demo")).toMatchObject({ state: "live", originLabel: "localhost:3000" });
    expect(exit.dialer.dial(dial).linkId).toBe(link.id);
    expect(link.opened).toEqual([dial]);
    expect(exit.links()).toMatchObject([{ id: link.id, names: ["demo"], streams: 1 }]);
  });

  test("a name of another identity is refused with the policy's code", async () => {
    const { linkUp } = setUp();
    await claim(await linkUp({ identity: "ann" }), ["demo"]);
    expect(await claim(await linkUp({ identity: "bob" }), ["demo"])).toMatchObject([{ ok: false, code: "NAME_TAKEN" }]);
  });

  test("a newer link of the same process takes over silently, and the old one is drained", async () => {
    const { events, exit, linkUp } = setUp();
    const old = await linkUp();
    await claim(old, ["demo"]);
    const next = await linkUp();
    await claim(next, ["demo"]);
    expect(old.isDraining).toBe(true);
    expect([old.isBorne, old.isSuspected]).toEqual([true, false]); // its process lives
    expect(old.isClosed).toBe(false);
    expect(old.sentOf("replaced")).toEqual([]);
    expect(events.filter(({ event }) => event === "link-draining")).toMatchObject([{ link: { id: old.id } }]);
    expect(exit.dialer.dial(dial).linkId).toBe(next.id);
  });

  test("an older link that its process has given up ends at once, one that it holds does not", async () => {
    const { events, linkUp } = setUp();
    const [lost, held] = [await linkUp(), await linkUp()];
    await claim(lost, ["one"]);
    await claim(held, ["two"]);
    const next = await linkUp();
    const tunnels = ["one", "two"].map((name) => request(name, {}));
    next.receive({ type: "claim", requestId: 9_999, process: next.peerProcess, tunnels, links: [held.id, "other"] });
    await settle();
    expect([lost.closeError?.code, lost.isBorne]).toEqual(["LINK_LOST", false]);
    expect([held.isClosed, held.isBorne]).toEqual([false, true]);
    expect(events.filter(({ event }) => event === "link-down")).toMatchObject([{ link: { id: lost.id } }]);
  });

  test("a link that answers nothing is told of once its process has come back on another, not before", async () => {
    const { events, linkUp } = setUp();
    const silent = (): unknown[] => events.filter(({ event }) => event === "link-silent");
    const first = await linkUp();
    await claim(first, ["demo"]);
    first.options!.onDoubt!(first);
    first.isInDoubt = true;
    first.streamCount = 1;
    expect(silent()).toEqual([]);
    const second = await linkUp();
    await claim(second, ["demo"]);
    expect(silent()).toMatchObject([{ link: { id: first.id } }]);
    await claim(await linkUp(), ["demo"]);
    expect(silent()).toHaveLength(1);
    second.options!.onDoubt!(second); // nobody waits for anything on it
    expect(silent()).toHaveLength(1);
    second.streamCount = 1;
    second.options!.onDoubt!(second);
    expect(silent()).toMatchObject([{ link: { id: first.id } }, { link: { id: second.id } }]);
  });

  test("a link that answers nothing is not told of when another process took its names over", async () => {
    const { events, linkUp } = setUp();
    const old = await linkUp({ process: "p1" });
    await claim(old, ["demo"]);
    old.isInDoubt = true;
    await claim(await linkUp({ process: "p2" }), ["demo"]);
    old.options!.onDoubt!(old);
    expect(old.isSuspected).toBe(true);
    expect(events.filter(({ event }) => event === "link-silent")).toEqual([]);
  });

  test("a newer process of the slot replaces the older, which is told", async () => {
    const { exit, linkUp } = setUp();
    const old = await linkUp({ process: "p1" });
    await claim(old, ["demo"]);
    const next = await linkUp({ process: "p2" });
    await claim(next, ["demo"]);
    expect(old.sentOf("replaced")).toEqual([{ type: "replaced", names: ["demo"] }]);
    expect(old.isDraining).toBe(true);
    expect(old.isSuspected).toBe(true);
    expect(exit.dialer.dial(dial).linkId).toBe(next.id);
  });

  test("the older process cannot take the name back, so two never replace each other in turn", async () => {
    const { linkUp } = setUp();
    await claim(await linkUp({ process: "p1" }), ["demo"]);
    await claim(await linkUp({ process: "p2" }), ["demo"]);
    expect(await claim(await linkUp({ process: "p1" }), ["demo"])).toMatchObject([{ ok: false, code: "REPLACED" }]);
  });

  test("an older process that keeps another name keeps its link", async () => {
    const { linkUp } = setUp();
    const old = await linkUp({ process: "p1" });
    await claim(old, ["demo", "other"]);
    await claim(await linkUp({ process: "p2" }), ["demo"]);
    expect(old.isDraining).toBe(false);
  });

  test("another installation is refused, unless both share", async () => {
    const { exit, linkUp } = setUp();
    const first = await linkUp({ installation: "a" });
    await claim(first, ["demo"]);
    const refused = await claim(await linkUp({ installation: "b" }), ["demo"]);
    expect(refused).toMatchObject([{ ok: false, code: "NAME_IN_USE" }]);
    const oneSided = await claim(await linkUp({ installation: "b" }), ["demo"], { shared: true });
    expect(oneSided).toMatchObject([{ ok: false, code: "NAME_IN_USE" }]);
    await claim(first, ["demo"], { shared: true });
    expect(await claim(await linkUp({ installation: "b" }), ["demo"], { shared: true })).toMatchObject([{ ok: true }]);
    expect(exit.links().filter(({ names }) => names.includes("demo"))).toHaveLength(2);
  });

  test("one installation may share a name between two of its services", async () => {
    const { linkUp } = setUp();
    const first = await linkUp({ process: "p1" });
    await claim(first, ["demo"], { shared: true, originLabel: "localhost:3000" });
    const second = await linkUp({ process: "p2" });
    await claim(second, ["demo"], { shared: true, originLabel: "localhost:3001" });
    expect(first.sentOf("replaced")).toEqual([]);
    const restarted = await linkUp({ process: "p3" });
    await claim(restarted, ["demo"], { shared: true, originLabel: "localhost:3001" });
    expect(second.sentOf("replaced")).toHaveLength(1);
    expect(first.sentOf("replaced")).toEqual([]);
  });

  test("the limit of tunnels on one link is kept", async () => {
    const { linkUp } = setUp({ limits: { ...limits, tunnelsPerLink: 2 } satisfies Limits });
    const results = await claim(await linkUp(), ["a", "b", "c"]);
    expect(results).toMatchObject([{ ok: true }, { ok: true }, { ok: false, code: "NAME_LIMIT" }]);
  });

  test("a name that is claimed twice in one message is served once", async () => {
    const { linkUp } = setUp();
    expect(await claim(await linkUp(), ["demo", "demo"])).toMatchObject([{ ok: true }, { code: "NAME_IN_USE" }]);
  });

  test("a link that closes while the policy is asked gets nothing", async () => {
    const { exit, linkUp } = setUp();
    const link = await linkUp();
    link.receive({ type: "claim", requestId: 1, process: "p1", tunnels: [request("demo", {})] });
    link.close();
    await settle();
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("TUNNEL_UNKNOWN");
  });

  test("a flood of claims ends the link", async () => {
    const { linkUp } = setUp();
    const link = await linkUp();
    const claim = (requestId: number): void =>
      link.receive({ type: "claim", requestId, process: "p1", tunnels: [request("demo", {})] });
    for (let i = 0; i < limits.claimsWaiting; i++) claim(i);
    await settle(20 * limits.claimsWaiting);
    expect(link.sentOf("claimed")).toHaveLength(limits.claimsWaiting);
    for (let i = 0; i <= limits.claimsWaiting; i++) claim(i);
    await settle();
    expect(link.closeError?.code).toBe("PROTOCOL_VIOLATION");
  });

  test("a released name is unknown, and the policy hears of it", async () => {
    const { exit, linkUp, owners } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    link.receive({ type: "release", names: ["demo", "stranger"] });
    await settle();
    expect(owners.has("demo")).toBe(false);
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("TUNNEL_UNKNOWN");
  });
});

describe("dialling", () => {
  test("a name without an agent is offline, one never seen is unknown", async () => {
    const { exit, linkUp } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    link.close(new SallyError("LINK_IDLE"));
    await settle();
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("TUNNEL_OFFLINE");
    expect(codeOf(() => exit.dialer.dial({ ...dial, tunnel: "nobody" }))).toBe("TUNNEL_UNKNOWN");
    expect(exit.directory.lookup("demo")).toMatchObject({ state: "offline" });
    expect(exit.directory.lookup("nobody")).toBeUndefined();
  });

  test("each new stream is checked: an expired certificate carries none, after the grace", async () => {
    const { exit, linkUp, clock } = setUp({
      certificateGraceMs: 1_000,
      limits: { ...limits, revocationPollMs: 60_000 },
    });
    await claim(await linkUp({ notAfterMs: clock.wallMs() + 5_000 }), ["demo"]);
    clock.advance(6_000);
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("ok");
    clock.advance(1);
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("TUNNEL_OFFLINE");
  });

  test("what a link dialled is for the claim that it had then, and that never comes back", async () => {
    const { exit, linkUp } = setUp();
    const link = await linkUp({ process: "p1" });
    await claim(link, ["demo", "other"]);
    const claimed = () => exit.dialer.dial(dial).claim;
    const ways: Record<string, () => unknown> = {
      "claimed anew": () => claim(link, ["demo"], { originLabel: "localhost:4000" }),
      released: () => link.receive({ type: "release", names: ["demo"] }),
      "closed by the admin": () => exit.closeTunnel("demo"),
    };
    for (const [way, happens] of Object.entries(ways)) {
      const before = claimed();
      expect([way, before.isCurrent]).toEqual([way, true]);
      await happens();
      expect([way, before.isCurrent]).toEqual([way, false]);
      await claim(link, ["demo"]);
      expect([way, before.isCurrent, claimed().isCurrent]).toEqual([way, false, true]);
    }
    const other = exit.dialer.dial({ ...dial, tunnel: "other" }).claim;
    const old = claimed();
    const newer = await linkUp({ process: "p2" });
    await claim(newer, ["demo"]);
    expect([old.isCurrent, claimed().isCurrent, other.isCurrent]).toEqual([false, true, true]);
    const last = claimed();
    newer.close();
    await settle();
    expect(last.isCurrent).toBe(false);
  });

  test("a name that another owner claims ends what the old owner's link dialled", async () => {
    const { exit, linkUp, owners } = setUp();
    const old = await linkUp({ identity: "ann" });
    await claim(old, ["demo", "other"]);
    const before = exit.dialer.dial(dial).claim;
    owners.delete("demo"); // her lease is over
    await claim(await linkUp({ identity: "bob" }), ["demo"]);
    expect([old.isDraining, before.isCurrent, exit.dialer.dial(dial).claim.isCurrent]).toEqual([false, false, true]);
  });

  test("an agent that shares a name and leaves takes only its own claim along", async () => {
    const { exit, linkUp } = setUp();
    const [a, b] = [await linkUp({ installation: "a" }), await linkUp({ installation: "b" })];
    for (const link of [a, b]) await claim(link, ["demo"], { shared: true });
    const [ofA, ofB] = [b, a].map((avoided) => exit.dialer.dial({ ...dial, avoidLink: avoided.id }).claim);
    a.receive({ type: "release", names: ["demo"] });
    expect([ofA?.isCurrent, ofB?.isCurrent]).toEqual([false, true]);
  });

  test("a link that gave its name away carries no stream for it", async () => {
    const { exit, linkUp } = setUp();
    const old = await linkUp({ process: "p1" });
    await claim(old, ["demo", "other"]);
    const next = await linkUp({ process: "p2" });
    await claim(next, ["demo"]);
    next.close();
    await settle();
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("TUNNEL_OFFLINE");
    expect(old.opened).toEqual([]);
  });

  test("prefers another link than the one to avoid, an origin that is up, and fewer streams per headroom", async () => {
    const { exit, linkUp } = setUp();
    const [a, b] = [await linkUp({ installation: "a" }), await linkUp({ installation: "b" })];
    for (const link of [a, b]) await claim(link, ["demo"], { shared: true });
    expect(exit.dialer.dial({ ...dial, avoidLink: a.id }).linkId).toBe(b.id);
    expect(exit.dialer.dial({ ...dial, avoidLink: b.id }).linkId).toBe(a.id);
    a.receive({ type: "origin", name: "demo", state: "down" });
    expect(exit.dialer.dial(dial).linkId).toBe(b.id);
    a.receive({ type: "origin", name: "demo", state: "up" });
    a.receive({ type: "headroom", value: 0.1 });
    [a.streamCount, b.streamCount] = [3, 9];
    expect(exit.dialer.dial(dial).linkId).toBe(b.id);
    [a.streamCount, b.streamCount] = [0, 30];
    expect(exit.dialer.dial(dial).linkId).toBe(a.id);
  });

  test("says which link is next where there are several, so that pooled streams of one do not starve the others", async () => {
    const { exit, linkUp } = setUp();
    const { choose } = exit.dialer;
    expect(choose?.("demo")).toBeUndefined();
    const a = await linkUp({ installation: "a" });
    await claim(a, ["demo"], { shared: true });
    expect(choose?.("demo")).toBeUndefined(); // there is no choice
    const b = await linkUp({ installation: "b" });
    await claim(b, ["demo"], { shared: true });
    [a.streamCount, b.streamCount] = [20, 0];
    expect(choose?.("demo")).toBe(b.id);
    [a.streamCount, b.streamCount] = [20, 30];
    expect(choose?.("demo")).toBe(a.id);
    a.receive({ type: "origin", name: "demo", state: "down" });
    expect(choose?.("demo")).toBe(b.id);
    a.isDraining = true;
    expect(choose?.("demo")).toBeUndefined();
  });

  test("tries the next link when one is full, and says why when all are", async () => {
    const { exit, linkUp } = setUp();
    const [a, b] = [await linkUp({ installation: "a" }), await linkUp({ installation: "b" })];
    for (const link of [a, b]) await claim(link, ["demo"], { shared: true });
    a.openError = new SallyError("STREAM_LIMIT");
    expect(exit.dialer.dial({ ...dial, avoidLink: b.id }).linkId).toBe(b.id);
    b.openError = new SallyError("OVERLOADED");
    expect(codeOf(() => exit.dialer.dial({ ...dial, avoidLink: a.id }))).toBe("STREAM_LIMIT");
  });

  test("opens a stream that waits on a full link where room is made, once no other link takes it", async () => {
    const { exit, linkUp } = setUp();
    const [a, b] = [await linkUp({ installation: "a" }), await linkUp({ installation: "b" })];
    for (const link of [a, b]) await claim(link, ["demo"], { shared: true });
    const asked: string[] = [];
    const makeRoom = (linkId: string): boolean => (asked.push(linkId), linkId === a.id);
    a.openError = new SallyError("STREAM_LIMIT");
    expect(exit.dialer.dial({ ...dial, makeRoom }).linkId).toBe(b.id);
    expect(asked).toEqual([]);
    b.openError = a.openError;
    expect(exit.dialer.dial({ ...dial, makeRoom })).toMatchObject({ linkId: a.id, owner: "ann" });
    expect([a.waits, b.waits, asked.at(-1)]).toEqual([1, 0, a.id]);
    expect(codeOf(() => exit.dialer.dial({ ...dial, makeRoom: () => false }))).toBe("STREAM_LIMIT");
  });

  test("an agent that says GOAWAY is reported, so that idle streams do not keep it waiting", async () => {
    const { events, linkUp } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    link.isDraining = true;
    link.options?.onDrain?.(link);
    expect(events.at(-1)).toMatchObject({ event: "link-draining", link: { id: link.id } });
  });

  test("an agent that said GOAWAY is offline", async () => {
    const { exit, linkUp } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    link.drain();
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("TUNNEL_OFFLINE");
  });
});

describe("links", () => {
  test("one that is refused is told to whoever runs the exit, who logs it", async () => {
    const logged: string[] = [];
    const log = createLogger((_level, message) => void logged.push(message), "debug");
    const { events, linkUp } = setUp({ log, accept: () => Promise.reject(new SallyError("CERTIFICATE_INVALID")) });
    await linkUp();
    expect(events).toMatchObject([{ event: "handshake-failed", error: { code: "CERTIFICATE_INVALID" } }]);
    expect(logged).toEqual([]);
  });

  test("a probe is answered with what came back", async () => {
    const { linkUp } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    link.receive({ type: "probe", requestId: 7, name: "demo" });
    link.receive({ type: "probe", requestId: 8, name: "other" });
    await settle();
    const byId = (id: number): ControlMessage | undefined => link.sentOf("probed").find((m) => m.requestId === id);
    expect(byId(7)).toEqual({ type: "probed", requestId: 7, name: "demo", ok: true, rttMs: 3 });
    expect(byId(8)).toMatchObject({ ok: false, code: "TUNNEL_UNKNOWN" });
  });

  test("more probes at once than tunnels are refused, until some came back", async () => {
    const waiting: (() => void)[] = [];
    const { linkUp } = setUp({
      limits: { ...limits, tunnelsPerLink: 1 },
      probe: () => new Promise((resolve) => waiting.push(() => resolve({ ok: true, rttMs: 1 }))),
    });
    const link = await linkUp();
    await claim(link, ["demo"]);
    link.receive({ type: "probe", requestId: 1, name: "demo" });
    link.receive({ type: "probe", requestId: 2, name: "demo" });
    expect(link.sentOf("probed")).toMatchObject([{ requestId: 2, ok: false, code: "OVERLOADED" }]);
    waiting[0]?.();
    await settle();
    link.receive({ type: "probe", requestId: 3, name: "demo" });
    expect(waiting).toHaveLength(2);
  });

  test("revoking closes the matching links at once, and says so first", async () => {
    const { exit, linkUp } = setUp();
    const [ann, bob] = [await linkUp({ identity: "ann" }), await linkUp({ identity: "bob" })];
    expect(exit.revoke((peer) => peer.identity === "ann")).toBe(1);
    expect(ann.sentOf("revoked")).toHaveLength(1);
    expect(ann.closeError?.code).toBe("CERTIFICATE_REVOKED");
    expect(bob.isClosed).toBe(false);
  });

  test("a closed tunnel is unknown, and its agents are told", async () => {
    const { exit, linkUp, owners } = setUp();
    const link = await linkUp();
    await claim(link, ["demo", "other"]);
    expect(exit.closeTunnel("demo")).toBe(true);
    expect(exit.closeTunnel("demo")).toBe(false);
    await settle();
    expect(link.sentOf("replaced")).toEqual([{ type: "replaced", names: ["demo"] }]);
    expect(owners.has("demo")).toBe(false);
    expect(exit.links()[0]?.names).toEqual(["other"]);
  });

  test("a link whose key was renewed elsewhere finishes its streams; one that was not ends after the grace", async () => {
    const { clock, exit, linkUp } = setUp({ certificateGraceMs: 1_000 });
    const oldMs = clock.wallMs() + 5_000;
    const [old, stranger] = [
      await linkUp({ notAfterMs: oldMs }),
      await linkUp({ notAfterMs: oldMs, keyFingerprint: "11", process: "p2" }),
    ];
    const renewed = await linkUp({ notAfterMs: oldMs + 60_000 });
    const pass = async (ms: number): Promise<void> => {
      for (let done = 0; done < ms; done += 1_000) {
        clock.advance(1_000);
        await settle();
      }
    };
    await pass(10_000);
    expect([old.isClosed, stranger.isClosed, renewed.isClosed]).toEqual([false, true, false]);
    await pass(60_000);
    expect([old.isClosed, renewed.isClosed]).toEqual([true, true]);
    expect(old.closeError?.code).toBe("CERTIFICATE_INVALID");
    await exit.close();
  });

  test("a revocation made elsewhere is noticed within the poll", async () => {
    let revoked = false;
    const { linkUp, clock } = setUp({ isRevoked: () => revoked });
    const link = await linkUp();
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(link.isClosed).toBe(false);
    revoked = true;
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(link.closeError?.code).toBe("CERTIFICATE_REVOKED");
  });

  test("a revoked peer gets no new stream, even before its link is closed", async () => {
    let verdict: boolean | Promise<boolean> = false;
    const { exit, linkUp } = setUp({ isRevoked: () => verdict });
    const link = await linkUp();
    await claim(link, ["demo"]);
    const dial = (): string => {
      try {
        exit.dialer.dial({ tunnel: "demo", protocol: "http" });
        return "carried";
      } catch (error) {
        return error instanceof SallyError ? error.code : "bug";
      }
    };
    expect(dial()).toBe("carried");
    verdict = true;
    expect(dial()).toBe("TUNNEL_OFFLINE");
    verdict = Promise.reject(new Error("disk"));
    expect(dial()).toBe("carried"); // the regular check of live links decides
  });

  test("an unreadable registry keeps live links, and the check goes on", async () => {
    let broken = true;
    const { linkUp, clock } = setUp({
      isRevoked: () => {
        if (broken) throw new Error("disk");
        return true;
      },
    });
    const link = await linkUp();
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(link.isClosed).toBe(false);
    broken = false;
    clock.advance(limits.revocationPollMs);
    await settle();
    expect(link.isClosed).toBe(true);
  });

  test("drain tells the agents, waits for running streams, and closes", async () => {
    const { exit, linkUp, clock } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    let isDone = false;
    const draining = exit.drain(5_000).then(() => (isDone = true));
    await settle();
    expect(link.sentOf("drain")).toEqual([{ type: "drain", graceMs: 5_000 }]);
    expect(link.isDraining).toBe(true);
    expect(codeOf(() => exit.dialer.dial(dial))).toBe("DRAINING");
    expect(isDone).toBe(false);
    clock.advance(5_000);
    await draining;
    expect(link.closeError?.code).toBe("DRAINING");
    expect(clock.pending).toBe(0);
  });

  test("drain ends early when the last link is gone", async () => {
    const { exit, linkUp } = setUp();
    const link = await linkUp();
    const draining = exit.drain(5_000);
    link.close();
    await draining;
  });

  test("an announced drain still dials, but places no claims", async () => {
    const { exit, linkUp } = setUp();
    const link = await linkUp();
    await claim(link, ["demo"]);
    exit.announceDrain(5_000);
    expect(exit.dialer.dial(dial).linkId).toBe(link.id);
    expect(await claim(link, ["other"])).toMatchObject([{ ok: false, code: "DRAINING" }]);
  });

  describe("handshakes that do not end", () => {
    function door() {
      const { exit } = setUp({ limits: { ...limits, pendingHandshakes: 2 }, accept: () => new Promise(() => {}) });
      const closed: string[] = [];
      const knock = (host: string, peerCertificate?: Uint8Array): void => {
        const close = (error?: SallyError): void => void closed.push(`${host} ${error?.code}`);
        exit.acceptSession({ remote: { host, port: 0 }, peerCertificate, close } as unknown as Session); // all that is read
      };
      return { closed, knock };
    }

    test("of strangers give way to newcomers, those of the address that has most first", () => {
      const { closed, knock } = door();
      for (const host of ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"]) knock(host);
      expect(closed).toEqual(["192.0.2.2 OVERLOADED", "192.0.2.1 OVERLOADED"]);
    });

    test("of strangers take nothing from peers that have shown a certificate", () => {
      const { closed, knock } = door();
      const certificate = new Uint8Array(1);
      knock("192.0.2.1", certificate);
      knock("192.0.2.1", certificate);
      for (let i = 0; i < 10; i++) knock("2001:db8::1");
      expect(closed).toHaveLength(8);
      expect(closed).not.toContain("192.0.2.1 OVERLOADED");
    });

    test("of peers with a certificate are finished before more begin, address by address", () => {
      const { closed, knock } = door();
      for (const host of ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]) {
        knock(host, new Uint8Array(1));
      }
      expect(closed).toEqual(["192.0.2.1 OVERLOADED", "192.0.2.1 OVERLOADED", "192.0.2.3 OVERLOADED"]);
    });
  });

  test("leases of served names are extended", async () => {
    const touched: string[][] = [];
    const { linkUp, clock } = setUp({
      claims: {
        claim: async (_peer, { name }) => ({ ok: true, name: name ?? "x" }),
        release() {},
        touch: (names) => void touched.push([...names]),
      },
    });
    await claim(await linkUp(), ["demo"]);
    clock.advance(600_000);
    await settle();
    expect(touched).toEqual([["demo"]]);
  });
});
