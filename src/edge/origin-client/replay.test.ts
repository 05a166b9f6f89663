import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { utf8Encode } from "../../core/bytes.ts";
import { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import { FakeConnection, FakeExchange, FedBody, readText } from "../fake-exchange.ts";
import type { OriginSide, SeenRequest } from "../fake-origin.ts";
import { codeOf, demoTunnel, settle, TestRig } from "../test-rig.ts";

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/** A client with one stream that has served a request and idles. */
async function warmRig(rig = new TestRig()): Promise<TestRig> {
  await rig.ask();
  rig.origin.requests.length = 0;
  return rig;
}

describe("a request on a stream that turns out to be stale", () => {
  test("is replayed once on a fresh stream, whatever the method, if nothing of it was delivered", async () => {
    for (const method of ["GET", "POST", "PUT", "DELETE", "PATCH"]) {
      const rig = await warmRig();
      const stale = rig.origin.last;
      // The FIN crosses with the request: it leaves before the request arrives.
      stale.isHeld = true;
      stale.end();
      const asked = rig.ask({ method, body: utf8Encode("once") });
      await settle();
      stale.isHeld = false;
      expect((await asked).text).toBe("ok");
      expect(rig.origin.requests.map((request) => [request.stream, request.body])).toEqual([[2, "once"]]);
    }
  });

  test("is replayed each time, where an origin ends every connection after one reply without saying so", async () => {
    const rig = new TestRig();
    await rig.ask();
    for (let n = 0; n < 40; n++) {
      const stale = rig.origin.last;
      stale.isHeld = true;
      stale.end();
      const asked = rig.ask({ method: "POST", body: utf8Encode(String(n)) });
      await settle();
      stale.isHeld = false;
      expect((await asked).text).toBe("ok");
    }
    expect(rig.origin.requests.slice(1).map((request) => request.body)).toEqual(
      Array.from({ length: 40 }, (_, n) => String(n)),
    );
  });

  test("is replayed after a RESET that reports nothing delivered, too", async () => {
    const rig = await warmRig();
    const stale = rig.origin.last;
    const asked = rig.ask({ method: "POST", body: utf8Encode("once") });
    stale.break();
    expect((await asked).text).toBe("ok");
    expect(rig.origin.requests.length).toBe(1);
  });

  test("is not replayed a second time", async () => {
    const rig = await warmRig();
    rig.origin.closeAfterBytes = () => 0;
    expect((await rig.fails({ method: "POST", body: utf8Encode("x") })).code).toBe("ORIGIN_CLOSED");
    expect(rig.origin.streams.length).toBeLessThanOrEqual(2);
    expect(rig.origin.requests).toEqual([]);
  });

  test("is not replayed once any byte of it was delivered, unless it is safe", async () => {
    for (const [method, body, expected] of [
      ["POST", "x", "ORIGIN_CLOSED"],
      ["DELETE", "", "ORIGIN_CLOSED"],
      ["GET", "x", "ORIGIN_CLOSED"],
      ["GET", "", ""],
      ["HEAD", "", ""],
      ["OPTIONS", "", ""],
    ] as const) {
      const rig = await warmRig();
      const before = rig.origin.last.receivedBytes;
      rig.origin.closeAfterBytes = (side) => (side.number === 1 ? before + 1 : Infinity);
      if (method === "HEAD") {
        rig.origin.script.onRequest = (_request, side) => void side.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
      }
      const options = body === "" ? { method } : { method, body: utf8Encode(body) };
      if (expected === "") expect((await rig.ask(options)).reply.head.status).toBe(200);
      else expect((await rig.fails(options)).code).toBe(expected);
      expect(rig.origin.dials.length).toBe(expected === "" ? 2 : 1);
    }
  });

  test("is not replayed after a byte of a reply", async () => {
    const rig = await warmRig();
    rig.origin.script.onRequest = (_request, side) => {
      side.say("HTTP/1.1 2");
      side.end();
    };
    expect((await rig.fails()).code).toBe("ORIGIN_CLOSED");
    expect(rig.origin.dials.length).toBe(1);
  });

  test("is not replayed when more of its body was read than is kept", async () => {
    for (const [bytes, expected] of [
      [limits.replayBodyBytes, "ok"],
      [limits.replayBodyBytes + 1, "ORIGIN_CLOSED"],
    ] as const) {
      const rig = await warmRig();
      const stale = rig.origin.last;
      stale.isHeld = true;
      stale.end();
      const body = new FedBody([new Uint8Array(bytes)], bytes + 10);
      const exchange = new FakeExchange({ method: "POST", body, fields: [["Content-Length", String(bytes + 10)]] });
      const asked = rig.ask(exchange).then(
        (answer) => answer.text,
        (error: unknown) => (error as SallyError).code,
      );
      await settle();
      stale.isHeld = false;
      await settle();
      body.feed(new Uint8Array(10));
      expect(await asked).toBe(expected);
      if (expected === "ok") expect(rig.origin.requests[0]?.body.length).toBe(bytes + 10);
    }
  });

  test("goes on reading its body where it was, also from a read that was under way", async () => {
    const rig = await warmRig();
    const stale = rig.origin.last;
    stale.isHeld = true;
    stale.end();
    const body = new FedBody([utf8Encode("a"), utf8Encode("b")]);
    const asked = rig.ask({ method: "POST", body });
    await settle();
    stale.isHeld = false;
    await settle();
    body.feed(utf8Encode("c"));
    body.feed(null);
    expect((await asked).text).toBe("ok");
    expect(rig.origin.requests.map((request) => request.body)).toEqual(["abc"]);
  });

  test("that awaits 100 Continue awaits it on the fresh stream", async () => {
    const rig = await warmRig();
    const stale = rig.origin.last;
    stale.isHeld = true;
    stale.end();
    const body = new FedBody([utf8Encode("data")], 4);
    const exchange = new FakeExchange({ method: "PUT", body, fields: [["Expect", "100-continue"]] });
    const asked = rig.ask(exchange);
    rig.origin.script.onHead = (_head, side) => void side.say("HTTP/1.1 100 Continue\r\n\r\n");
    await settle();
    stale.isHeld = false;
    expect((await asked).text).toBe("ok");
    expect(exchange.informed.length).toBe(1);
    expect(rig.origin.requests.map((request) => request.body)).toEqual(["data"]);
  });

  test("is not replayed when its visitor has gone", async () => {
    const rig = await warmRig();
    const stale = rig.origin.last;
    stale.isHeld = true;
    stale.end();
    const exchange = new FakeExchange({ method: "POST", body: utf8Encode("x") });
    const failing = rig.fails(exchange);
    exchange.abort(new SallyError("VISITOR_GONE"));
    stale.isHeld = false;
    expect((await failing).code).toBe("VISITOR_GONE");
    expect(rig.origin.dials.length).toBe(1);
  });
});

describe("property: an origin that goes away after any number of bytes", () => {
  const ways: Record<string, (side: OriginSide) => void> = {
    fin: (side) => side.end(),
    reset: (side) => side.break(),
    lost: (side) => side.lose(),
  };

  // The origin takes the whole head, and is gone before its reply.
  const seenWhole = { method: "GET", bodyBytes: 0, isChunked: false, after: 201, chunkBytes: 1, isWarm: false };

  test("executes each request at most once unless it is safe, and exactly once when nothing of it was seen", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          method: fc.constantFrom("GET", "POST", "PUT", "DELETE"),
          bodyBytes: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 300 }), fc.constant(70_000)),
          isChunked: fc.boolean(),
          /** Relative to the start of the request; negative: it was gone before. */
          after: fc.integer({ min: 0, max: 900 }),
          chunkBytes: fc.integer({ min: 1, max: 400 }),
          way: fc.constantFrom(...Object.keys(ways)),
          isWarm: fc.boolean(),
        }),
        async ({ method, bodyBytes, isChunked, after, chunkBytes, way, isWarm }) => {
          const rig = new TestRig({}, { nextChunkBytes: (waiting) => (waiting > 2_000 ? waiting : chunkBytes) });
          if (isWarm) await warmRig(rig);
          const base = rig.origin.streams[0]?.receivedBytes ?? 0;
          rig.origin.closeAfterBytes = (side) => (side.number === 1 ? base + after : Infinity);
          rig.origin.closeBy = ways[way]!; // a key of the table
          const bytes = new Uint8Array(bodyBytes).fill(97);
          const body = bodyBytes === 0 ? undefined : isChunked ? chunkedBody(bytes) : bytes;
          let outcome = "";
          try {
            outcome = (await rig.ask(body === undefined ? { method } : { method, body })).text;
          } catch (thrown) {
            outcome = (thrown as SallyError).code;
          }
          const executions = rig.origin.requests.length;
          const isSafe = method === "GET" && bodyBytes === 0;
          if (outcome === "ok") expect(executions).toBeGreaterThanOrEqual(1);
          expect(executions).toBeLessThanOrEqual(isSafe ? 2 : 1);
          // A report of nothing delivered means that it is sent again, and then it is executed.
          const isReported = way !== "lost";
          if (after === 0 && isReported && bodyBytes <= limits.replayBodyBytes)
            expect([outcome, executions]).toEqual(["ok", 1]);
          if (isSafe && (isWarm || way === "lost")) expect(outcome).toBe("ok");
          for (const seen of rig.origin.requests) expect(seen.body.length).toBe(bodyBytes);
        },
      ),
      { numRuns: 400, examples: Object.keys(ways).map((way) => [{ ...seenWhole, way }]) },
    );
  }, 60_000);
});

function chunkedBody(bytes: Uint8Array): FedBody {
  const body = new FedBody([bytes.subarray(0, bytes.length >> 1), bytes.subarray(bytes.length >> 1)]);
  body.feed(null);
  return body;
}

describe("a refusal", () => {
  const refusal = (): SallyError =>
    new SallyError("ORIGIN_REFUSED", "nothing listens on localhost:3000: start your app");

  test("reaches the visitor with the agent's words", async () => {
    const rig = new TestRig({ onDial: (side) => side.refuse(refusal()) });
    const error = await rig.fails();
    expect([error.code, error.message]).toEqual(["ORIGIN_REFUSED", refusal().message]);
  });

  test("by one agent sends the request to another, whatever the method", async () => {
    const rig = new TestRig({ onDial: (side) => side.linkId === "link-1" && side.refuse(refusal()) });
    rig.origin.links = ["link-1", "link-2"];
    expect((await rig.ask({ method: "POST", body: utf8Encode("once") })).text).toBe("ok");
    expect(rig.origin.dials[1]?.avoidLink).toBe("link-1");
    expect(rig.origin.requests.length).toBe(1);
  });

  test("by both is the end", async () => {
    const rig = new TestRig({ onDial: (side) => side.refuse(refusal()) });
    rig.origin.links = ["link-1", "link-2"];
    expect((await rig.fails({ method: "POST", body: utf8Encode("x") })).code).toBe("ORIGIN_REFUSED");
    expect(rig.origin.dials.length).toBe(2);
  });

  test("after a time-out or a bad certificate is not tried elsewhere", async () => {
    for (const code of ["ORIGIN_TIMEOUT", "ORIGIN_TLS"] as const) {
      const rig = new TestRig({ onDial: (side) => side.refuse(new SallyError(code)) });
      rig.origin.links = ["link-1", "link-2"];
      expect((await rig.fails()).code).toBe(code);
      expect(rig.origin.dials.length).toBe(1);
    }
  });

  test("at once, by the dialer, is the answer", async () => {
    const rig = new TestRig();
    rig.origin.dialError = new SallyError("OVERLOADED");
    expect((await rig.fails()).code).toBe("OVERLOADED");
  });

  test("for the limit of a link's streams is too much load to the visitor, wherever it was found", async () => {
    const refused = new TestRig({ onDial: (side) => side.refuse(new SallyError("STREAM_LIMIT")) });
    const full = new TestRig();
    full.origin.dialError = new SallyError("STREAM_LIMIT");
    const { message } = new SallyError("OVERLOADED");
    for (const rig of [refused, full]) expect(await rig.fails()).toMatchObject({ code: "OVERLOADED", message });
  });
});

describe("a lost link", () => {
  test("sends safe requests to another agent, once", async () => {
    const rig = new TestRig({ onRequest: (_request, side) => (side.number === 1 ? side.lose() : void side.say(ok)) });
    rig.origin.links = ["link-1", "link-2"];
    expect((await rig.ask()).text).toBe("ok");
    expect(rig.origin.dials[1]?.avoidLink).toBe("link-1");
  });

  test("answers others with what happened", async () => {
    const rig = new TestRig({ onRequest: (_request, side) => side.lose() });
    expect((await rig.fails({ method: "POST", body: utf8Encode("x") })).code).toBe("LINK_LOST");
    expect(rig.origin.requests.length).toBe(1);
  });

  test("is a lost link to the visitor, whatever node and agent had between them", async () => {
    for (const code of ["CERTIFICATE_REVOKED", "CERTIFICATE_INVALID", "REPLACED", "FORBIDDEN", "CANCELLED"] as const) {
      for (const said of ["", "HTTP/1.1 200 OK\r\nConte"]) {
        const rig = new TestRig({
          onRequest(_request, side) {
            if (said !== "") side.say(said);
            setTimeout(() => side.break(new SallyError(code)), 0);
          },
        });
        const error = await rig.fails();
        expect([code, error.code, error.row.status]).toEqual([code, "LINK_LOST", 502]);
      }
    }
  });

  test("keeps its own error when nobody else is there", async () => {
    const rig = new TestRig({
      onRequest(_request, side) {
        rig.origin.dialError = new SallyError("TUNNEL_OFFLINE");
        side.lose();
      },
    });
    expect((await rig.fails()).code).toBe("LINK_LOST");
  });

  test("in the middle of a reply fails the body", async () => {
    const rig = new TestRig({
      onRequest: (_request, side) => void side.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
    });
    const reply = await rig.send(new FakeExchange());
    if (reply.kind !== "message") throw new Error("not a message");
    rig.origin.last.lose();
    expect(await codeOf(readText(reply.body))).toBe("LINK_LOST");
    expect(rig.origin.dials.length).toBe(1);
  });
});

describe("a link that answers nothing while another serves", () => {
  function silentRig(): TestRig {
    const answer = (request: SeenRequest): string => (request.head.method === "HEAD" ? ok.slice(0, -2) : ok);
    const rig = new TestRig({ onRequest: (request, side) => void (side.number > 1 && side.say(answer(request))) });
    rig.origin.links = ["link-1", "link-2"];
    return rig;
  }

  test("loses its safe requests to the other, and the first stream is broken off", async () => {
    for (const method of ["GET", "HEAD", "OPTIONS"]) {
      const rig = silentRig();
      const asked = rig.ask({ method });
      await settle();
      rig.origin.reclaim();
      rig.client.forsakeLink("link-2");
      await settle();
      expect(rig.origin.dials).toHaveLength(1);
      rig.client.forsakeLink("link-1");
      rig.client.forsakeLink("link-1");
      expect((await asked).text).toBe(method === "HEAD" ? "" : "ok");
      expect(rig.origin.dials.map(({ avoidLink }) => avoidLink)).toEqual([undefined, "link-1"]);
      await settle();
      expect(rig.origin.streams[0]!.isGone).toBe(true);
    }
  });

  test("keeps what may not be asked twice, or is being answered", async () => {
    const post = silentRig();
    const posted = post.ask({ method: "POST", body: utf8Encode("once") });
    await settle();
    post.origin.reclaim();
    post.client.forsakeLink("link-1");
    await settle();
    post.origin.streams[0]!.say(ok);
    expect((await posted).text).toBe("ok");
    const begun = silentRig();
    const asked = begun.ask();
    await settle();
    begun.origin.streams[0]!.say("HTTP/1.1 200 OK\r\nContent-");
    await settle();
    begun.origin.reclaim();
    begun.client.forsakeLink("link-1");
    await settle();
    begun.origin.streams[0]!.say("Length: 2\r\n\r\nok");
    expect((await asked).text).toBe("ok");
    expect([post.origin.dials.length, begun.origin.dials.length]).toEqual([1, 1]);
  });

  test("keeps what it still holds the claim of, and what authenticated the connection", async () => {
    const held = silentRig();
    const asked = held.ask();
    await settle();
    held.client.forsakeLink("link-1");
    await settle();
    held.origin.streams[0]!.say(ok);
    expect((await asked).text).toBe("ok");
    const pinned = silentRig();
    const signedOn = pinned.ask({ fields: [["Authorization", "NTLM TlRMTVNTUAAD"]] });
    await settle();
    pinned.origin.reclaim();
    pinned.client.forsakeLink("link-1");
    await settle();
    pinned.origin.streams[0]!.say(ok);
    expect((await signedOn).text).toBe("ok");
    expect([held.origin.dials.length, pinned.origin.dials.length]).toEqual([1, 1]);
  });

  test("loses a request once, and no more of them than may be asked again", async () => {
    const rig = new TestRig({ onRequest() {} });
    rig.origin.links = ["link-1", "link-2"];
    const asked = Array.from({ length: limits.freeRetries + 1 }, () => rig.fails());
    await settle();
    rig.origin.reclaim();
    rig.client.forsakeLink("link-1");
    await settle();
    expect(rig.origin.streams.filter(({ linkId }) => linkId === "link-2")).toHaveLength(limits.freeRetries);
    expect(rig.origin.streams[limits.freeRetries]!.isGone).toBe(false);
    for (const side of rig.origin.streams) if (!side.isGone) side.lose();
    expect(new Set((await Promise.all(asked)).map(({ code }) => code))).toEqual(new Set(["LINK_LOST"]));
    const again = new TestRig({ onRequest() {} });
    again.origin.links = ["link-1", "link-2"];
    const failed = again.fails();
    await settle();
    again.origin.reclaim();
    again.client.forsakeLink("link-1");
    await settle();
    again.origin.reclaim();
    again.client.forsakeLink("link-2");
    await settle();
    again.origin.streams[1]!.lose();
    expect((await failed).code).toBe("LINK_LOST");
    expect(again.origin.dials).toHaveLength(2);
  });

  test("keeps what nobody else takes: its reply may yet come", async () => {
    const rig = silentRig();
    const asked = rig.ask();
    await settle();
    rig.origin.dialError = new SallyError("TUNNEL_OFFLINE");
    rig.origin.reclaim();
    rig.client.forsakeLink("link-1");
    await settle();
    rig.origin.streams[0]!.say(ok);
    expect((await asked).text).toBe("ok");
  });
});

describe("retries", () => {
  test("stay a small share of traffic: ten, then a tenth", async () => {
    const rig = new TestRig({ onRequest: (_request, side) => side.lose() });
    let retried = 0;
    for (let i = 0; i < 100; i++) {
      const before = rig.origin.dials.length;
      await rig.fails();
      retried += rig.origin.dials.length - before - 1;
    }
    expect(retried).toBeGreaterThanOrEqual(18);
    expect(retried).toBeLessThanOrEqual(20);
  });

  test("of one tunnel are not used up by another's, and begin anew with the tunnel", async () => {
    const rig = new TestRig({ onRequest: (_request, side) => side.lose() });
    const retriesOf = async (name: string): Promise<number> => {
      const before = rig.origin.dials.length;
      await codeOf(rig.ask({}, { ...demoTunnel, name }));
      return rig.origin.dials.length - before - 1;
    };
    for (let i = 0; i < 15; i++) await retriesOf("evil");
    expect([await retriesOf("evil"), await retriesOf("demo")]).toEqual([0, 1]);
    rig.client.retireTunnel("evil");
    expect(await retriesOf("evil")).toBe(1);
  });
});

describe("origins that close idle connections after 5 s, as Node does", () => {
  const keepAlive = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok";

  test("POSTs spaced around 5 s are each executed once, without a 502", async () => {
    for (let spacingMs = 3_500; spacingMs <= 5_500; spacingMs += 50) {
      const closesAt = new Map<OriginSide, number>();
      const rig = new TestRig({
        onRequest(_request, side) {
          closesAt.set(side, rig.clock.nowMs() + 5_000);
          side.say(keepAlive);
        },
      });
      const runOriginTimers = (): void => {
        for (const [side, atMs] of closesAt) {
          if (atMs > rig.clock.nowMs()) continue;
          closesAt.delete(side);
          side.end();
        }
      };
      for (let i = 0; i < 5; i++) {
        const asked = rig.ask({ method: "POST", body: utf8Encode(String(i)) });
        runOriginTimers();
        expect((await asked).text).toBe("ok");
        rig.clock.advance(spacingMs);
      }
      expect(rig.origin.requests.map((request) => request.body)).toEqual(["0", "1", "2", "3", "4"]);
    }
  });

  const isReusedAfter = async (idleMs: number, field: string): Promise<boolean> => {
    const rig = new TestRig({
      onRequest: (_request, side) => void side.say(`HTTP/1.1 200 OK\r\n${field}Content-Length: 0\r\n\r\n`),
    });
    await rig.ask();
    rig.clock.advance(idleMs);
    await rig.ask();
    return rig.origin.streams.length === 1;
  };

  test("a stream idles 4 s at most, less if the origin says so", async () => {
    expect(await isReusedAfter(3_900, "")).toBe(true);
    expect(await isReusedAfter(4_000, "")).toBe(false);
    expect(await isReusedAfter(3_900, "Keep-Alive: timeout=60\r\n")).toBe(true);
    expect(await isReusedAfter(4_000, "Keep-Alive: timeout=60\r\n")).toBe(false);
    expect(await isReusedAfter(900, "Keep-Alive: max=5, timeout=2\r\n")).toBe(true);
    expect(await isReusedAfter(1_000, "Keep-Alive: timeout=2\r\n")).toBe(false);
    expect(await isReusedAfter(0, "Keep-Alive: timeout=1\r\n")).toBe(false);
    expect(await isReusedAfter(0, "Connection: close\r\n")).toBe(false);
  });

  test("the round trip is taken off what the origin says", async () => {
    const rig = new TestRig({ onRequest() {} });
    for (const [idleMs, isReused] of [
      [600, true],
      [700, false],
    ] as const) {
      rig.origin.streams.length = 0;
      rig.origin.reclaim();
      for (let i = 0; i < 2; i++) {
        const asked = rig.ask();
        await settle();
        rig.clock.advance(300);
        rig.origin.last.say("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 0\r\n\r\n");
        await asked;
        rig.clock.advance(idleMs);
      }
      expect(rig.origin.streams.length).toBe(isReused ? 1 : 2);
    }
  });

  test("an idle stream is closed by the coarse timer, and nothing is left that ticks", async () => {
    const rig = await warmRig();
    expect(rig.clock.pending).toBe(1);
    rig.clock.advance(limits.pooledIdleMs + 250);
    expect(rig.client.idleCount("demo")).toBe(0);
    await settle();
    expect(rig.origin.last.hasEdgeEnded).toBe(true);
    await settle();
    rig.clock.advance(250);
    expect(rig.clock.pending).toBe(0);
  });
});

describe("the pool", () => {
  test("keeps to the link that is chosen where there are several, also while another's streams are idle", async () => {
    const rig = new TestRig();
    const carriers = async (chosen: string): Promise<string> => {
      rig.origin.chosen = chosen;
      rig.origin.links = [chosen];
      await rig.ask();
      return rig.origin.streams[rig.origin.requests.at(-1)!.stream - 1]!.linkId; // streams count from 1
    };
    const seen: string[] = [];
    for (const link of ["link-1", "link-2", "link-2", "link-1", "link-1", "link-2"]) seen.push(await carriers(link));
    expect(seen).toEqual(["link-1", "link-2", "link-2", "link-1", "link-1", "link-2"]);
    expect(rig.origin.dials).toHaveLength(2);
  });

  test("reuses the stream used last, and never puts two requests on one", async () => {
    const held: OriginSide[] = [];
    const rig = new TestRig({ onRequest: (_request, side) => void held.push(side) });
    const asked = [rig.ask(), rig.ask(), rig.ask()];
    await settle();
    expect(rig.origin.streams.length).toBe(3);
    for (const side of [held[0]!, held[2]!, held[1]!]) {
      side.say(ok);
      await settle();
    }
    await Promise.all(asked);
    rig.origin.script.onRequest = (_request, side) => void side.say(ok);
    await rig.ask();
    expect(rig.origin.requests.at(-1)?.stream).toBe(2);
  });

  test("keeps a bounded number of streams for each tunnel", async () => {
    const held: OriginSide[] = [];
    const rig = new TestRig({ onRequest: (_request, side) => void held.push(side) }, {}, { pooledIdlePerTunnel: 2 });
    const asked = [rig.ask(), rig.ask(), rig.ask()];
    await settle();
    for (const side of held) side.say(ok);
    await Promise.all(asked);
    expect(rig.client.idleCount("demo")).toBe(2);
    await settle();
    expect(rig.origin.streams.filter((side) => side.hasEdgeEnded).length).toBe(1);
  });

  test("drops a stream on which bytes or an end came unasked", async () => {
    for (const spoil of [
      (side: OriginSide) => void side.say("HTTP/1.1 200 OK\r\n\r\n"),
      (side: OriginSide) => side.end(),
    ]) {
      const rig = await warmRig();
      spoil(rig.origin.last);
      await settle();
      expect(rig.client.idleCount("demo")).toBe(0);
      expect(rig.origin.last.isGone).toBe(true);
      await rig.ask();
      expect(rig.origin.requests.map((request) => request.stream)).toEqual([2]);
    }
  });

  test("does not mix tunnels", async () => {
    const rig = await warmRig();
    await rig.ask({}, { ...demoTunnel, name: "other" });
    await rig.ask();
    expect(rig.origin.requests.map((request) => request.stream)).toEqual([2, 1]);
  });

  test("takes no idle stream of a claim that is over, though nobody said so", async () => {
    const rig = await warmRig();
    rig.origin.reclaim();
    await rig.ask();
    expect(rig.origin.requests.map((request) => request.stream)).toEqual([2]);
    await settle();
    expect(rig.origin.streams[0]?.hasEdgeEnded).toBe(true);
  });

  test("takes no stream back whose claim ended while it was busy: its requests go to who has the name now", async () => {
    const rig = await warmRig();
    rig.origin.script.onRequest = () => {};
    const running = rig.ask();
    await settle();
    rig.origin.reclaim();
    rig.client.retireTunnel("demo");
    rig.origin.last.say(ok);
    expect((await running).text).toBe("ok");
    expect(rig.client.idleCount("demo")).toBe(0);
    rig.origin.script.onRequest = (_request, side) => void side.say(ok);
    for (let n = 0; n < 3; n++) await rig.ask();
    expect(rig.origin.requests.map((request) => request.stream)).toEqual([1, 2, 2, 2]);
    await settle();
    expect(rig.origin.streams[0]?.hasEdgeEnded).toBe(true);
  });

  test("takes no stream of an ended claim for the visitor that it is pinned to", async () => {
    const rig = new TestRig();
    const visitor = { connection: new FakeConnection(), fields: [["Authorization", "Negotiate x"]] as const };
    await rig.ask(visitor);
    await rig.ask(visitor);
    rig.origin.reclaim();
    await rig.ask(visitor);
    expect(rig.origin.requests.map((request) => request.stream)).toEqual([1, 1, 2]);
  });

  test("lets idle streams of a released tunnel go, and keeps those of an agent that goes on serving it", async () => {
    const rig = await warmRig();
    const released = rig.origin.claim;
    rig.origin.claim = { isCurrent: true };
    rig.origin.links = ["link-2"];
    rig.origin.chosen = "link-2";
    await rig.ask();
    expect(rig.client.idleCount("demo")).toBe(2);
    released.isCurrent = false;
    rig.client.retireTunnel("demo");
    expect(rig.client.idleCount("demo")).toBe(1);
    await settle();
    expect(rig.origin.streams.map(({ hasEdgeEnded }) => hasEdgeEnded)).toEqual([true, false]);
  });

  test("does not reuse HTTP/1.0 connections unless they are kept", async () => {
    for (const [text, count] of [
      ["HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0],
      ["HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 1],
    ] as const) {
      const rig = new TestRig({ onRequest: (_request, side) => void side.say(text) });
      await rig.ask();
      expect(rig.client.idleCount("demo")).toBe(count);
    }
  });

  test("lets go of a link that drains: idle streams now, busy ones when they are done", async () => {
    const rig = await warmRig();
    rig.origin.script.onRequest = () => {};
    const asked = rig.ask();
    await settle();
    rig.client.retireLink("link-1");
    rig.origin.last.say(ok);
    await asked;
    expect(rig.client.idleCount("demo")).toBe(0);
    await settle();
    expect(rig.origin.last.hasEdgeEnded).toBe(true);
  });

  test("remembers a bounded number of links that are over", async () => {
    const rig = new TestRig({}, {}, { retiredLinks: 2 });
    const late = async (): Promise<number> => {
      rig.origin.script.onRequest = () => {};
      const asked = rig.ask();
      await settle();
      rig.client.retireTunnel("demo");
      rig.origin.last.say(ok);
      await asked;
      return rig.client.idleCount("demo");
    };
    for (const id of ["link-1", "link-2"]) rig.client.retireLink(id);
    expect(await late()).toBe(0);
    rig.client.retireLink("link-3");
    expect(await late()).toBe(1); // a link that is long gone gives no streams back
  });

  test("closes: a running request is still answered", async () => {
    const rig = await warmRig();
    rig.origin.script.onRequest = () => {};
    const asked = rig.ask();
    await settle();
    rig.client.close();
    rig.origin.last.say(ok);
    expect((await asked).text).toBe("ok");
    await settle();
    expect(rig.origin.last.hasEdgeEnded).toBe(true);
    rig.clock.advance(250);
    expect(rig.clock.pending).toBe(0);
  });

  test("does not wait for ever for a stream to close", async () => {
    const rig = new TestRig({
      onDial: (side) => void (side.handler.onEnd = () => {}),
      onRequest: (_request, side) => void side.say(`HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`),
    });
    await rig.ask();
    await settle();
    rig.clock.advance(limits.socketLingerMs + 250);
    expect(rig.origin.last.edge.resetError).toBeDefined();
    rig.clock.advance(250);
    expect(rig.clock.pending).toBe(0);
  });
});
