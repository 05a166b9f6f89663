import { describe, expect, test } from "bun:test";
import { FakeClock } from "../core/fake-clock.ts";
import { type SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { bytesBody } from "../http/body.ts";
import { HeaderList } from "../http/header-list.ts";
import type { TunnelEntry } from "../ports/tunnel-directory.ts";
import { createEdge, type EdgeOptions } from "./edge.ts";
import { FakeExchange, type FakeExchangeOptions } from "./fake-exchange.ts";
import { FakeOrigin } from "./fake-origin.ts";
import { ProbeBoard } from "./probe-board.ts";
import { readHost } from "./stages/resolve-tunnel.ts";
import { demoTunnel } from "./test-rig.ts";

class EdgeRig {
  readonly clock = new FakeClock();
  readonly origin = new FakeOrigin();
  readonly probes = new ProbeBoard({ clock: this.clock, limits });
  readonly looked: string[] = [];
  readonly edge;

  constructor(changed: Partial<EdgeOptions> = {}) {
    const entries: TunnelEntry[] = [demoTunnel, { ...demoTunnel, name: "asleep", state: "offline" }];
    this.edge = createEdge({
      domain: "Localhost",
      directory: {
        lookup: (name) => {
          this.looked.push(name);
          return entries.find((entry) => entry.name === name);
        },
      },
      dialer: this.origin,
      probes: this.probes,
      clock: this.clock,
      log: silentLogger,
      limits,
      ...changed,
    });
  }

  async status(authority: string, options: FakeExchangeOptions = {}): Promise<string> {
    try {
      const reply = await this.edge.handler(new FakeExchange({ ...options, authority }));
      return String(reply.head.status);
    } catch (thrown) {
      return (thrown as SallyError).code;
    }
  }
}

describe("a host name", () => {
  const cases: [string, string][] = [
    ["demo.localhost", "demo"],
    ["demo.localhost:8080", "demo"],
    ["DEMO.LocalHost:8080", "demo"],
    ["demo.localhost.", "demo"],
    ["demo.localhost.:8080", "demo"],
    ["a.demo.localhost", "unknown"],
    ["demolocalhost", "unknown"],
    ["demo.localhost.evil.test", "unknown"],
    [".localhost", "unknown"],
    ["localhost", "node"],
    ["localhost:8080", "node"],
    ["localhost.", "node"],
    ["127.0.0.1:8080", "unknown"],
    ["[::1]:8080", "unknown"],
    ["[::1]", "unknown"],
    ["", "unknown"],
  ];
  for (const [authority, expected] of cases) {
    test(`${authority} is ${expected}`, () => {
      const meaning = readHost(authority, "localhost");
      expect(meaning.kind === "tunnel" ? meaning.name : meaning.kind).toBe(expected);
    });
  }
});

describe("the edge", () => {
  test("forwards what names a live tunnel, and says what is wrong otherwise", async () => {
    const rig = new EdgeRig();
    expect(await rig.status("demo.localhost:8080")).toBe("200");
    expect(await rig.status("Demo.Localhost.:8080")).toBe("200");
    expect(await rig.status("nobody.localhost")).toBe("TUNNEL_UNKNOWN");
    expect(await rig.status("asleep.localhost")).toBe("TUNNEL_OFFLINE");
    expect(await rig.status("x.demo.localhost")).toBe("TUNNEL_UNKNOWN");
    expect(await rig.status("127.0.0.1")).toBe("TUNNEL_UNKNOWN");
    expect(await rig.status("localhost")).toBe("NOT_FOUND");
    expect(rig.looked).toEqual(["demo", "demo", "nobody", "asleep"]);
  });

  test("checks the tunnel on every request, also when a stream to it idles", async () => {
    let state: TunnelEntry["state"] = "live";
    const rig = new EdgeRig({ directory: { lookup: () => ({ ...demoTunnel, state }) } });
    expect(await rig.status("demo.localhost")).toBe("200");
    state = "offline";
    expect(await rig.status("demo.localhost")).toBe("TUNNEL_OFFLINE");
    state = "live";
    expect(await rig.status("demo.localhost")).toBe("200");
    expect(rig.origin.streams.length).toBe(1);
  });

  test("waits for a directory that has to ask", async () => {
    const rig = new EdgeRig({ directory: { lookup: async (name) => (name === "demo" ? demoTunnel : undefined) } });
    expect(await rig.status("demo.localhost")).toBe("200");
    expect(await rig.status("other.localhost")).toBe("TUNNEL_UNKNOWN");
  });

  test("gives the bare domain to the node", async () => {
    const head = { status: 418, reason: "", headers: new HeaderList() };
    const nodeHandler = async () => ({ kind: "message" as const, head, body: bytesBody(new Uint8Array(0)) });
    expect(await new EdgeRig({ nodeHandler }).status("localhost:8080")).toBe("418");
  });

  test("adds to forwarding fields for a trusted proxy only", async () => {
    const rig = new EdgeRig({ isTrustedProxy: (host) => host === "192.0.2.7" });
    await rig.status("demo.localhost", { fields: [["X-Forwarded-For", "203.0.113.9"]] });
    expect(rig.origin.requests[0]?.head.headers.get("x-forwarded-for")).toBe("203.0.113.9, 192.0.2.7");
  });

  test("closes what idles", async () => {
    const rig = new EdgeRig();
    await rig.status("demo.localhost");
    rig.edge.close();
    await new Promise<void>((resolve) => setTimeout(resolve, 0));
    expect(rig.origin.last.hasEdgeEnded).toBe(true);
  });

  test("lets go of links and tunnels", async () => {
    const rig = new EdgeRig();
    await rig.status("demo.localhost");
    rig.origin.claim.isCurrent = false;
    rig.edge.retireTunnel("demo");
    rig.origin.reclaim();
    await rig.status("demo.localhost");
    rig.edge.retireLink("link-1");
    await rig.status("demo.localhost");
    expect(rig.origin.streams.length).toBe(3);
  });
});

describe("a probe", () => {
  const probing = (nonce: string) => ({ fields: [["Sally-Probe", nonce]] as const });

  test("with a known nonce is dialled as a probe, once, for its tunnel", async () => {
    const rig = new EdgeRig();
    const nonce = rig.probes.issue("demo");
    expect(await rig.status("demo.localhost", probing(nonce))).toBe("200");
    expect(await rig.status("demo.localhost", probing(nonce))).toBe("200");
    expect(rig.origin.dials.map((dial) => dial.protocol)).toEqual(["probe", "http"]);
  });

  test("with an unknown, late or foreign nonce is an ordinary request without that field", async () => {
    const rig = new EdgeRig();
    const late = rig.probes.issue("demo");
    rig.clock.advance(limits.probeMs);
    const foreign = rig.probes.issue("other");
    for (const nonce of ["guess", late, foreign])
      expect(await rig.status("demo.localhost", probing(nonce))).toBe("200");
    expect(rig.origin.dials.every((dial) => dial.protocol === "http")).toBe(true);
    expect(rig.origin.requests.every((request) => !request.head.headers.has("sally-probe"))).toBe(true);
    expect(rig.probes.has(foreign, "other")).toBe(true);
  });

  test("board holds a bounded number, and drops what expired", () => {
    const clock = new FakeClock();
    const board = new ProbeBoard({ clock, limits });
    const first = board.issue("demo");
    for (let i = 0; i < limits.probes; i++) board.issue("demo");
    expect(board.size).toBe(limits.probes);
    expect(board.has(first, "demo")).toBe(false);
    clock.advance(limits.probeMs);
    board.issue("demo");
    expect(board.size).toBe(1);
  });
});
