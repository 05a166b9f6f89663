import { describe, expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { idleHandler } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import type { IncomingStream } from "./link.ts";
import { linkPair, record, settle, type Recording } from "./testing/link-pair.ts";
import { WindowBudget } from "./window-budget.ts";

const http = { tunnel: "demo", protocol: "http" } as const;
const recorded = (into: Recording[] = [], consumes = true) => ({
  onStream: (stream: IncomingStream) => void into.push(record(stream, { consumes })),
});

describe("sending", () => {
  test("all frames of one turn leave in one write", async () => {
    const { node, nodeSession } = await linkPair({ agent: recorded() });
    const lane = nodeSession.lanes[0]!;
    const before = lane.writeCount;
    for (let i = 0; i < 50; i++) node.open(http).write(utf8Encode("GET / HTTP/1.1\r\n\r\n"));
    await settle();
    expect(lane.writeCount - before).toBe(1);
  });

  test("large chunks of several streams leave in full buffers, not in a write for each frame", async () => {
    const { node, nodeSession } = await linkPair({ agent: recorded([]) });
    const lane = nodeSession.lanes[0]!;
    const before = lane.writeCount;
    for (let i = 0; i < 4; i++) node.open(http).write(new Uint8Array(48 * 1024));
    await settle();
    expect(lane.writeCount - before).toBeLessThanOrEqual(5); // 192 KiB in buffers of 64 KiB, and what was begun before
  });

  test("what is about to be sent is announced in front of it, and its end behind it; a little is not", async () => {
    for (const [written, announced] of [
      [200 * 1024, limits.streamWindowInitialBytes],
      [8 * 1024, 0],
    ] as const) {
      const { node } = await linkPair({ agent: { onStream: (stream) => void stream.write(new Uint8Array(written)) } });
      const stream = node.open(http);
      const loads: number[] = [];
      stream.handler = { ...idleHandler, onData: () => void loads.push(stream.laneLoadBytes) };
      await settle();
      expect(loads.length).toBeGreaterThan(0);
      expect(new Set(loads)).toEqual(new Set([announced]));
      expect(stream.laneLoadBytes).toBe(0); // what has no credit is not about to be sent
      stream.reset(new SallyError("CANCELLED"));
      await settle();
      expect(stream.laneLoadBytes).toBe(0);
    }
  });

  test("streams take turns in pieces of 16 KiB, and a small one does not wait for a large one", async () => {
    const order: string[] = [];
    const { node } = await linkPair({
      agent: {
        onStream: (stream) => {
          stream.handler = {
            onData: (chunk) => {
              order.push(`${stream.preamble.tunnel}${chunk.length}`);
              stream.consume(chunk.length);
            },
            onEnd() {},
            onDrain() {},
            onClose() {},
          };
        },
      },
    });
    const [a, b, c] = ["a", "b", "c"].map((tunnel) => node.open({ tunnel, protocol: "raw" }));
    a!.write(new Uint8Array(64 * 1024));
    b!.write(new Uint8Array(40 * 1024));
    c!.write(new Uint8Array(100));
    await settle();
    expect(order.slice(0, 3)).toEqual(["a16384", "b16384", "c100"]);
    expect(order.slice(3).map((piece) => piece[0])).toEqual(expect.arrayContaining(["a", "b"]));
    expect(order[3]?.[0]).toBe("a");
    expect(order[4]?.[0]).toBe("b");
    const pieces = order.map((piece) => Number(piece.slice(1)));
    expect(Math.max(...pieces.slice(0, 5))).toBeLessThanOrEqual(16 * 1024); // later one stream is alone
  });

  test("a stalled lane holds at most its send queue; the streams wait, and CREDIT still goes out", async () => {
    const seen: Recording[] = [];
    const { node, nodeSession } = await linkPair({ agent: recorded(seen) });
    const lane = nodeSession.lanes[0]!;
    lane.isHeld = true;
    const streams = Array.from({ length: 20 }, () => node.open(http));
    const recordings = streams.map((stream) => record(stream));
    const answers = streams.map((stream) => {
      let answer = true;
      for (let i = 0; i < 6; i++) answer = stream.write(new Uint8Array(60_000));
      return answer;
    });
    expect(answers.every((answer) => !answer)).toBe(true);
    await settle();
    expect(lane.queuedBytes).toBeLessThanOrEqual(limits.laneSendQueueBytes + limits.framePayloadBytes + 4_096);
    lane.isHeld = false;
    await settle(20);
    expect(seen.map(({ byteCount }) => byteCount)).toEqual(streams.map(() => 360_000));
    expect(recordings.every(({ drains }) => drains === 1)).toBe(true);
  });

  test("a carrier that never says false is still fed", async () => {
    const seen: Recording[] = [];
    const { node } = await linkPair({ agent: recorded(seen), duplex: { highBytes: 1e9 } });
    const streams = Array.from({ length: 10 }, () => node.open(http));
    for (const stream of streams) stream.write(new Uint8Array(300_000));
    await settle(30);
    expect(seen.map(({ byteCount }) => byteCount)).toEqual(streams.map(() => 300_000));
  });

  test("a stream whose reader consumes nothing gets its window and no more, and others go on", async () => {
    const seen: Recording[] = [];
    const { node, agentSeen } = await linkPair({ agent: recorded(seen, false) });
    const [slow, quick] = [node.open(http), node.open(http)];
    slow.write(new Uint8Array(200_000));
    await settle();
    expect(seen[0]!.byteCount).toBe(64 * 1024);
    quick.write(new Uint8Array(1_000));
    await settle();
    expect(seen[1]!.byteCount).toBe(1_000);
    agentSeen.streams[0]!.consume(32 * 1024 - 1);
    await settle();
    expect(seen[0]!.byteCount).toBe(64 * 1024);
    agentSeen.streams[0]!.consume(1);
    await settle();
    expect(seen[0]!.byteCount).toBeGreaterThanOrEqual(96 * 1024);
  });

  test("load falls back to nothing once everything is acknowledged", async () => {
    const { node, agentSeen } = await linkPair({ agent: recorded() });
    const stream = node.open(http);
    record(stream);
    stream.write(new Uint8Array(1_000));
    expect(stream.laneLoadBytes).toBe(1_000);
    await settle();
    expect(stream.laneLoadBytes).toBe(1_000); // nothing was said in return yet
    agentSeen.streams[0]!.write(utf8Encode("HTTP/1.1 200 OK\r\n\r\n"));
    await settle();
    expect(stream.laneLoadBytes).toBe(0);
  });
});

test("a bug in a handler ends its stream with INTERNAL, and the lane goes on", async () => {
  const { node, agentSeen } = await linkPair({
    agent: {
      onStream: (stream) => {
        stream.handler = {
          onData: () => {
            throw new TypeError("a bug");
          },
          onEnd() {},
          onDrain() {},
          onClose() {},
        };
      },
    },
  });
  const stream = node.open(http);
  const seen = record(stream);
  stream.write(new Uint8Array(10));
  await settle();
  expect(seen.closes.map((error) => error?.code)).toEqual(["INTERNAL"]);
  expect(agentSeen.closes).toEqual([]);
  expect(node.laneCount).toBe(1);
});

describe("losing a lane", () => {
  test("its streams end LINK_LOST, the others live, and the agent opens another after a pause", async () => {
    const clock = new FakeClock();
    const seen: Recording[] = [];
    const pair = await linkPair({ lanes: 3, agent: { clock, ...recorded(seen) }, node: { clock } });
    const streams = Array.from({ length: 192 }, () => pair.node.open(http)); // 64 a lane
    const recordings = streams.map((stream) => record(stream));
    await settle();
    pair.agentSession.lanes[1]!.reset(new SallyError("LINK_LOST"));
    await settle();
    const lost = recordings.filter(({ closes }) => closes.length > 0);
    expect(lost.length).toBe(64);
    expect(lost.every(({ closes }) => closes[0]?.code === "LINK_LOST")).toBe(true);
    expect([pair.node.laneCount, pair.node.streamCount]).toEqual([2, 128]);
    // The agent's end of that lane was reset by us, so tell it as a network would.
    pair.agentSession.lanes[2]!.fail(new SallyError("LINK_LOST"));
    await settle();
    expect(pair.agent.laneCount).toBe(2);
    clock.advance(limits.reconnectBackoffMinMs);
    while (pair.agent.laneCount < 3) await settle(1);
    expect(pair.agentSeen.closes).toEqual([]);
  });

  test("lanes that cannot be opened are tried again for ever, ever more slowly up to a bound", async () => {
    const clock = new FakeClock();
    const pauses: number[] = [];
    const after: FakeClock["after"] = (delayMs, callback) => {
      if (!Number.isInteger(delayMs)) pauses.push(delayMs); // random, as no other wait of a link is
      return clock.after(delayMs, callback);
    };
    const agentClock = { wallMs: () => clock.wallMs(), nowMs: () => clock.nowMs(), after };
    const pair = await linkPair({ lanes: 2, agent: { clock: agentClock }, node: { clock } });
    pair.agentSession.openLane = () => Promise.reject(new SallyError("LINK_LOST"));
    pair.agentSession.lanes[1]!.fail(new SallyError("LINK_LOST"));
    while (pauses.length < 12) {
      clock.advance(100);
      await settle(1);
    }
    for (const [i, pauseMs] of pauses.entries()) {
      const mostMs = Math.min(limits.reconnectBackoffMinMs * 2 ** i, limits.reconnectBackoffMaxMs);
      expect(pauseMs).toBeGreaterThanOrEqual(mostMs / 2);
      expect(pauseMs).toBeLessThanOrEqual(mostMs);
    }
    expect(pair.agentSeen.closes).toEqual([]);
    pair.agent.close();
  });

  test("control messages that were under way are sent again, once, in order", async () => {
    const pair = await linkPair({ lanes: 2 });
    pair.agentSession.lanes[0]!.isHeld = true;
    for (let i = 0; i < 5; i++) pair.agent.send({ type: "headroom", value: i / 10 });
    await settle();
    expect(pair.nodeSeen.messages).toEqual([]);
    const [agentLane, nodeLane] = [pair.agentSession.lanes[0]!, pair.nodeSession.lanes[0]!];
    agentLane.fail(new SallyError("LINK_LOST"));
    nodeLane.fail(new SallyError("LINK_LOST"));
    pair.agent.send({ type: "headroom", value: 1 });
    await settle();
    const values = pair.nodeSeen.messages.map((message) => (message.type === "headroom" ? message.value : -1));
    expect(values).toEqual([0, 0.1, 0.2, 0.3, 0.4, 1]);
  });

  test("the last lane takes the link with it", async () => {
    const pair = await linkPair();
    pair.nodeSession.lanes[0]!.fail(new SallyError("LINK_LOST"));
    await settle();
    expect(pair.nodeSeen.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
  });

  test("a session that dies ends its streams LINK_LOST on both sides", async () => {
    const pair = await linkPair({ lanes: 2, agent: recorded() });
    const seen = record(pair.node.open(http));
    await settle();
    pair.nodeSession.lost(new SallyError("LINK_LOST"));
    pair.agentSession.lost(undefined);
    await settle();
    expect(seen.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
    expect(pair.agentSeen.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
    expect(pair.nodeSeen.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
  });
});

describe("liveness", () => {
  test("an idle link lives on PINGs, and measures its round trip", async () => {
    const clock = new FakeClock();
    const pair = await linkPair({ agent: { clock }, node: { clock } });
    await settle();
    for (let i = 0; i < 60; i++) {
      clock.advance(500);
      await settle(1);
    }
    expect([pair.nodeSeen.closes, pair.agentSeen.closes]).toEqual([[], []]);
    expect(pair.node.rttMs).toBe(0);
    const frames = pair.nodeSession.lanes[0]!.writtenBytes;
    expect(frames).toBeLessThan(4_000);
  });

  test("a link that hears nothing for six seconds is dead, not before", async () => {
    const clock = new FakeClock();
    const pair = await linkPair({ lanes: 2, agent: { clock }, node: { clock } });
    await settle();
    for (const lane of pair.agentSession.lanes) lane.isHeld = true;
    clock.advance(5_999);
    expect(pair.nodeSeen.closes).toEqual([]);
    clock.advance(1);
    expect(pair.nodeSeen.closes.map((error) => error?.code)).toEqual(["LINK_IDLE"]);
    pair.agent.close();
    expect(clock.pending).toBeLessThan(10);
  });

  test("a link that is suspected is dead after two seconds, unless its peer shows that it lives", async () => {
    const clock = new FakeClock();
    const pair = await linkPair({ agent: { clock }, node: { clock } });
    await settle();
    for (let i = 0; i < 2; i++) {
      pair.node.suspect();
      await settle();
      clock.advance(1_999);
      await settle();
      expect(pair.nodeSeen.closes).toEqual([]);
    }
    pair.agentSession.lanes[0]!.isHeld = true;
    pair.node.suspect();
    clock.advance(1_999);
    expect(pair.nodeSeen.closes).toEqual([]);
    clock.advance(1);
    expect(pair.nodeSeen.closes.map((error) => error?.code)).toEqual(["LINK_IDLE"]);
    pair.node.suspect();
    pair.agent.close();
  });

  test("a PING that waits for its answer puts the link in doubt, once for each silence", async () => {
    const clock = new FakeClock();
    const pair = await linkPair({ lanes: 2, agent: { clock }, node: { clock } });
    await settle();
    const [first, second] = pair.nodeSession.lanes;
    const pass = async (ms: number): Promise<void> => {
      for (let i = 0; i < ms; i += 100) {
        clock.advance(100);
        await settle(1);
      }
    };
    await pass(10_000);
    expect(pair.agentSeen.doubts).toBe(0);
    for (let silences = 1; silences <= 2; silences++) {
      pair.node.send({ type: "replaced", names: [] }); // the silence begins now
      await settle();
      for (const lane of [first!, second!]) lane.isHeld = true;
      await pass(4_500); // two seconds until it asks, at most half a one late; one for the answer; and it says so once
      expect(pair.agentSeen.doubts).toBe(silences);
      for (const lane of [first!, second!]) lane.isHeld = false;
      await pass(3_000);
    }
    expect(pair.agentSeen.closes).toEqual([]);
    pair.agent.close();
  });

  test("two sides that both wonder whether they are heard do not ask each other without end", async () => {
    const clock = new FakeClock();
    const pair = await linkPair({ agent: { clock }, node: { clock } });
    await settle();
    const lanes = [pair.agentSession.lanes[0]!, pair.nodeSession.lanes[0]!];
    for (const lane of lanes) lane.isHeld = true;
    for (let i = 0; i < 45; i++) {
      clock.advance(100);
      await settle(1);
    }
    let writes = 0;
    for (const lane of lanes) {
      const write = lane.write.bind(lane);
      lane.write = (chunk) => (writes++, write(chunk));
      lane.isHeld = false; // two PINGs come at once on each side
    }
    await settle(50);
    expect(writes).toBeGreaterThan(0);
    expect(writes).toBeLessThan(10);
    pair.agent.close();
  });

  test("a link keeps one timer, whatever its lanes, and none once it is closed", async () => {
    const [agentClock, nodeClock] = [new FakeClock(), new FakeClock()];
    const pair = await linkPair({ lanes: 8, agent: { clock: agentClock }, node: { clock: nodeClock } });
    await settle();
    expect([agentClock.pending, nodeClock.pending]).toEqual([1, 1]);
    pair.agent.close();
    await settle();
    expect([agentClock.pending, nodeClock.pending]).toEqual([0, 0]);
  });

  test("one silent lane in use dies alone", async () => {
    const clock = new FakeClock();
    const pair = await linkPair({ lanes: 2, agent: { clock, ...recorded() }, node: { clock } });
    const streams = Array.from({ length: 128 }, () => pair.node.open(http)); // 64 a lane
    const seen = streams.map((stream) => record(stream));
    await settle();
    pair.agentSession.lanes[1]!.isHeld = true;
    // Stops as soon as the lane is dead: half a second later the agent has opened another.
    let silentMs = 0;
    for (; pair.node.laneCount === 2 && silentMs < 10_000; silentMs += 100) {
      clock.advance(100);
      await settle(1);
    }
    expect(silentMs).toBeLessThanOrEqual(limits.linkDeadAfterMs + 100);
    expect(pair.nodeSeen.closes).toEqual([]);
    expect(seen.filter(({ closes }) => closes.length > 0).length).toBe(64);
    expect(pair.node.laneCount).toBe(1);
  });
});

describe("the window budget", () => {
  test("beyond it OPEN waits for a window, and goes out with its data when one is free", async () => {
    const clock = new FakeClock();
    const budget = new WindowBudget(3 * limits.streamWindowInitialBytes - 1, 1);
    const seen: Recording[] = [];
    const { node } = await linkPair({ agent: recorded(seen), node: { budget, clock } });
    const first = node.open(http);
    record(first);
    record(node.open(http));
    const waiting = node.open(http);
    const waited = record(waiting);
    waiting.write(utf8Encode("later"));
    expect(() => node.open(http)).toThrow(new SallyError("OVERLOADED"));
    await settle();
    expect(seen.length).toBe(2);
    first.reset(new SallyError("CANCELLED"));
    await settle();
    expect(utf8Decode(seen[2]!.bytes())).toBe("later");
    expect(waited.closes).toEqual([]);
    expect(budget.usedBytes).toBe(2 * limits.streamWindowInitialBytes);
  });

  test("who waits too long closes OVERLOADED; who gives up leaves the line", async () => {
    const clock = new FakeClock();
    const budget = new WindowBudget(limits.streamWindowInitialBytes);
    const { node } = await linkPair({ agent: recorded(), node: { budget, clock } });
    record(node.open(http));
    const [patient, hasty] = [node.open(http), node.open(http)];
    const seen = record(patient);
    record(hasty);
    expect(budget.waiters).toBe(2);
    hasty.reset(new SallyError("CANCELLED"));
    expect(budget.waiters).toBe(1);
    clock.advance(limits.openWaitMs - 1);
    expect(seen.closes).toEqual([]);
    clock.advance(1);
    expect(seen.closes.map((error) => error?.code)).toEqual(["OVERLOADED"]);
    expect([budget.waiters, node.streamCount]).toEqual([0, 1]);
    expect(budget.usedBytes).toBe(limits.streamWindowInitialBytes);
  });

  test("the accepting side refuses at once when its own budget is used up", async () => {
    const budget = new WindowBudget(limits.streamWindowInitialBytes);
    const { node } = await linkPair({ agent: { budget, ...recorded() } });
    const [, refused] = [record(node.open(http)), record(node.open(http))];
    await settle();
    expect(refused.closes.map((error) => error?.code)).toEqual(["OVERLOADED"]);
  });

  test("the opener's limit of streams is exact", async () => {
    const { node } = await linkPair({ agent: recorded(), node: { limits: { streamsPerLink: 2 } } });
    const first = node.open(http);
    node.open(http);
    expect(() => node.open(http)).toThrow(new SallyError("STREAM_LIMIT"));
    first.reset(new SallyError("CANCELLED"));
    record(node.open(http));
  });
});
