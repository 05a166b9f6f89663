import { describe, expect, test } from "bun:test";
import { settle, streamPair } from "../wire/testing/stub-link.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { memoryDuplexPair, type MemoryDuplex, type MemoryDuplexOptions } from "../core/memory-duplex.ts";
import type { StreamProtocol } from "../ports/dialer.ts";
import { TurnEnd } from "./turn-end.ts";
import { OriginStream, type TrafficCounters } from "./origin-stream.ts";
import { answerProbe } from "./probe-reply.ts";

const text = (bytes: string): Uint8Array => new TextEncoder().encode(bytes);

function setUp(protocol: StreamProtocol = "http", socket: MemoryDuplexOptions = {}) {
  const clock = new FakeClock();
  const [edge, stream] = streamPair({ tunnel: "demo", protocol });
  const [socketSide, origin] = memoryDuplexPair(socket);
  const counters: TrafficCounters = { streams: 0, openStreams: 0, bytesToOrigin: 0, bytesFromOrigin: 0 };
  const turn: (() => void)[] = [];
  const turnEnd = new TurnEnd((task) => void turn.push(task));
  const names = new Set(["demo"]);
  const isServed = (name: string): boolean => names.has(name);
  const joint = new OriginStream({ stream, counters, tap: undefined, clock, limits, turnEnd, isServed });
  const endTurn = async (): Promise<void> => {
    for (const task of turn.splice(0)) task();
    await settle();
  };
  const atEdge = record(edge);
  const atOrigin = record(origin);
  return { clock, edge, stream, socketSide, origin, counters, joint, names, endTurn, atEdge, atOrigin };
}

/** Consumes and notes what a side sees. */
function record(side: MemoryDuplex, { consumes = true } = {}) {
  const seen = { text: "", hasEnded: false, closed: undefined as string | undefined };
  side.handler = {
    onData(chunk) {
      seen.text += new TextDecoder().decode(chunk);
      if (consumes) side.consume(chunk.length);
    },
    onEnd: () => void (seen.hasEnded = true),
    onDrain() {},
    onClose: (error) => void (seen.closed = error?.code ?? "clean"),
  };
  return seen;
}

describe("an origin stream", () => {
  test("delivers what came before the origin answered, and says OPENED only then", async () => {
    const { edge, stream, joint, socketSide, atOrigin, atEdge, origin } = setUp();
    edge.write(text("GET / "));
    await settle();
    expect(stream.isAccepted).toBe(false);
    joint.join(socketSide);
    expect(stream.isAccepted).toBe(true);
    edge.write(text("HTTP/1.1"));
    origin.write(text("200"));
    await settle();
    expect(atOrigin.text).toBe("GET / HTTP/1.1");
    expect(atEdge.text).toBe("200");
    expect(stream.unconsumedBytes).toBe(0);
  });

  test("passes an end that came before the origin answered", async () => {
    const { edge, joint, socketSide, atOrigin } = setUp("raw");
    edge.write(text("all"));
    edge.end();
    await settle();
    joint.join(socketSide);
    await settle();
    expect(atOrigin).toMatchObject({ text: "all", hasEnded: true });
  });

  test("keeps the half-close of a raw stream both ways", async () => {
    const { edge, joint, socketSide, origin, atOrigin, atEdge, counters } = setUp("raw");
    joint.join(socketSide);
    origin.write(text("greeting"));
    origin.end();
    await settle();
    expect(atEdge).toMatchObject({ text: "greeting", hasEnded: true, closed: undefined });
    edge.write(text("still here"));
    edge.end();
    await settle();
    expect(atOrigin).toMatchObject({ text: "still here", hasEnded: true, closed: "clean" });
    expect(atEdge.closed).toBe("clean");
    expect(counters).toEqual({ streams: 1, openStreams: 0, bytesToOrigin: 10, bytesFromOrigin: 8 });
  });

  test("an HTTP origin that ended gets no later request, so that what FIN reported stays true", async () => {
    const { edge, stream, joint, socketSide, origin, atOrigin } = setUp();
    joint.join(socketSide);
    edge.write(text("first"));
    await settle();
    origin.end();
    await settle();
    expect(stream.reportedBytes).toBe(5);
    edge.write(text("second"));
    await settle();
    expect(atOrigin.text).toBe("first");
    expect(stream.unconsumedBytes).toBe(0);
  });

  test("the next request on a kept connection waits for the rest of the turn, which may bring its end", async () => {
    for (const trouble of ["none", "end", "reset"] as const) {
      const { edge, stream, joint, socketSide, origin, endTurn, atEdge, atOrigin } = setUp();
      joint.join(socketSide);
      edge.write(text("first"));
      await settle();
      origin.write(text("reply"));
      await settle();
      edge.write(text("sec"));
      edge.write(text("ond"));
      await settle();
      expect(atOrigin.text).toBe("first");
      if (trouble === "end") origin.end();
      if (trouble === "reset") origin.reset(new SallyError("ORIGIN_RESET"));
      await settle();
      await endTurn();
      expect(atOrigin.text).toBe(trouble === "none" ? "firstsecond" : "first");
      expect(atEdge.text).toBe("reply");
      if (trouble !== "none") expect(stream.reportedBytes).toBe(5);
      expect(stream.unconsumedBytes).toBe(0);
    }
  });

  /** A kept connection, a request on it in pieces, and the origin's end when so many bytes of it had not arrived. */
  async function endWithUnreceived(unreceivedBytes: number, { pieces = ["post"], refusedBytes = 0 } = {}) {
    const rig = setUp();
    const { edge, joint, socketSide, origin, endTurn } = rig;
    joint.join(socketSide);
    edge.write(text("first"));
    await settle();
    origin.write(text("reply"));
    await settle();
    for (const piece of pieces) {
      edge.write(text(piece));
      await settle();
      await endTurn();
    }
    Object.assign(socketSide, { unreceivedBytes, refusedBytes });
    socketSide.isHeld = true; // our end
    origin.end();
    await settle();
    return rig;
  }

  test("bytes that had not arrived when the origin ended are unseen once its system refuses them, and only then", async () => {
    for (const [unreceivedBytes, pieces, follows, reported] of [
      [4, ["post"], "reset", 5],
      [4, ["po", "st"], "reset", 5],
      [5_000, ["p".repeat(5_000)], "reset", 5],
      [2, ["post"], "reset", 7],
      [0, ["post"], "reset", 9],
      [4, ["post"], "end", 9],
      [4, ["post"], "nothing", 9],
    ] as const) {
      const { clock, stream, socketSide, atEdge } = await endWithUnreceived(unreceivedBytes, { pieces: [...pieces] });
      expect(atEdge.hasEnded).toBe(unreceivedBytes === 0);
      if (follows === "reset") socketSide.fail(new SallyError("ORIGIN_RESET"));
      if (follows === "end") socketSide.isHeld = false;
      if (follows === "nothing") {
        clock.advance(limits.originEndSettleMs - 1);
        await settle();
        expect(atEdge.hasEnded).toBe(false);
        clock.advance(1);
      }
      await settle();
      expect([stream.reportedBytes, atEdge.hasEnded, clock.pending]).toEqual([reported, true, 0]);
    }
  });

  test("bytes that the system refused at once are unseen without a wait", async () => {
    const { stream, atEdge } = await endWithUnreceived(4, { refusedBytes: 4 });
    expect([stream.reportedBytes, atEdge.hasEnded]).toEqual([5, true]);
  });

  test("an origin that breaks off is taken to have seen all that it was sent, but not what was refused", async () => {
    for (const [refusedBytes, reported] of [
      [0, 5],
      [5, 0],
    ] as const) {
      const { edge, stream, joint, socketSide } = setUp();
      joint.join(socketSide);
      edge.write(text("taken"));
      await settle();
      Object.assign(socketSide, { unreceivedBytes: refusedBytes, refusedBytes });
      socketSide.fail(new SallyError("ORIGIN_RESET"));
      await settle();
      expect([stream.resetError?.code, stream.reportedBytes]).toEqual(["ORIGIN_RESET", reported]);
    }
  });

  test("pieces of one request, and bytes of raw and upgraded streams, do not wait", async () => {
    const http = setUp();
    http.joint.join(http.socketSide);
    for (const piece of ["a", "b"]) http.edge.write(text(piece));
    await settle();
    expect(http.atOrigin.text).toBe("ab");
    http.origin.write(text("HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    const raw = setUp("raw");
    raw.joint.join(raw.socketSide);
    raw.origin.write(text("hello"));
    await settle();
    http.edge.write(text("c"));
    raw.edge.write(text("c"));
    await settle();
    expect([http.atOrigin.text, raw.atOrigin.text]).toEqual(["abc", "c"]);
  });

  test("of a name that was lost finishes its request and takes no other", async () => {
    const { edge, stream, joint, socketSide, origin, names, endTurn, atEdge, atOrigin } = setUp();
    joint.join(socketSide);
    edge.write(text("POST /one HTTP/1.1\r\n\r\n"));
    await settle();
    origin.write(text("HTTP/1.1 100 Continue\r\n\r\n"));
    await settle();
    names.clear();
    for (const piece of ["body ", "/ of the request"]) {
      edge.write(text(piece));
      await settle();
      await endTurn();
    }
    origin.write(text("reply"));
    await settle();
    expect(atOrigin.text).toEndWith("\r\n\r\nbody / of the request");
    expect([atEdge.text, atEdge.hasEnded]).toEqual(["HTTP/1.1 100 Continue\r\n\r\nreply", false]);
    const { length } = atOrigin.text;
    edge.write(text("GET /two HTTP/1.1\r\n"));
    edge.write(text("Cookie: secret\r\n\r\n"));
    await settle();
    await endTurn();
    // The edge learns that nothing of it was seen, and asks whoever has the name now.
    expect([atOrigin.text.length, atOrigin.hasEnded, atEdge.hasEnded]).toEqual([length, true, true]);
    expect([stream.reportedBytes, stream.unconsumedBytes]).toEqual([length, 0]);
  });

  test("tells a new request from the rest of one, whatever its method and target", async () => {
    for (const [bytes, isTaken] of [
      ["GET / HTTP/1.1\r\n", false],
      ["OPTIONS * HTTP/1.1\r\n", false],
      ["M-SEARCH /x", false],
      ["POST http://demo.test/", false],
      ["GET", true],
      [" / ", true],
      ["a sentence", true],
      ['{"a": 1}', true],
      ["x".repeat(100), true],
    ] as const) {
      const { edge, joint, socketSide, origin, names, endTurn, atOrigin } = setUp();
      joint.join(socketSide);
      names.clear();
      origin.write(text("HTTP/1.1 100 Continue\r\n\r\n"));
      await settle();
      edge.write(text(bytes));
      await settle();
      await endTurn();
      expect([bytes, atOrigin.text]).toEqual([bytes, isTaken ? bytes : ""]);
    }
  });

  test("an upgraded HTTP stream keeps its half-close", async () => {
    const { edge, joint, socketSide, origin, atOrigin } = setUp();
    joint.join(socketSide);
    origin.write(text("HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    origin.end();
    await settle();
    edge.write(text("late"));
    edge.end();
    await settle();
    expect(atOrigin).toMatchObject({ text: "late", hasEnded: true });
  });

  test("a visitor who goes away before the origin answers cancels the dial", async () => {
    const { edge, joint, socketSide, origin, atOrigin, counters } = setUp();
    edge.reset(new SallyError("VISITOR_GONE"));
    await settle();
    expect(joint.signal.aborted).toBe(true);
    joint.join(socketSide);
    await settle();
    expect(atOrigin.closed).toBeDefined();
    expect(origin.isClosed).toBe(true);
    expect(counters.openStreams).toBe(0);
  });

  test("a reset by the visitor resets the origin", async () => {
    const { edge, joint, socketSide } = setUp();
    joint.join(socketSide);
    edge.reset(new SallyError("VISITOR_GONE"));
    await settle();
    expect(socketSide.resetError).toBeDefined();
  });

  test("a reset by the origin reports only what its socket took", async () => {
    const { edge, stream, joint, socketSide, origin, counters } = setUp("http", { highBytes: 1 });
    joint.join(socketSide);
    edge.write(text("taken"));
    await settle();
    origin.reset(new SallyError("ORIGIN_RESET"));
    await settle();
    expect(stream.resetError?.code).toBe("ORIGIN_RESET");
    expect(stream.reportedBytes).toBe(5);
    expect(counters.openStreams).toBe(0);
  });

  test("what the origin sent before it broke goes out before the reset", async () => {
    const { clock, stream, joint, socketSide, origin, atEdge } = setUp();
    joint.join(socketSide);
    stream.isHeld = true;
    origin.write(text("the whole reply"));
    await settle();
    origin.reset(new SallyError("ORIGIN_RESET"));
    await settle();
    expect(stream.resetError).toBeUndefined();
    stream.isHeld = false;
    await settle();
    expect(atEdge.text).toBe("the whole reply");
    clock.advance(10);
    expect(stream.resetError?.code).toBe("ORIGIN_RESET");
  });

  test("a visitor who stalls does not keep a broken origin's stream longer than the linger", async () => {
    const { clock, stream, joint, socketSide, origin } = setUp();
    joint.join(socketSide);
    stream.isHeld = true;
    origin.write(text("reply"));
    await settle();
    origin.reset(new SallyError("ORIGIN_RESET"));
    await settle();
    clock.advance(limits.socketLingerMs + 10);
    expect(stream.resetError?.code).toBe("ORIGIN_RESET");
    expect(clock.pending).toBe(0);
  });

  test("a stalled origin is given no more than its queue, and credit comes back when it drains", async () => {
    const { edge, stream, joint, socketSide } = setUp("http", { highBytes: 10, lowBytes: 5 });
    joint.join(socketSide);
    socketSide.isHeld = true;
    edge.write(text("0123456789ab"));
    await settle();
    expect(stream.unconsumedBytes).toBe(12);
    socketSide.isHeld = false;
    await settle();
    expect(stream.unconsumedBytes).toBe(0);
  });

  test("a stalled visitor pauses the origin", async () => {
    const { edge, stream, joint, socketSide, origin } = setUp();
    joint.join(socketSide);
    stream.isHeld = true;
    origin.write(new Uint8Array(300 * 1024));
    await settle();
    expect(socketSide.unconsumedBytes).toBe(300 * 1024);
    stream.isHeld = false;
    await settle();
    expect(socketSide.unconsumedBytes).toBe(0);
    expect(edge.unconsumedBytes).toBe(0);
  });

  test("without an origin the stream is refused with the reason", async () => {
    const { stream, joint, counters } = setUp();
    joint.refuse(new SallyError("ORIGIN_REFUSED"));
    expect(stream.refusal?.code).toBe("ORIGIN_REFUSED");
    expect(counters.openStreams).toBe(0);
  });
});

describe("a probe", () => {
  test("is answered by the agent itself once its head is complete, whatever the chunks", async () => {
    const [edge, stream] = streamPair({ tunnel: "demo", protocol: "probe" });
    answerProbe(stream);
    const seen = record(edge);
    expect(stream.isAccepted).toBe(true);
    for (const part of ["GET / HTTP/1.1\r\nHost: demo\r\n", "\r", "\n"]) {
      expect(seen.text).toBe("");
      edge.write(text(part));
      await settle();
    }
    expect(seen.text).toStartWith("HTTP/1.1 200 OK\r\n");
    expect(seen.text).toEndWith("\r\n\r\nsally-probe");
    expect(seen.hasEnded).toBe(true);
  });

  test("with an endless head is reset", async () => {
    const [edge, stream] = streamPair({ tunnel: "demo", protocol: "probe" });
    answerProbe(stream);
    edge.write(new Uint8Array(limits.probeHeadBytes).fill(65));
    await settle();
    expect(stream.resetError).toBeUndefined();
    edge.write(new Uint8Array(1).fill(65));
    await settle();
    expect(stream.resetError?.code).toBe("HEADERS_TOO_LARGE");
  });
});
