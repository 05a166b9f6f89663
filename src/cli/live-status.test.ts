import { describe, expect, test } from "bun:test";
import { FakeClock } from "../core/fake-clock.ts";
import { LiveStatus, renderStatus, type StatusModel } from "./live-status.ts";
import { createPaint } from "./output.ts";

const plain = createPaint(false);

function model(changes: Partial<StatusModel> = {}): StatusModel {
  return {
    node: "https://edge.example:7443",
    linkState: "up",
    problem: undefined,
    transport: "quic",
    rttMs: 12.34,
    tunnels: [
      { name: "demo", url: "https://demo.example", origin: "localhost:3000", originState: "up", refusal: undefined },
    ],
    requestsPerSecond: 2.5,
    requestsTotal: 40,
    openStreams: 3,
    lastRequests: [{ method: "GET", target: "/a", status: 200, durationMs: 4.2 }],
    ...changes,
  };
}

describe("the status", () => {
  test("shows link, transport, round trip, tunnels, rate and the last requests", () => {
    expect(renderStatus(model(), plain, 100)).toEqual([
      "sally  Ctrl-C to stop",
      "",
      "Link          online https://edge.example:7443 (quic, 12.3 ms)",
      "Forwarding    https://demo.example -> localhost:3000",
      "Requests      2.5/s, 40 in all, 3 open streams",
      "",
      "GET      /a 200 4 ms",
    ]);
  });

  test("says why there is no link, which origin is down, and which name was refused", () => {
    const tunnel = {
      name: "demo",
      url: undefined,
      origin: "localhost:3000",
      originState: "down",
      refusal: undefined,
    } as const;
    const lost = model({
      linkState: "down",
      node: "",
      transport: undefined,
      rttMs: undefined,
      problem: "nothing listens",
      tunnels: [tunnel, { ...tunnel, refusal: "taken" }],
    });
    const lines = renderStatus(lost, plain, 100).map((line) => line.trimEnd());
    expect(lines).toContain("Link          reconnecting");
    expect(lines).toContain("              nothing listens");
    expect(lines).toContain("Forwarding    demo: not up yet -> localhost:3000 is down");
    expect(lines).toContain("Refused       demo: taken");
    expect(renderStatus(model({ linkState: "connecting" }), plain, 100)[2]).toContain("connecting");
  });

  test("cannot be steered by what visitors, origins or nodes are called", () => {
    const evil = "\u001b[2J\u009b1;1H\r\n\u202e";
    const hostile = model({
      node: evil,
      problem: evil,
      tunnels: [
        { name: evil, url: evil, origin: evil, originState: "up", refusal: undefined },
        { name: evil, url: undefined, origin: evil, originState: "down", refusal: evil },
      ],
      lastRequests: [{ method: evil, target: evil, status: undefined, durationMs: undefined }],
    });
    for (const line of renderStatus(hostile, plain, 100)) expect(line).not.toMatch(/[\p{Cc}\p{Bidi_Control}]/u);
  });

  test("clips long targets to the width", () => {
    const long = model({
      lastRequests: [{ method: "PROPFIND", target: `/${"x".repeat(500)}`, status: 404, durationMs: 1 }],
    });
    for (const width of [20, 60, 200]) {
      const last = renderStatus(long, plain, width).at(-1)!; // there is a request
      expect(last).toMatch(/^PROPFIND \/x+… 404 1 ms$/);
      expect(last.length).toBeLessThanOrEqual(Math.max(40, width));
    }
  });
});

describe("the screen", () => {
  function setUp(size = { columns: 80, rows: 24 }) {
    const clock = new FakeClock();
    const written: string[] = [];
    const state = { shown: model(), size };
    const screen = new LiveStatus({
      clock,
      paint: plain,
      read: () => state.shown,
      size: () => state.size,
      write: (text) => void written.push(text),
    });
    return { clock, written, state, screen };
  }

  test("is written again only when something changed, over its own lines", () => {
    const { clock, written, state, screen } = setUp();
    screen.start();
    clock.advance(1_000);
    expect(written).toHaveLength(1);
    state.shown = model({ requestsTotal: 41 });
    clock.advance(250);
    expect(written).toHaveLength(2);
    expect(written[1]).toStartWith("\u001b[7A"); // seven lines up
    expect(written[1]).toContain("41 in all");
    screen.close();
    clock.advance(1_000);
    expect(written).toHaveLength(2);
    expect(clock.pending).toBe(0);
  });

  test("makes room for others and comes back below them", () => {
    const { written, screen } = setUp();
    screen.draw();
    screen.clear();
    screen.clear();
    expect(written.at(-1)).toBe("\u001b[7A\u001b[J");
    screen.draw();
    expect(written).toHaveLength(3);
    expect(written[2]).not.toContain("A");
  });

  test("never has more lines than the terminal, nor wraps", () => {
    const { written, screen } = setUp({ columns: 30, rows: 4 });
    screen.draw();
    expect(written[0]!.split("\n")).toHaveLength(4); // three lines and the cursor's
    expect(written[0]).toStartWith("\u001b[?7l");
    expect(written[0]).toEndWith("\u001b[?7h");
  });
});
