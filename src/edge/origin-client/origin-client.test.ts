import { describe, expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../../core/bytes.ts";
import { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import { HeaderList } from "../../http/header-list.ts";
import { FakeConnection, FakeExchange, FedBody, readText } from "../fake-exchange.ts";
import type { OriginSide } from "../fake-origin.ts";
import { codeOf, demoTunnel, settle, TestRig } from "../test-rig.ts";

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/** Answers every request with the same bytes. */
function saying(text: string): TestRig {
  return new TestRig({ onRequest: (_request, side) => void side.say(text) });
}

/** Answers every request with the same bytes and ends the stream. */
function sayingLast(text: string): TestRig {
  return new TestRig({
    onRequest(_request, side) {
      side.say(text);
      side.end();
    },
  });
}

describe("a request", () => {
  test("with a small body goes out in one write", async () => {
    const rig = new TestRig();
    const { text } = await rig.ask({ method: "POST", target: "/x", body: utf8Encode("hello") });
    expect(text).toBe("ok");
    expect(rig.origin.last.edge.writeCount).toBe(1);
    expect(rig.origin.requests.map(({ head, body }) => [head.method, head.target, body])).toEqual([
      ["POST", "/x", "hello"],
    ]);
  });

  test("may be a GET with a body", async () => {
    const rig = new TestRig();
    await rig.ask({ body: utf8Encode("query") });
    expect(rig.origin.requests[0]?.body).toBe("query");
  });

  test("streams a chunked body with its trailers", async () => {
    const rig = new TestRig();
    const body = new FedBody([utf8Encode("one ")]);
    body.trailers = new HeaderList(["X-Sum", "1", "Host", "evil", "X_Forwarded_For", "6.6.6.6"]);
    const asked = rig.ask({ method: "POST", body, fields: [["Transfer-Encoding", "chunked"]] });
    await settle();
    body.feed(utf8Encode("x".repeat(40_000)));
    await settle();
    body.feed(null);
    expect((await asked).text).toBe("ok");
    const seen = rig.origin.requests[0]!;
    expect(seen.body).toBe(`one ${"x".repeat(40_000)}`);
    expect(seen.trailers?.raw).toEqual(["X-Sum", "1"]);
  });

  test("never gets a byte more than its length: the stream is broken off instead", async () => {
    const rig = new TestRig();
    const body = new FedBody([utf8Encode("1234"), utf8Encode("5678")], 6);
    expect((await rig.fails({ method: "POST", body })).code).toBe("BAD_REQUEST");
    await settle();
    expect(rig.origin.requests).toEqual([]);
    expect(rig.origin.last.isGone).toBe(true);
    expect(body.cancelled?.code).toBe("BAD_REQUEST");
  });

  test("whose visitor breaks off in the body breaks off towards the origin", async () => {
    const rig = new TestRig();
    const body = new FedBody([utf8Encode("12")], 6);
    const failing = rig.fails({ method: "POST", body });
    await settle();
    body.break(new SallyError("VISITOR_GONE"));
    expect((await failing).code).toBe("VISITOR_GONE");
    await settle();
    expect(rig.origin.last.closeError).toBeDefined();
  });

  test("is pulled only as fast as the origin takes it", async () => {
    const rig = new TestRig({ onDial: (side) => (side.isReading = false) }, { unconsumedBytes: 64 * 1024 });
    const piece = new Uint8Array(16 * 1024);
    const body = new FedBody(Array.from({ length: 100 }, () => piece));
    const exchange = new FakeExchange({ method: "POST", body });
    void rig.send(exchange).catch(() => {});
    await settle();
    expect(rig.origin.last.edge.queuedBytes).toBeLessThan(300 * 1024);
    expect(body.readCount).toBeLessThan(30);
    exchange.abort(new SallyError("VISITOR_GONE"));
  });

  test("that is aborted resets the stream within the same tick", async () => {
    const rig = new TestRig({ onRequest() {} });
    const exchange = new FakeExchange();
    const sent = rig.send(exchange);
    await settle();
    exchange.abort(new SallyError("VISITOR_GONE"));
    expect(rig.origin.last.edge.resetError?.code).toBe("VISITOR_GONE");
    expect(await codeOf(sent)).toBe("VISITOR_GONE");
  });

  test("whose visitor had gone before is not sent", async () => {
    const rig = new TestRig();
    const exchange = new FakeExchange();
    exchange.abort(new SallyError("VISITOR_GONE"));
    expect((await rig.fails(exchange)).code).toBe("VISITOR_GONE");
    expect(rig.origin.dials).toEqual([]);
  });

  test("with a trailer that is no field line fails alone", async () => {
    const rig = new TestRig();
    const body = new FedBody([utf8Encode("x")]);
    body.trailers = new HeaderList(["X-A", "1\r\nX-B: 2"]);
    const failing = rig.fails({ method: "POST", body });
    await settle();
    body.feed(null);
    expect((await failing).code).toBe("INTERNAL");
    await settle();
    expect(rig.origin.requests).toEqual([]);
    expect((await rig.ask()).text).toBe("ok");
  });

  test("that was aborted after its reply leaves the stream to others", async () => {
    const rig = new TestRig();
    const exchange = new FakeExchange();
    await rig.ask(exchange);
    exchange.abort(new SallyError("VISITOR_GONE"));
    await rig.ask();
    expect(rig.origin.streams.length).toBe(1);
    expect(rig.origin.requests.length).toBe(2);
  });
});

describe("a reply", () => {
  test("keeps order, case and duplicates, loses hop-by-hop fields, gains nothing", async () => {
    const rig = saying(
      "HTTP/1.1 299 Odd Reason\r\nX-b: 1\r\nConnection: keep-alive, X-Own\r\nSet-Cookie: a\r\nX-Own: 1\r\n" +
        "set-cookie: b\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\nVia: 1.0 x\r\n\r\nok",
    );
    const { head } = (await rig.ask()).reply;
    expect([head.status, head.reason]).toEqual([299, "Odd Reason"]);
    const expected = "X-b 1 Set-Cookie a set-cookie b Content-Length 2 Via 1.0_x";
    expect(head.headers.raw).toEqual(expected.split(" ").map((word) => word.replace("_", " ")));
  });

  test("that came whole answers at once, and its stream is free already", async () => {
    const rig = new TestRig();
    const reply = await rig.send(new FakeExchange());
    if (reply.kind !== "message") throw new Error("not a message");
    expect(rig.client.idleCount("demo")).toBe(1);
    expect(utf8Decode(reply.body.read() as Uint8Array)).toBe("ok");
    expect(reply.body.read()).toBeNull();
  });

  test("is the same however its bytes are cut", async () => {
    const replies: [string, string, string][] = [
      ["HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world", "hello world", ""],
      [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
        "hello world",
        "1",
      ],
      ["HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", ""],
      ["HTTP/1.1 204 No Content\r\n\r\n", "", ""],
      ["HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", "", ""],
    ];
    for (const [bytes, text, trailer] of replies) {
      for (let size = 1; size <= bytes.length; size++) {
        const rig = new TestRig(
          { onRequest: (_request, side) => void side.say(bytes) },
          { nextChunkBytes: () => size },
        );
        const answer = await rig.ask();
        expect(answer.text).toBe(text);
        expect(answer.reply.body.trailers?.get("x-t") ?? "").toBe(trailer);
        await settle();
        expect(rig.client.idleCount("demo")).toBe(1);
        await rig.ask();
        expect(rig.origin.streams.length).toBe(1);
        expect(rig.origin.streams[0]?.edge.unconsumedBytes).toBe(0);
      }
    }
  }, 60_000);

  test("to HEAD has no body, whatever its length says", async () => {
    const rig = saying("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    const { reply, text } = await rig.ask({ method: "HEAD" });
    expect(text).toBe("");
    expect(reply.head.headers.get("content-length")).toBe("1000");
    expect(rig.client.idleCount("demo")).toBe(1);
  });

  test("without a length ends with the connection, if that ends cleanly", async () => {
    const rig = sayingLast("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    expect((await rig.ask()).text).toBe("until the end");
    expect(rig.client.idleCount("demo")).toBe(0);
    await settle();
    expect(rig.origin.last.hasEdgeEnded).toBe(true);
    const broken = new TestRig({
      async onRequest(_request, side) {
        side.say("HTTP/1.1 200 OK\r\n\r\nuntil the");
        await settle();
        side.break();
      },
    });
    expect((await broken.fails()).code).toBe("ORIGIN_RESET");
  });

  test("that is short of its length fails in the body", async () => {
    const rig = sayingLast("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
    const reply = await rig.send(new FakeExchange());
    if (reply.kind !== "message") throw new Error("not a message");
    expect(reply.head.status).toBe(200);
    expect(await codeOf(readText(reply.body))).toBe("ORIGIN_CLOSED");
    const chunked = sayingLast("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    expect((await chunked.fails()).code).toBe("ORIGIN_CLOSED");
  });

  for (const bad of [
    "garbage\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    `HTTP/1.1 200 OK\r\nX: ${"a".repeat(limits.replyHeadBytes)}\r\n\r\n`,
  ]) {
    test(`that could be read in two ways is refused: ${JSON.stringify(bad.slice(0, 60))}`, async () => {
      const rig = saying(bad);
      expect((await rig.fails()).code).toBe("ORIGIN_BAD_REPLY");
      expect(rig.client.idleCount("demo")).toBe(0);
      await settle();
      expect(rig.origin.last.isGone).toBe(true);
    });
  }

  test("may have a head of 256 KiB, and no byte more", async () => {
    const head = (bytes: number): string => {
      const [start, end] = ["HTTP/1.1 200 OK\r\nX: ", "\r\nContent-Length: 2\r\n\r\n"];
      return `${start}${"a".repeat(bytes - start.length - end.length)}${end}ok`;
    };
    expect((await saying(head(limits.replyHeadBytes)).ask()).text).toBe("ok");
    expect((await saying(head(limits.replyHeadBytes + 1)).fails()).code).toBe("ORIGIN_BAD_REPLY");
  });

  test("with bytes behind its end gives no second reply", async () => {
    const rig = saying(`${ok}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`);
    expect((await rig.ask()).text).toBe("ok");
    expect((await rig.ask()).text).toBe("ok");
    expect(rig.origin.streams.length).toBe(2);
  });

  test("that is not read holds the origin back, and its stream is not reused", async () => {
    const rig = new TestRig(
      {
        onRequest(_request, side) {
          side.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
          for (let i = 0; i < 100; i++) side.write(new Uint8Array(10_000));
        },
      },
      { unconsumedBytes: 64 * 1024 },
    );
    const reply = await rig.send(new FakeExchange());
    await settle();
    expect(rig.origin.last.edge.unconsumedBytes).toBeLessThan(80_000);
    if (reply.kind !== "message") throw new Error("not a message");
    expect((await readText(reply.body)).length).toBe(1_000_000);
    expect(rig.client.idleCount("demo")).toBe(1);
    expect(rig.origin.last.edge.unconsumedBytes).toBe(0);
  });

  test("that is complete but not read keeps its stream to itself", async () => {
    const rig = new TestRig({
      async onRequest(_request, side) {
        side.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        await settle();
        side.say("done");
      },
    });
    const reply = await rig.send(new FakeExchange());
    await settle();
    await settle();
    expect(rig.client.idleCount("demo")).toBe(0);
    if (reply.kind !== "message") throw new Error("not a message");
    expect(await readText(reply.body)).toBe("done");
    expect(rig.client.idleCount("demo")).toBe(1);
  });

  test("that is complete and then not wanted frees its stream", async () => {
    const rig = new TestRig({
      async onRequest(_request, side) {
        side.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        await settle();
        side.say("done");
      },
    });
    const reply = await rig.send(new FakeExchange());
    await settle();
    await settle();
    if (reply.kind !== "message") throw new Error("not a message");
    reply.body.cancel(new SallyError("VISITOR_GONE"));
    expect(rig.client.idleCount("demo")).toBe(1);
    expect(rig.origin.last.edge.unconsumedBytes).toBe(0);
  });

  test("whose reader loses interest resets the stream", async () => {
    const rig = saying("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome");
    const reply = await rig.send(new FakeExchange());
    if (reply.kind !== "message") throw new Error("not a message");
    reply.body.cancel(new SallyError("VISITOR_GONE"));
    expect(rig.origin.last.edge.resetError?.code).toBe("VISITOR_GONE");
  });

  test("that does not begin in time is a time-out, and is not asked for again", async () => {
    const rig = new TestRig({ onRequest() {} });
    const failing = rig.fails();
    await settle();
    rig.clock.advance(limits.replyHeadMs + 250);
    expect((await failing).code).toBe("ORIGIN_TIMEOUT");
    expect(rig.origin.dials.length).toBe(1);
    await settle();
    expect(rig.origin.last.isGone).toBe(true);
  });

  test("may take its time in the body", async () => {
    const rig = saying("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
    const asked = rig.ask();
    await settle();
    rig.clock.advance(10 * limits.replyHeadMs);
    rig.origin.last.say("cd");
    expect((await asked).text).toBe("abcd");
  });
});

describe("interim replies", () => {
  test("are relayed in order, before the final one", async () => {
    const rig = saying(
      `HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n${ok}`,
    );
    const exchange = new FakeExchange();
    expect((await rig.ask(exchange)).text).toBe("ok");
    expect(exchange.informed.map((head) => [head.status, head.reason, head.headers.raw])).toEqual([
      [102, "Processing", []],
      [103, "Early Hints", ["Link", "</a>"]],
    ]);
  });

  test("are not shown to an HTTP/1.0 visitor", async () => {
    const rig = saying(`HTTP/1.1 103 Early Hints\r\n\r\n${ok}`);
    const exchange = new FakeExchange({ minorVersion: 0 });
    expect((await rig.ask(exchange)).text).toBe("ok");
    expect(exchange.informed).toEqual([]);
  });

  test("are bounded", async () => {
    const interim = "HTTP/1.1 102 Processing\r\n\r\n";
    const atLimit = saying(interim.repeat(limits.interimReplies) + ok);
    expect((await atLimit.ask()).text).toBe("ok");
    const above = saying(interim.repeat(limits.interimReplies + 1) + ok);
    expect((await above.fails()).code).toBe("ORIGIN_BAD_REPLY");
  });

  test("100: the body is not pulled before the origin says Continue", async () => {
    let side: OriginSide | undefined;
    const rig = new TestRig({ onHead: (_head, origin) => void (side = origin) });
    const body = new FedBody([utf8Encode("data")], 4);
    const exchange = new FakeExchange({ method: "PUT", body, fields: [["Expect", "100-continue"]] });
    const asked = rig.ask(exchange);
    await settle();
    expect(body.readCount).toBe(0);
    side?.say("HTTP/1.1 100 Continue\r\n\r\n");
    expect((await asked).text).toBe("ok");
    expect(exchange.informed.map((head) => head.status)).toEqual([100]);
    expect(rig.origin.requests[0]?.body).toBe("data");
    expect(rig.client.idleCount("demo")).toBe(1);
  });

  test("100: after a second without it the body is sent anyway", async () => {
    const rig = new TestRig();
    const body = new FedBody([utf8Encode("data")], 4);
    const asked = rig.ask({ method: "PUT", body, fields: [["Expect", "100-continue"]] });
    await settle();
    rig.clock.advance(limits.continueMs - 1);
    await settle();
    expect(body.readCount).toBe(0);
    rig.clock.advance(1 + 250); // deadlines are looked at four times a second
    expect((await asked).text).toBe("ok");
    expect(rig.origin.requests[0]?.body).toBe("data");
  });

  test("100: a final reply instead means that the body is never pulled", async () => {
    const rig = new TestRig({
      onHead: (_head, side) => void side.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
    });
    const body = new FedBody([utf8Encode("data")], 4);
    const { reply } = await rig.ask({ method: "PUT", body, fields: [["Expect", "100-continue"]] });
    expect(reply.head.status).toBe(417);
    expect(body.readCount).toBe(0);
    expect(body.cancelled).toBeDefined();
    expect(rig.client.idleCount("demo")).toBe(0);
  });
});

describe("an early reply", () => {
  const early = (text: string): TestRig => new TestRig({ onHead: (_head, side) => void side.say(text) });

  test("is relayed while the body still flows, as long as the reply flows", async () => {
    const rig = early("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const body = new FedBody([]);
    const reply = await rig.send(new FakeExchange({ method: "POST", body }));
    if (reply.kind !== "message") throw new Error("not a message");
    for (let i = 0; i < 20; i++) {
      body.feed(new Uint8Array(16 * 1024));
      await settle();
    }
    body.feed(null);
    await settle();
    expect(rig.origin.requests[0]?.body.length).toBe(20 * 16 * 1024);
    rig.origin.last.say("2\r\nok\r\n0\r\n\r\n");
  });

  test("that is complete drains a little of the body and reuses the stream when both ended", async () => {
    const rig = early("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    rig.origin.script.onRequest = () => {};
    const body = new FedBody([utf8Encode("a")], 1_000);
    const { reply } = await rig.ask({ method: "POST", body });
    expect(reply.head.status).toBe(413);
    expect(rig.client.idleCount("demo")).toBe(0);
    body.feed(new Uint8Array(999));
    await settle();
    expect(body.cancelled).toBeUndefined();
    expect(rig.client.idleCount("demo")).toBe(1);
  });

  test("drains no more than the bound, then both sides close", async () => {
    const rig = early("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    const body = new FedBody([], 10_000_000);
    const { reply } = await rig.ask({ method: "POST", body });
    expect(reply.head.status).toBe(413);
    for (let i = 0; i < 4; i++) {
      body.feed(new Uint8Array(16 * 1024));
      await settle();
    }
    expect(body.cancelled).toBeUndefined();
    body.feed(new Uint8Array(1));
    await settle();
    expect(body.cancelled).toBeDefined();
    expect(rig.origin.last.isGone).toBe(true);
    expect(rig.client.idleCount("demo")).toBe(0);
  });

  test("drains not for ever: a body that stalls is cut after the linger time", async () => {
    const rig = early("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    const body = new FedBody([], 1_000);
    await rig.ask({ method: "POST", body });
    rig.clock.advance(limits.socketLingerMs + 250);
    expect(body.cancelled).toBeDefined();
  });

  test("with Connection: close stops writing at once", async () => {
    const rig = early("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    const body = new FedBody([], 100_000);
    await rig.ask({ method: "POST", body });
    const written = rig.origin.last.edge.writtenBytes;
    body.feed(new Uint8Array(1_000));
    await settle();
    expect(rig.origin.last.edge.writtenBytes).toBe(written);
    body.feed(new Uint8Array(90_000));
    await settle();
    expect(body.cancelled).toBeDefined();
  });
});

describe("an upgrade", () => {
  const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
  const fields = [
    ["Connection", "Upgrade"],
    ["Upgrade", "websocket"],
  ] as const;

  test("hands over the stream, first with what came behind the head", async () => {
    const rig = new TestRig({ onRequest: (_request, side) => void side.say(`${head}early`) });
    const reply = await rig.send(new FakeExchange({ fields, wantsUpgrade: true }));
    if (reply.kind !== "upgrade") throw new Error("not an upgrade");
    expect(reply.head.status).toBe(101);
    expect(reply.head.headers.raw).toEqual(["Connection", "Upgrade", "Upgrade", "websocket"]);
    const got: string[] = [];
    let ends = 0;
    let closes = 0;
    rig.origin.last.say(" late");
    await settle();
    reply.stream.handler = {
      onData: (chunk) => {
        got.push(utf8Decode(chunk));
        reply.stream.consume(chunk.length);
      },
      onEnd: () => void ends++,
      onDrain() {},
      onClose: () => void closes++,
    };
    expect(got).toEqual([]);
    await settle();
    expect(got.join("")).toBe("early late");
    rig.origin.script.onBytes = (chunk, side) => {
      side.say(`echo ${utf8Decode(chunk)}`);
      return true;
    };
    reply.stream.write(utf8Encode("ping"));
    await settle();
    expect(got.at(-1)).toBe("echo ping");
    // Half-close: the origin ends, we still write.
    rig.origin.last.end();
    await settle();
    expect([ends, closes]).toEqual([1, 0]);
    reply.stream.end();
    await settle();
    expect(closes).toBe(1);
    expect(rig.client.idleCount("demo")).toBe(0);
  });

  test("that ended before anybody took it over is still told", async () => {
    const rig = new TestRig({ onRequest: (_request, side) => void side.say(`${head}x`) });
    const reply = await rig.send(new FakeExchange({ fields, wantsUpgrade: true }));
    if (reply.kind !== "upgrade") throw new Error("not an upgrade");
    rig.origin.last.break();
    await settle();
    const seen: string[] = [];
    reply.stream.handler = {
      onData: (chunk) => void seen.push(utf8Decode(chunk)),
      onEnd: () => void seen.push("end"),
      onDrain() {},
      onClose: (error) => void seen.push(error?.code ?? "clean"),
    };
    await settle();
    expect(seen).toEqual(["x", "ORIGIN_RESET"]);
  });

  test("that the visitor leaves before it is taken over is reset", async () => {
    const rig = new TestRig({ onRequest: (_request, side) => void side.say(head) });
    const exchange = new FakeExchange({ fields, wantsUpgrade: true });
    await rig.send(exchange);
    exchange.abort(new SallyError("VISITOR_GONE"));
    expect(rig.origin.last.edge.resetError?.code).toBe("VISITOR_GONE");
  });

  test("may be declined: then it is a reply like any other", async () => {
    const rig = new TestRig();
    expect((await rig.ask({ fields, wantsUpgrade: true })).text).toBe("ok");
    expect(rig.client.idleCount("demo")).toBe(1);
  });
});

describe("authentication of the connection", () => {
  const visitorOf = (name: string) => {
    const connection = new FakeConnection();
    return { connection, fields: [["X-User", name]] as const };
  };

  test("NTLM: two visitors never share a stream that one of them authenticated", async () => {
    const rig = new TestRig({
      onRequest: (_request, side) =>
        void side.say(
          "HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
        ),
    });
    const [ann, bob] = [visitorOf("ann"), visitorOf("bob")];
    await rig.ask(ann);
    expect(rig.client.idleCount("demo")).toBe(0);
    await rig.ask(bob);
    rig.origin.script.onRequest = (_request, side) => void side.say(ok);
    for (let i = 0; i < 3; i++) {
      await rig.ask(ann);
      await rig.ask(bob);
    }
    const users = rig.origin.requests.map((request) => [request.stream, request.head.headers.get("x-user")]);
    expect(users.filter(([stream]) => stream === 1).every(([, user]) => user === "ann")).toBe(true);
    expect(users.filter(([stream]) => stream === 2).every(([, user]) => user === "bob")).toBe(true);
    expect(rig.origin.streams.length).toBe(2);
    ann.connection.close();
    await settle();
    expect(rig.origin.streams[0]?.hasEdgeEnded).toBe(true);
    expect(rig.origin.streams[1]?.hasEdgeEnded).toBe(false);
    await rig.ask();
    expect(rig.origin.streams.length).toBe(3);
  });

  test("a request with NTLM credentials pins its stream whatever the reply says", async () => {
    const rig = new TestRig();
    const { connection } = visitorOf("ann");
    await rig.ask({ connection, fields: [["Authorization", "ntlm TlRMTVNTUAAB"]] });
    expect(rig.client.idleCount("demo")).toBe(0);
    await rig.ask();
    expect(rig.origin.streams.length).toBe(2);
    await rig.ask({ connection });
    expect(rig.origin.requests.map((request) => request.stream)).toEqual([1, 2, 1]);
  });

  test("a stream that a visitor left while it was busy is not pooled", async () => {
    const rig = new TestRig({ onRequest() {} });
    const { connection } = visitorOf("ann");
    const asked = rig.ask({ connection, fields: [["Authorization", "Negotiate x"]] });
    await settle();
    connection.close();
    rig.origin.last.say(ok);
    await asked;
    await settle();
    expect(rig.origin.last.hasEdgeEnded).toBe(true);
  });

  test("Basic and Bearer are of the request: streams are shared", async () => {
    const rig = new TestRig();
    await rig.ask({ fields: [["Authorization", "Basic eDp5"]] });
    await rig.ask({ fields: [["Authorization", "Bearer NTLM"]] });
    expect(rig.origin.streams.length).toBe(1);
  });
});

describe("of the idle streams", () => {
  /** Three streams that idle at once. */
  async function withThreeIdle(): Promise<TestRig> {
    const rig = new TestRig({ onRequest() {} });
    const asked = [rig.ask(), rig.ask(), rig.ask()];
    await settle();
    for (const side of rig.origin.streams) side.say(ok);
    await Promise.all(asked);
    await settle();
    expect(rig.client.idleCount("demo")).toBe(3);
    rig.origin.script.onRequest = (_request, side) => void side.say(ok);
    return rig;
  }
  const load = (rig: TestRig, ...bytes: number[]): void =>
    rig.origin.streams.forEach((side, i) => (side.edge.laneLoadBytes = bytes[i] ?? 0));

  test("the one on the least loaded lane is taken, the last used among equals", async () => {
    const rig = await withThreeIdle();
    load(rig, 500, 10, 2_000);
    await rig.ask();
    expect(rig.origin.requests.at(-1)?.stream).toBe(2);
    load(rig, 0, 0, 0);
    await rig.ask();
    await rig.ask();
    expect(rig.origin.requests.slice(-2).map((request) => request.stream)).toEqual([2, 2]);
  });

  test("none is taken while all are behind bulk: a new stream may open on another lane", async () => {
    const rig = await withThreeIdle();
    load(rig, 70_000, 80_000, 90_000);
    await rig.ask();
    expect(rig.origin.streams.length).toBe(4);
  });
});

describe("a probe", () => {
  test("has a stream of its own that is not pooled, and carries its nonce", async () => {
    const rig = new TestRig();
    const exchange = new FakeExchange({ fields: [["Sally-Probe", "abc"]] });
    await rig.send(exchange, demoTunnel, "probe");
    expect(rig.origin.dials).toMatchObject([{ tunnel: "demo", protocol: "probe" }]);
    expect(rig.origin.requests[0]?.head.headers.get("sally-probe")).toBe("abc");
    expect(rig.client.idleCount("demo")).toBe(0);
  });
});
