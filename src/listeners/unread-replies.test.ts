import { describe, expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { memoryDuplexPair } from "../core/memory-duplex.ts";
import { type Body, bytesBody, emptyBody } from "../http/body.ts";
import { errorReply } from "../http/error-page.ts";
import type { Exchange, Handler, Reply } from "../http/exchange.ts";
import { HeaderList } from "../http/header-list.ts";
import { serveHttp1 } from "./http1.ts";
import { QueueWatch } from "./visitor-pace.ts";

const settle = () => new Promise((resolve) => setImmediate(resolve));
const get = (path = "/", fields = "") => `GET ${path} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`;
const replyBytes = 12_000;
/** The duplex's mark, and what one reply, its head and one interim reply may add. */
const queueMaxBytes = limits.socketQueueHighBytes + replyBytes + 1_000;

function bigReply(): Reply {
  const head = { status: 200, reason: "OK", headers: new HeaderList() };
  return { kind: "message", head, body: bytesBody(new Uint8Array(replyBytes).fill(120)) };
}

/** A visitor who consumes nothing of what comes until `isReading` is set. */
function connect(handler: Handler) {
  const clock = new FakeClock();
  const [near, far] = memoryDuplexPair({ unconsumedBytes: 1 });
  const seen = { text: "", isClosed: false, hasEnded: false };
  const visitor = {
    duplex: near,
    seen,
    unread: 0,
    isReading: false,
    read(): void {
      visitor.isReading = true;
      const { unread } = visitor;
      visitor.unread = 0;
      near.consume(unread);
    },
    async send(text: string): Promise<void> {
      near.write(utf8Encode(text));
      await settle();
    },
  };
  near.handler = {
    onData(chunk) {
      seen.text += utf8Decode(chunk);
      if (visitor.isReading) near.consume(chunk.length);
      else visitor.unread += chunk.length;
    },
    onEnd: () => void (seen.hasEnded = true),
    onDrain() {},
    onClose: () => void (seen.isClosed = true),
  };
  const options = { handler, errorPage: errorReply, clock, log: silentLogger, limits, writeStallMs: 10_000 };
  const service = serveHttp1(far, { remote: { host: "192.0.2.1", port: 1 }, scheme: "http" }, options);
  const advance = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 500) {
      clock.advance(Math.min(500, left));
      await settle();
    }
  };
  return { visitor, seen, far, service, advance };
}

const replies = (text: string): number => text.split("HTTP/1.1 200 OK\r\n").length - 1;

describe("a visitor who does not read", () => {
  test("and sends request after request is served up to the mark of its queue, then its requests wait", async () => {
    let served = 0;
    const { visitor, seen, far } = connect(async () => (served++, bigReply()));
    for (let n = 0; n < 200; n++) await visitor.send(get());
    expect(far.queuedBytes).toBeGreaterThan(limits.socketQueueHighBytes);
    expect(far.queuedBytes).toBeLessThan(queueMaxBytes);
    expect(served).toBeLessThan(30);
    expect(far.unconsumedBytes).toBeGreaterThan(0); // so that the socket pauses
    visitor.read();
    for (let n = 0; n < 1_000 && replies(seen.text) < 200; n++) await settle();
    expect(served).toBe(200);
    expect(replies(seen.text)).toBe(200);
    expect(far.unconsumedBytes).toBe(0);
  });

  test("is not sent error pages without end either", async () => {
    const { visitor, far } = connect(async () => {
      throw new Error("a bug");
    });
    for (let n = 0; n < 50; n++) await visitor.send(get("/", "Accept: text/html\r\n").repeat(20));
    expect(far.queuedBytes).toBeLessThan(queueMaxBytes);
  });

  test("and has ended its side gets all replies once it reads, then the end", async () => {
    const { visitor, seen } = connect(async () => bigReply());
    await visitor.send(get().repeat(40));
    visitor.duplex.end();
    await settle();
    expect(seen.hasEnded).toBe(false);
    visitor.read();
    for (let n = 0; n < 1_000 && !seen.hasEnded; n++) await settle();
    expect(replies(seen.text)).toBe(40);
    expect(seen.hasEnded).toBe(true);
  });

  test("and then goes leaves nothing behind", async () => {
    const { visitor, far, service } = connect(async () => bigReply());
    await visitor.send(get().repeat(100));
    visitor.duplex.fail(new SallyError("LINK_LOST"));
    far.fail(new SallyError("LINK_LOST"));
    await settle();
    expect(service.connectionCount).toBe(0);
    expect(far.queuedBytes).toBe(0);
  });

  test("is cut off after the time for that, though what waits for it grows", async () => {
    const small: Reply = {
      kind: "message",
      head: { status: 200, reason: "OK", headers: new HeaderList() },
      body: emptyBody,
    };
    const { visitor, service, advance } = connect(async () => small);
    for (let second = 0; second < 9; second++) {
      await visitor.send(get());
      await advance(1_000);
    }
    expect(service.connectionCount).toBe(1);
    for (let second = 0; second < 4; second++) {
      await visitor.send(get());
      await advance(1_000);
    }
    expect(service.connectionCount).toBe(0);
  });
});

describe("a reply that breaks off while the visitor does not keep up", () => {
  /** The first reply is whole, and fills the pipe. */
  const handler: Handler = async ({ request }) => {
    if (request.target !== "/broken") return bigReply();
    const head = { status: 200, reason: "OK", headers: new HeaderList(["Content-Length", "20000"]) };
    return { kind: "message", head, body: new BrokenBody() };
  };
  /** Half of what was promised. */
  class BrokenBody implements Body {
    readonly length = 20_000;
    readonly trailers = undefined;
    #isRead = false;
    read(): Uint8Array | Promise<never> {
      if (this.#isRead) return Promise.reject(new SallyError("ORIGIN_CLOSED"));
      this.#isRead = true;
      return new Uint8Array(10_000).fill(120);
    }
    cancel(): void {}
  }

  test("is reset once what there was of it has left", async () => {
    const { visitor, seen, service, advance } = connect(handler);
    await visitor.send(get() + get("/broken"));
    await advance(5_000);
    expect(seen.isClosed).toBe(false);
    visitor.read();
    await advance(1_000);
    expect(seen.text.match(/x/g)).toHaveLength(replyBytes + 10_000);
    expect(seen).toMatchObject({ isClosed: true, hasEnded: false });
    expect(service.connectionCount).toBe(0);
  });

  test("is reset when nothing of it leaves for too long", async () => {
    const { visitor, service, advance } = connect(handler);
    await visitor.send(get() + get("/broken"));
    await advance(9_000);
    expect(service.connectionCount).toBe(1);
    await advance(4_000);
    expect(service.connectionCount).toBe(0);
  });
});

test("a queue is stuck when no byte leaves it, whatever comes in", () => {
  const watch = new QueueWatch();
  const isStuck = (queuedBytes: number, writtenBytes: number, nowMs: number): boolean =>
    watch.isStuck({ queuedBytes, undeliveredBytes: queuedBytes, writtenBytes }, nowMs, 1_000);
  expect(isStuck(10, 10, 0)).toBe(false);
  expect(isStuck(500, 500, 999)).toBe(false);
  expect(isStuck(900, 901, 1_500)).toBe(false); // one byte left
  expect(isStuck(901, 902, 2_499)).toBe(false);
  expect(isStuck(2_000, 2_001, 2_500)).toBe(true);
  expect(isStuck(0, 2_001, 9_000)).toBe(false);
  expect(isStuck(5, 2_006, 20_000)).toBe(false); // since now
});

test("a queue is not stuck while what the system holds becomes less", () => {
  const watch = new QueueWatch();
  const isStuck = (undeliveredBytes: number, nowMs: number): boolean =>
    watch.isStuck({ queuedBytes: 10, undeliveredBytes, writtenBytes: 5_000 }, nowMs, 1_000);
  expect(isStuck(4_010, 0)).toBe(false);
  expect(isStuck(4_009, 1_000)).toBe(false);
  expect(isStuck(4_008, 2_000)).toBe(false);
  expect(isStuck(4_008, 3_000)).toBe(true);
});

const hints = (bytes: number) => ({
  status: 103,
  reason: "Early Hints",
  headers: new HeaderList(["Link", "x".repeat(bytes)]),
});

describe("interim replies", () => {
  test("are left out while the visitor does not keep up, and the reply comes all the same", async () => {
    let kept: Exchange | undefined;
    let answer: ((reply: Reply) => void) | undefined;
    const { visitor, seen, far } = connect((exchange) => {
      if (exchange.request.target !== "/late") return Promise.resolve(bigReply());
      kept = exchange;
      return new Promise((resolve) => (answer = resolve));
    });
    const filling = Math.floor(limits.socketQueueHighBytes / replyBytes) + 1;
    await visitor.send(get().repeat(filling) + get("/late"));
    for (let n = 0; n < 100; n++) kept!.inform(hints(1_000));
    expect(far.queuedBytes).toBeLessThan(queueMaxBytes);
    visitor.read();
    answer!(bigReply());
    for (let n = 0; n < 200; n++) await settle();
    expect(replies(seen.text)).toBe(filling + 1);
  });

  test("are relayed up to a number of bytes for one reply, and left out beyond it", async () => {
    const frameBytes = "HTTP/1.1 103 Early Hints\r\nLink: \r\n\r\n".length;
    const restBytes = limits.interimReplyBytes - 3 * frameBytes - 1_000 - 1;
    for (const [overBytes, count] of [
      [0, 3],
      [1, 2], // the second is left out, the short one behind it still fits
    ] as const) {
      const { visitor, seen } = connect(async (exchange) => {
        exchange.inform(hints(1_000));
        exchange.inform(hints(restBytes + overBytes));
        exchange.inform(hints(1));
        return bigReply();
      });
      visitor.read();
      await visitor.send(get());
      await visitor.send(get()); // counted anew
      expect(replies(seen.text)).toBe(2);
      expect(seen.text.split("HTTP/1.1 103").length - 1).toBe(2 * count);
    }
  });

  test("an awaited 100 comes always: without its fields when those are too long", async () => {
    const { visitor, seen } = connect(async (exchange) => {
      exchange.inform({
        status: 100,
        reason: "Go",
        headers: new HeaderList(["A", "x".repeat(limits.interimReplyBytes)]),
      });
      expect(utf8Decode((await exchange.body.read())!)).toBe("abc");
      return bigReply();
    });
    visitor.read();
    await visitor.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    expect(seen.text).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    await visitor.send("abc");
    expect(replies(seen.text)).toBe(1);
  });

  test("carry no Content-Length and no Transfer-Encoding, and keep the rest in order", async () => {
    const fields = ["A", "1", "content-length", "40", "Link", "</a>", "Transfer-Encoding", "chunked", "B", "2"];
    const { visitor, seen } = connect(async (exchange) => {
      exchange.inform({ status: 103, reason: "Early Hints", headers: new HeaderList([...fields]) });
      return bigReply();
    });
    visitor.read();
    await visitor.send(get());
    expect(seen.text).toStartWith("HTTP/1.1 103 Early Hints\r\nA: 1\r\nLink: </a>\r\nB: 2\r\n\r\nHTTP/1.1 200 OK\r\n");
  });
});

test("a switch of protocols carries no Content-Length and no Transfer-Encoding", async () => {
  const fields = [
    "Upgrade",
    "x",
    "Content-Length",
    "3",
    "Connection",
    "Upgrade",
    "transfer-encoding",
    "chunked",
    "B",
    "2",
  ];
  const head = { status: 101, reason: "Switching", headers: new HeaderList(fields) };
  const { visitor, seen } = connect(async () => ({ kind: "upgrade", head, stream: memoryDuplexPair()[0] }));
  visitor.read();
  await visitor.send(get("/", "Connection: upgrade\r\nUpgrade: x\r\n"));
  expect(seen.text).toBe("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\nB: 2\r\n\r\n");
});
