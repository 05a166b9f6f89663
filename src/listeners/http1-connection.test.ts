import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { type MemoryDuplex, type MemoryDuplexOptions, memoryDuplexPair } from "../core/memory-duplex.ts";
import { type Body, bytesBody, emptyBody } from "../http/body.ts";
import { errorReply } from "../http/error-page.ts";
import type { Exchange, Handler, Reply } from "../http/exchange.ts";
import { HeaderList } from "../http/header-list.ts";
import { serveHttp1 } from "./http1.ts";
import type { AccessRecord, Http1Options, LinkRequest } from "./http1-options.ts";

const settle = () => new Promise((resolve) => setImmediate(resolve));
const remote = { host: "192.0.2.1", port: 1234 };

interface Seen {
  text: string;
  ended: boolean;
  closed: boolean;
  error: SallyError | undefined;
}

/** The visitor's side of a connection. */
class Client {
  readonly seen: Seen = { text: "", ended: false, closed: false, error: undefined };
  /** False: bytes are received but not consumed. */
  reads = true;
  readonly duplex: MemoryDuplex;
  constructor(duplex: MemoryDuplex) {
    this.duplex = duplex;
    duplex.handler = {
      onData: (chunk) => {
        this.seen.text += utf8Decode(chunk);
        if (this.reads) duplex.consume(chunk.length);
      },
      onEnd: () => void (this.seen.ended = true),
      onDrain: () => {},
      onClose: (error) => {
        this.seen.closed = true;
        this.seen.error = error;
      },
    };
  }
  async send(text: string): Promise<string> {
    this.duplex.write(utf8Encode(text));
    await settle();
    return this.seen.text;
  }
  take(): string {
    const { text } = this.seen;
    this.seen.text = "";
    return text;
  }
}

function connect(handler: Handler, more: Partial<Http1Options> = {}, pipe: MemoryDuplexOptions = {}) {
  const clock = new FakeClock();
  const [near, far] = memoryDuplexPair(pipe);
  const client = new Client(near);
  const options = { handler, errorPage: errorReply, clock, log: silentLogger, limits, ...more };
  const service = serveHttp1(far, { remote, scheme: "http" }, options);
  const advance = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 500) {
      clock.advance(Math.min(500, left));
      await settle();
    }
  };
  return { client, clock, service, far, advance };
}

function reply(body: Body | string, raw: string[] = [], status = 200): Reply {
  const bytes = typeof body === "string" ? bytesBody(utf8Encode(body)) : body;
  return { kind: "message", head: { status, reason: "OK", headers: new HeaderList(raw) }, body: bytes };
}

async function readAll(body: Body): Promise<string> {
  let text = "";
  for (;;) {
    const piece = await body.read();
    if (piece === null) return text;
    text += utf8Decode(piece);
  }
}

/** A reply body fed by hand. */
class HandBody implements Body {
  readonly length: number | undefined;
  trailers: HeaderList | undefined;
  cancelled: SallyError | undefined;
  reads = 0;
  #waiters: ((piece: Uint8Array | null | SallyError) => void)[] = [];
  #ready: (Uint8Array | null | SallyError)[] = [];
  constructor(length?: number) {
    this.length = length;
  }
  async read(): Promise<Uint8Array | null> {
    this.reads++;
    const next = this.#ready.shift();
    const piece =
      next === undefined ? await new Promise<Uint8Array | null | SallyError>((r) => this.#waiters.push(r)) : next;
    if (piece instanceof SallyError) throw piece;
    return piece;
  }
  cancel(error: SallyError): void {
    this.cancelled ??= error;
  }
  async give(...pieces: (string | null | SallyError)[]): Promise<void> {
    for (const piece of pieces) {
      const value = typeof piece === "string" ? utf8Encode(piece) : piece;
      const waiter = this.#waiters.shift();
      if (waiter === undefined) this.#ready.push(value);
      else waiter(value);
      await settle();
    }
  }
}

const get = (path = "/", fields = "") => `GET ${path} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`;
const post = (body: string, fields = "") =>
  `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n${fields}\r\n${body}`;
const chunkedHead = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const hello: Handler = async (exchange) => reply(exchange.request.target);

describe("requests and replies", () => {
  test("kept-alive requests are answered one after the other, each in one write", async () => {
    const { client, far, service } = connect(hello);
    expect(await client.send(get("/a"))).toBe("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n/a");
    client.take();
    expect(await client.send(get("/b"))).toEndWith("/b");
    expect(far.writeCount).toBe(2);
    expect(client.duplex.queuedBytes + far.unconsumedBytes).toBe(0);
    expect(service.connectionCount).toBe(1);
  });

  test("pipelined requests reach the handler one at a time and are answered in order", async () => {
    const running: string[] = [];
    const gates: (() => void)[] = [];
    const { client, far } = connect(async ({ request }) => {
      running.push(request.target);
      await new Promise<void>((resolve) => gates.push(resolve));
      return reply(request.target);
    });
    await client.send(get("/1") + get("/2") + get("/3"));
    expect(running).toEqual(["/1"]);
    expect(far.unconsumedBytes).toBe(2 * get("/2").length);
    for (let n = 0; n < 3; n++) {
      gates[n]!();
      await settle();
    }
    expect(client.seen.text.match(/\/\d(?!\.)/g)).toEqual(["/1", "/2", "/3"]);
    expect(far.unconsumedBytes).toBe(0);
  });

  test("pipelined requests with bodies survive any cut", async () => {
    for (let size = 1; size < 60; size += 7) {
      const { client } = connect(
        async ({ body }) => reply(`<${await readAll(body)}>`),
        {},
        { nextChunkBytes: () => size },
      );
      const chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n";
      await client.send(post("one") + chunked + get() + post("two"));
      for (let n = 0; n < 20; n++) await settle();
      expect(client.seen.text.match(/<\w*>/g)).toEqual(["<one>", "<abcde>", "<>", "<two>"]);
    }
  });

  test("while a reply is not taken, further requests stay unread in the pipe", async () => {
    const { client, far } = connect(() => new Promise(() => {}), {}, { unconsumedBytes: 1_000 });
    await client.send(get("/x").repeat(100));
    expect(far.unconsumedBytes).toBeLessThan(5_000);
  });

  test("request trailers arrive with the end of the body", async () => {
    const { client } = connect(async ({ body }) => {
      await readAll(body);
      return reply(JSON.stringify(body.trailers?.raw));
    });
    await client.send(
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\nHost: b\r\n\r\n",
    );
    expect(client.seen.text).toEndWith('["X-T","1"]');
  });

  test("body bytes count as consumed when they are read", async () => {
    let exchange: Exchange | undefined;
    const { client, far } = connect((given) => {
      exchange = given;
      return new Promise(() => {});
    });
    await client.send(post("hello"));
    expect(far.unconsumedBytes).toBe(5);
    expect(exchange?.body.read()).toEqual(utf8Encode("hello")); // at once, no promise
    expect(far.unconsumedBytes).toBe(0);
    expect(exchange?.body.read()).toBeNull();
  });

  test.each(["Connection: close\r\n", "Connection: foo, Close\r\n"])(
    "%j ends the connection after the reply",
    async (fields) => {
      const { client, service } = connect(hello);
      expect(await client.send(get("/", fields))).toContain("Connection: close\r\n");
      expect(client.seen.ended).toBe(true);
      client.duplex.end();
      await settle();
      expect(client.seen).toMatchObject({ closed: true, error: undefined });
      expect(service.connectionCount).toBe(0);
    },
  );

  test("HTTP/1.0 is closed unless it asks to be kept", async () => {
    const first = connect(hello);
    expect(await first.client.send("GET / HTTP/1.0\r\n\r\n")).toContain("Connection: close\r\n");
    expect(first.client.seen.ended).toBe(true);
    const second = connect(hello);
    expect(await second.client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")).toContain(
      "Connection: keep-alive\r\n",
    );
    expect(second.client.seen.ended).toBe(false);
  });

  test("a visitor that shuts its side down still gets all its replies", async () => {
    let answer: ((reply: Reply) => void) | undefined;
    const { client } = connect(({ request }) =>
      request.target === "/1" ? new Promise((r) => (answer = r)) : hello(undefined as never),
    );
    const late = connect(async ({ request }) => {
      await settle();
      return reply(request.target);
    });
    client.duplex.write(utf8Encode(get("/1")));
    client.duplex.end();
    await settle();
    expect(client.seen.text).toBe("");
    answer!(reply("late"));
    await settle();
    expect(client.seen.text).toContain("Connection: close\r\n");
    expect(client.seen).toMatchObject({ ended: true, closed: true, error: undefined });
    late.client.duplex.write(utf8Encode(get("/1") + get("/2")));
    late.client.duplex.end();
    for (let n = 0; n < 5; n++) await settle();
    expect(late.client.seen.text).toEndWith("/2");
    expect(late.client.seen).toMatchObject({ closed: true, error: undefined });
  });
});

describe("reply framing", () => {
  test("HEAD, 204 and 304 have no body, whatever their head says", async () => {
    const bodies = [
      reply("xyz", ["Content-Length", "3"]),
      reply(emptyBody, ["Content-Length", "5"], 304),
      reply(emptyBody, ["Content-Length", "5"], 204),
    ];
    const { client } = connect(async () => bodies.shift()!);
    expect(await client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")).toBe(
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
    );
    client.take();
    expect(await client.send(get())).toBe("HTTP/1.1 304 OK\r\nContent-Length: 5\r\n\r\n");
    client.take();
    expect(await client.send(get())).toBe("HTTP/1.1 204 OK\r\n\r\n");
    client.take();
    expect(client.seen.ended).toBe(false);
  });

  test("a body of unknown length is chunked, with trailers", async () => {
    const body = new HandBody();
    const { client } = connect(async () => reply(body, ["Trailer", "X-Sum"]));
    await client.send(get());
    expect(client.take()).toBe("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n");
    await body.give("hello");
    expect(client.take()).toBe("5\r\nhello\r\n");
    body.trailers = new HeaderList(["X-Sum", "9"]);
    await body.give(null);
    expect(client.take()).toBe("0\r\nX-Sum: 9\r\n\r\n");
    expect(client.seen.ended).toBe(false);
  });

  test("for HTTP/1.0 it ends with the connection", async () => {
    const body = new HandBody();
    const { client } = connect(async () => reply(body));
    await client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    await body.give("hello", null);
    expect(client.take()).toBe("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello");
    expect(client.seen.ended).toBe(true);
  });

  test("connection fields of the handler are replaced by the listener's own", async () => {
    const { client } = connect(async () =>
      reply("x", ["Connection", "close", "Transfer-Encoding", "chunked", "Keep-Alive", "1", "A", "b"]),
    );
    expect(await client.send(get())).toBe("HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\n\r\nx");
  });

  test.each([
    ["shorter", ["abc", null]],
    ["longer", ["abcdefgh"]],
    ["broken", ["ab", new SallyError("ORIGIN_RESET")]],
  ])("a body %s than its Content-Length ends in a reset, never cleanly", async (_name, pieces) => {
    const body = new HandBody();
    const aborted: string[] = [];
    const { client, service } = connect(async (exchange) => {
      exchange.onAbort((error) => aborted.push(error.code));
      return reply(body, ["Content-Length", "5"]);
    });
    await client.send(get());
    await body.give(...pieces);
    expect(client.seen).toMatchObject({ ended: false, closed: true, error: expect.any(SallyError) });
    expect(body.cancelled).toBeDefined();
    expect(aborted.length).toBe(1);
    expect(service.connectionCount).toBe(0);
  });

  test("a chunked body that breaks ends in a reset without its last chunk", async () => {
    const body = new HandBody();
    const { client } = connect(async () => reply(body));
    await client.send(get());
    await body.give("abc", new SallyError("LINK_LOST"));
    expect(client.seen.text).toEndWith("3\r\nabc\r\n");
    expect(client.seen.error).toBeDefined();
  });

  test.each([
    ["several Content-Lengths", ["Content-Length", "1", "content-length", "1"]],
    ["a line break in a value", ["A", "b\r\nC: d"]],
    ["a Content-Length that is no number", ["Content-Length", "x"]],
  ])("%s in the handler's head become an error page", async (_name, raw) => {
    const { client } = connect(async () => reply("x", raw));
    expect(await client.send(get())).toMatch(/^HTTP\/1\.1 50[02] .*\r\n/);
    expect(client.seen.text).not.toContain("C: d");
    client.take();
    expect(await client.send(get())).toMatch(/^HTTP\/1\.1 50[02] /); // the connection goes on
  });

  test("a reply waits for a visitor who reads slowly, and its body is pulled no faster", async () => {
    const body = new HandBody();
    const { client } = connect(async () => reply(body), {}, { highBytes: 10, lowBytes: 5, unconsumedBytes: 20 });
    client.reads = false;
    await client.send(get());
    for (let n = 0; n < 10; n++) await body.give("0123456789");
    const { reads } = body;
    expect(reads).toBeLessThan(4);
    client.reads = true;
    client.duplex.consume(client.duplex.unconsumedBytes);
    await settle();
    expect(body.reads).toBeGreaterThan(reads);
  });
});

describe("100 Continue and interim replies", () => {
  const expecting = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";

  test("100 goes out when the body is first pulled, and only once", async () => {
    const { client } = connect(async ({ body }) => reply(await readAll(body)));
    expect(await client.send(expecting)).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    client.take();
    expect(await client.send("o")).toBe("");
    expect(await client.send("k")).toEndWith("ok");
  });

  test("a 100 from the origin is relayed and not repeated", async () => {
    const { client } = connect(async (exchange) => {
      exchange.inform({ status: 100, reason: "Go on", headers: new HeaderList(["A", "b"]) });
      exchange.inform({ status: 100, reason: "Go on", headers: new HeaderList() });
      return reply(await readAll(exchange.body));
    });
    expect(await client.send(expecting)).toBe("HTTP/1.1 100 Go on\r\nA: b\r\n\r\n");
  });

  test("a small body is there when the handler asks", async () => {
    const { client } = connect(async ({ body }) => {
      const first = body.read();
      expect(first).toBeInstanceOf(Uint8Array);
      return reply(body.read() === null ? "both" : "no");
    });
    expect(await client.send(post("hi"))).toEndWith("both");
  });

  test("without a pull there is no 100, and a final reply closes since the body may never come", async () => {
    const { client } = connect(async () => reply("no", [], 403));
    expect(await client.send(expecting)).toBe("HTTP/1.1 403 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    expect(client.seen.ended).toBe(true);
  });

  test("a visitor that does not wait gets no 100 and keeps its connection", async () => {
    const { client } = connect(async ({ body }) => reply(await readAll(body)));
    expect(await client.send(`${expecting}ok`)).toBe("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });

  test("another expectation is 417", async () => {
    const { client } = connect(hello);
    expect(await client.send(get("/", "Expect: 200-ok\r\n"))).toStartWith("HTTP/1.1 417 ");
    expect(client.seen.ended).toBe(true);
  });

  test("103 is relayed at once, but not to HTTP/1.0 and not behind the reply", async () => {
    const hints = { status: 103, reason: "Early Hints", headers: new HeaderList(["Link", "<a>"]) };
    let kept: Exchange | undefined;
    const handler: Handler = async (exchange) => {
      kept = exchange;
      exchange.inform(hints);
      exchange.inform({ ...hints, status: 101 });
      await settle();
      return reply("x");
    };
    const { client } = connect(handler);
    await client.send(get());
    await settle();
    expect(client.take()).toStartWith("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\n");
    kept!.inform(hints);
    await settle();
    expect(client.take()).toBe("");
    const old = connect(handler);
    await old.client.send("GET / HTTP/1.0\r\n\r\n");
    await settle();
    expect(old.client.take()).toStartWith("HTTP/1.1 200 OK\r\n");
  });
});

describe("early replies", () => {
  const half = (length: number) => `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n`;

  test("a short rest is drained and the connection goes on", async () => {
    const { client, far } = connect(async () => reply("early"));
    await client.send(half(10_000));
    expect(client.take()).toEndWith("early");
    await client.send("x".repeat(10_000) + get("/next"));
    expect(client.take()).toEndWith("early");
    expect(far.unconsumedBytes).toBe(0);
    expect(client.seen.ended).toBe(false);
  });

  test("the rest is drained up to the limit; one byte more ends the connection", async () => {
    for (const [extra, ends] of [
      [0, false],
      [1, true],
    ] as const) {
      const { client } = connect(async () => reply("early"), { limits: { ...limits, drainedEarlyReplyBytes: 100 } });
      await client.send(half(1_000));
      await client.send("x".repeat(100 + extra));
      expect(client.seen.ended).toBe(ends);
      expect(client.seen.error).toBeUndefined();
    }
  });

  test("a reader that still reads behind the reply gets an error, not an end", async () => {
    let body: Body | undefined;
    const { client } = connect(async (exchange) => {
      body = exchange.body;
      return reply("early");
    });
    await client.send(`${half(10)}abc`);
    expect(async () => body!.read()).toThrow(SallyError);
  });

  test("a reader that waits behind the reply gets the rest, up to the limit", async () => {
    for (const [extra, isWhole] of [
      [0, true],
      [1, false],
    ] as const) {
      const taken: Promise<string>[] = [];
      const { client } = connect(
        async ({ body }) => {
          taken.push(readAll(body).catch((thrown: SallyError) => thrown.code));
          return reply("early");
        },
        { limits: { ...limits, drainedEarlyReplyBytes: 100 } },
      );
      await client.send(half(100 + extra));
      expect(client.take()).toEndWith("early");
      await client.send("x".repeat(100 + extra));
      expect(await taken[0]).toBe(isWhole ? "x".repeat(100) : "CANCELLED");
      expect(client.seen.ended).toBe(!isWhole);
    }
  });

  test("a refused upload says so and closes", async () => {
    const { client } = connect(async () => {
      throw new SallyError("BODY_TOO_LARGE");
    });
    expect(await client.send(`${half(10_000_000)}abc`)).toMatch(/^HTTP\/1\.1 413 .*\r\n(.*\r\n)*Connection: close\r\n/);
    expect(client.seen.ended).toBe(true);
  });

  test.each([
    ["a length", (bytes: number) => post("x".repeat(bytes))],
    [
      "chunks",
      (bytes: number) =>
        `${chunkedHead}3\r\nxxx\r\n${(bytes - 3).toString(16)}\r\n${"x".repeat(bytes - 3)}\r\n0\r\n\r\n`,
    ],
  ])(
    "a body with %s at the limit passes, one byte more is 413 without a handler, and the end",
    async (_name, request) => {
      let calls = 0;
      const { client, far } = connect(async ({ body }) => (calls++, reply(await readAll(body))), {
        limits: { ...limits, bodyBytes: 10 },
      });
      expect(await client.send(request(10))).toEndWith(`\r\n\r\n${"x".repeat(10)}`);
      client.take();
      const text = await client.send(request(11) + get());
      expect(text).toStartWith("HTTP/1.1 413 Content Too Large\r\n");
      expect(text).toContain("\r\nSally-Error: BODY_TOO_LARGE\r\n");
      expect(text).toContain("\r\nConnection: close\r\n");
      expect(text.match(/HTTP\/1\.1 \d/g)).toHaveLength(1);
      expect([calls, client.seen.ended, far.unconsumedBytes]).toEqual([1, true, 0]);
    },
  );

  test("who expects 100 Continue for too large a body gets 413 instead", async () => {
    const { client } = connect(hello, { limits: { ...limits, bodyBytes: 10 } });
    const head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n";
    expect(await client.send(head)).toStartWith("HTTP/1.1 413 ");
  });

  test("a chunked body that grows too large fails for its reader, before the reply and behind its head", async () => {
    for (const isEarly of [false, true]) {
      const out = new HandBody();
      let read: Promise<string> | undefined;
      const { client, far } = connect(
        async ({ body }) => {
          read = readAll(body).catch((thrown: SallyError) => thrown.code);
          if (isEarly) return reply(out);
          throw new SallyError((await read) === "BODY_TOO_LARGE" ? "BODY_TOO_LARGE" : "INTERNAL");
        },
        { limits: { ...limits, bodyBytes: 10 } },
      );
      await client.send(`${chunkedHead}a\r\n${"x".repeat(10)}\r\n`);
      const text = await client.send(`1\r\nx\r\n0\r\n\r\n${get()}`);
      expect(await read).toBe("BODY_TOO_LARGE");
      await out.give("late", null);
      expect(isEarly ? client.seen.text : text).toStartWith(isEarly ? "HTTP/1.1 200 " : "HTTP/1.1 413 ");
      expect(client.seen.text.match(/HTTP\/1\.1 \d/g)).toHaveLength(1);
      expect([client.seen.ended, far.unconsumedBytes]).toEqual([true, 0]);
    }
  });

  test("reply and request body may run at the same time", async () => {
    const out = new HandBody();
    let input: Body | undefined;
    const { client } = connect(async (exchange) => {
      input = exchange.body;
      return reply(out);
    });
    await client.send(`${half(6)}abc`);
    expect(await input!.read()).toEqual(utf8Encode("abc"));
    await out.give("x");
    expect(client.seen.text).toEndWith("1\r\nx\r\n");
    await client.send("def");
    expect(await input!.read()).toEqual(utf8Encode("def"));
    await out.give(null);
    client.take();
    await client.send(get());
    expect(client.seen.text).toStartWith("HTTP/1.1 200");
  });
});

describe("trouble", () => {
  test.each([
    ["a bare LF", 400, "BAD_REQUEST", "GET / HTTP/1.1\r\nHost: a\n\r\n"],
    ["CONNECT", 501, "METHOD_REFUSED", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"],
    ["a long target", 414, "TARGET_TOO_LONG", `GET /${"a".repeat(20_000)} HTTP/1.1\r\n`],
    ["a long head", 431, "HEADERS_TOO_LARGE", get("/", `X: ${"a".repeat(70_000)}\r\n`)],
    ["another version", 505, "VERSION_UNSUPPORTED", "GET / HTTP/3.0\r\n\r\n"],
  ])("%s is answered with %d %s, nothing behind it is read", async (_name, status, code, bytes) => {
    let calls = 0;
    const { client, far } = connect(async () => (calls++, reply("x")));
    const text = await client.send(bytes + get("/smuggled"));
    expect(text).toStartWith(`HTTP/1.1 ${status} `);
    expect(text).toContain(`Sally-Error: ${code}\r\n`);
    expect(text).toContain("Connection: close\r\n");
    expect(client.seen.ended).toBe(true);
    await client.send(get("/more"));
    expect(calls).toBe(0);
    expect(far.unconsumedBytes).toBe(0);
  });

  test("a malformed chunked body is 400 and ends the connection", async () => {
    const { client } = connect(async ({ body }) => reply(await readAll(body)));
    const text = await client.send(
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n${get()}`,
    );
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 400"]);
    expect(client.seen.ended).toBe(true);
  });

  test("a body that is malformed from the start reaches no handler", async () => {
    let calls = 0;
    const { client } = connect(async () => (calls++, reply("x")));
    expect(await client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\n")).toStartWith(
      "HTTP/1.1 400 ",
    );
    expect([calls, client.seen.ended]).toEqual([0, true]);
  });

  test("what a handler throws becomes its page, and the connection goes on", async () => {
    const errors = [new SallyError("ORIGIN_REFUSED", "nothing listens on localhost:3000"), new TypeError("bug")];
    const { client } = connect(async () => {
      throw errors.shift()!;
    });
    expect(await client.send(get())).toContain("nothing listens on localhost:3000");
    client.take();
    expect(await client.send(get())).toContain("Sally-Error: INTERNAL");
    const sync = connect(() => {
      throw new SallyError("DRAINING");
    });
    expect(await sync.client.send(get())).toContain("Sally-Error: DRAINING");
  });

  test("an aborting visitor is known in the same tick", async () => {
    const seen: string[] = [];
    const { client } = connect((exchange) => {
      exchange.onAbort((error) => seen.push(error.code));
      exchange.connection.onClose(() => seen.push("closed"));
      return new Promise(() => {});
    });
    await client.send(get());
    client.duplex.reset(new SallyError("CANCELLED"));
    await Promise.resolve();
    await Promise.resolve();
    expect(seen).toEqual(["VISITOR_GONE", "closed"]);
  });

  test("a visitor that breaks its body off aborts the exchange", async () => {
    const seen: string[] = [];
    const { client } = connect(async (exchange) => {
      exchange.onAbort((error) => seen.push(error.code));
      return reply(await readAll(exchange.body));
    });
    client.duplex.write(utf8Encode("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc"));
    client.duplex.end();
    await settle();
    expect(seen).toEqual(["VISITOR_GONE"]);
    expect(client.seen.text).toBe("");
  });

  test("a reply that comes after its visitor has gone is cancelled", async () => {
    let answer: ((reply: Reply) => void) | undefined;
    const { client } = connect(() => new Promise((resolve) => (answer = resolve)));
    await client.send(get());
    client.duplex.reset(new SallyError("CANCELLED"));
    await settle();
    const body = new HandBody();
    answer!(reply(body));
    await settle();
    expect(body.cancelled?.code).toBe("VISITOR_GONE");
  });
});

describe("time", () => {
  test("a connection without a byte is closed silently, a head that is not completed gets 408", async () => {
    const silent = connect(hello);
    await silent.advance(limits.headMs - 500);
    expect(silent.client.seen.ended).toBe(false);
    await silent.advance(2_500);
    expect(silent.client.seen).toMatchObject({ ended: true, text: "" });
    const slow = connect(hello);
    await slow.client.send("GET / HT");
    await slow.advance(limits.headMs - 500);
    await slow.client.send("T");
    expect(slow.client.seen.text).toBe("");
    await slow.advance(2_500);
    expect(slow.client.seen.text).toStartWith("HTTP/1.1 408 ");
    expect(slow.client.seen.ended).toBe(true);
  });

  test("an idle kept-alive connection is closed", async () => {
    const { client, advance } = connect(hello);
    await client.send(get());
    await advance(limits.keepAliveIdleMs - 500);
    expect(client.seen.ended).toBe(false);
    await advance(2_500);
    expect(client.seen.ended).toBe(true);
  });

  test("a body that stalls while it is awaited is 408", async () => {
    const { client, advance } = connect(async ({ body }) => reply(await readAll(body)));
    await client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc");
    await advance(limits.bodyStallMs);
    expect(client.seen.text).toBe("");
    await advance(3_000);
    expect(client.seen.text).toStartWith("HTTP/1.1 408 ");
  });

  test("a body below the minimum rate is 408, one above it is not", async () => {
    for (const [bytesPerSecond, isCut] of [
      [limits.bodyMinRateBytesPerSecond / 2, true],
      [limits.bodyMinRateBytesPerSecond * 2, false],
    ] as const) {
      const { client, advance } = connect(async ({ body }) => reply(await readAll(body)));
      await client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
      for (let n = 0; n < 70; n++) {
        await advance(1_000);
        await client.send("x".repeat(bytesPerSecond));
      }
      expect(client.seen.text.startsWith("HTTP/1.1 408 ")).toBe(isCut);
    }
  });

  test("a handler that does not read its body is not held against the visitor", async () => {
    const { client, advance } = connect(() => new Promise(() => {}));
    await client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc");
    await advance(4 * limits.bodyStallMs);
    expect(client.seen).toMatchObject({ text: "", closed: false });
  });

  test("a visitor who does not read is cut off; one who reads slowly is not", async () => {
    for (const isSlow of [false, true]) {
      const { client, advance, far } = connect(
        async () => reply("x".repeat(1_000)),
        { writeStallMs: 10_000 },
        { unconsumedBytes: 10, nextChunkBytes: () => 20 },
      );
      client.reads = false;
      await client.send(get());
      for (let n = 0; n < 15; n++) {
        if (isSlow) client.duplex.consume(client.duplex.unconsumedBytes);
        await advance(1_000);
      }
      expect(far.isClosed).toBe(!isSlow);
    }
  });

  test("a visitor who does not close its side is reset after a while", async () => {
    const { client, far, advance } = connect(hello);
    await client.send(get("/", "Connection: close\r\n"));
    await advance(limits.socketLingerMs + 2_000);
    expect(far.isClosed).toBe(true);
    expect(client.seen.text).toEndWith("/");
  });

  test("there is one timer for everything, and none without connections", async () => {
    const { client, clock, service } = connect(hello);
    for (let n = 0; n < 10; n++) await client.send(get());
    expect(clock.pending).toBe(1);
    service.abortAll(new SallyError("DRAINING"));
    expect(clock.pending).toBe(0);
  });
});

describe("a visitor that ended its side", () => {
  test("is probed with 100 while its reply has not begun, in growing intervals", async () => {
    const { client, advance } = connect(() => new Promise(() => {}));
    await client.send(get());
    client.duplex.end();
    await advance(limits.halfCloseProbeMs - 500);
    expect(client.take()).toBe("");
    await advance(500);
    expect(client.take()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    await advance(60_000);
    expect(client.take().length / "HTTP/1.1 100 Continue\r\n\r\n".length).toBe(5); // after 1.5, 3.5, 7.5, 15.5 and 31.5 s
    await advance(1_500 + limits.halfCloseProbeMaxMs); // the next after 61.5 s: the pause does not double any more
    expect(client.take().length / "HTTP/1.1 100 Continue\r\n\r\n".length).toBe(2);
    await advance(10 * limits.halfCloseProbeMaxMs);
    expect(client.take().length / "HTTP/1.1 100 Continue\r\n\r\n".length).toBe(10);
  });

  test("is probed with zeros before a chunk's size while its reply is silent, and only so many", async () => {
    const body = new HandBody();
    const { client, advance } = connect(async () => reply(body));
    await client.send(get());
    client.duplex.end();
    await body.give("abc");
    client.take();
    await advance(1_000);
    await body.give("def");
    expect(client.take()).toBe("03\r\ndef\r\n");
    await advance(600_000);
    expect(client.take()).toBe("0".repeat(limits.halfCloseProbeZeros));
    await body.give(null);
    expect(client.take()).toBe("0\r\n\r\n");
    expect(client.seen.ended).toBe(true);
  });

  test("is not probed where no byte is without meaning", async () => {
    const { client, advance } = connect(async () => reply(new HandBody(10)));
    await client.send(get());
    client.duplex.end();
    client.take();
    const old = connect(() => new Promise(() => {}));
    await old.client.send("GET / HTTP/1.0\r\n\r\n");
    old.client.duplex.end();
    await advance(60_000);
    await old.advance(60_000);
    expect(client.take() + old.client.take()).toBe("");
  });
});

describe("upgrades", () => {
  const fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
  const switching = {
    status: 101,
    reason: "Switching Protocols",
    headers: new HeaderList(["Upgrade", "websocket", "Connection", "Upgrade"]),
  };

  function upgrading() {
    const [stream, origin] = memoryDuplexPair();
    const { promise, resolve } = Promise.withResolvers<Reply>();
    return {
      ...connect(() => promise),
      origin: new Client(origin),
      answer: () => resolve({ kind: "upgrade", head: switching, stream }),
    };
  }

  test("bytes sent early wait for the 101 and reach the origin", async () => {
    const { client, origin, answer } = upgrading();
    await client.send(`${get("/", fields)}early`);
    expect(client.take()).toBe("");
    answer();
    await settle();
    expect(client.take()).toBe("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    expect(origin.take()).toBe("early");
    await origin.send("down");
    expect(client.take()).toBe("down");
    await client.send("up");
    expect(origin.take()).toBe("up");
    client.duplex.end();
    await settle();
    expect(origin.seen.ended).toBe(true);
    await origin.send("last");
    origin.duplex.end();
    await settle();
    expect(client.seen).toMatchObject({ text: "last", closed: true, error: undefined });
  });

  test("a reset on either side resets the other", async () => {
    const first = upgrading();
    await first.client.send(get("/", fields));
    first.answer();
    await settle();
    first.client.duplex.reset(new SallyError("CANCELLED"));
    await settle();
    expect(first.origin.seen.error).toBeDefined();
    expect(first.service.connectionCount).toBe(0);
  });

  test("an upgraded connection has no time-outs, and ends with the grace of a drain", async () => {
    const { client, origin, answer, advance, service } = upgrading();
    await client.send(get("/", fields));
    answer();
    await advance(200_000);
    expect(client.seen.closed).toBe(false);
    const done = service.drain(2_000);
    await advance(2_000);
    await done;
    expect(client.seen.error).toBeDefined();
    expect(origin.seen.error).toBeDefined();
  });

  test("if the upgrade is declined the bytes are the next request", async () => {
    const { client } = connect(hello);
    expect(await client.send(get("/ws", fields) + get("/next"))).toEndWith("/next");
  });

  test("an upgrade that nobody asked for is a bad reply", async () => {
    const [stream, origin] = memoryDuplexPair();
    const far = new Client(origin);
    const { client } = connect(async () => ({ kind: "upgrade", head: switching, stream }));
    expect(await client.send(get())).toContain("Sally-Error: ORIGIN_BAD_REPLY");
    expect(far.seen.error).toBeDefined();
  });

  test("a link request is handed over with the bytes behind it, if it is taken", async () => {
    const links: LinkRequest[] = [];
    for (const taken of [true, false]) {
      const { client, service } = connect(hello, { onLinkRequest: (link) => (links.push(link), taken) });
      await client.send(`${get("/_sally/link?session=1&lane=0", fields)}early`);
      expect(service.connectionCount).toBe(taken ? 0 : 1);
      if (taken) expect(client.seen).toMatchObject({ text: "", ended: false });
      else expect(client.seen.text).toContain("/_sally/link");
    }
    expect(utf8Decode(links[0]!.earlyBytes)).toBe("early");
    expect(links[0]!.meta.remote).toEqual(remote);
    const { client } = connect(hello, { onLinkRequest: () => true });
    expect(await client.send(get("/_sally/linked", fields))).toContain("/_sally/linked");
  });
});

test("whatever a visitor sends and however it is cut, every byte is accounted for", async () => {
  const words = ["GET / HTTP/1.1\r\n", "POST /p HTTP/1.1\r\n", "Host: a\r\n", "\r\n", "Transfer-Encoding: chunked\r\n"];
  const more = [
    "Content-Length: 3\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "Expect: 100-continue\r\n",
    "\0",
    "Connection: upgrade\r\n",
  ];
  const soup = fc.array(fc.constantFrom(...words, ...more), { maxLength: 14 });
  await fc.assert(
    fc.asyncProperty(soup, fc.integer({ min: 1, max: 40 }), fc.boolean(), async (parts, size, reads) => {
      const handler: Handler = async ({ body }) => reply(reads ? await readAll(body) : "unread");
      const { client, far, service } = connect(handler, {}, { nextChunkBytes: () => size });
      client.duplex.write(utf8Encode(parts.join("")));
      client.duplex.end();
      for (let n = 0; n < 200 && !client.seen.closed; n++) await settle();
      expect(client.seen.closed).toBe(true);
      expect(service.connectionCount).toBe(0);
      if (far.resetError === undefined) expect(far.unconsumedBytes).toBe(0);
    }),
    { numRuns: 300 },
  );
});

describe("limits and draining", () => {
  test("one connection past a visitor's limit is 429, one past the total 503", async () => {
    for (const [more, status] of [
      [{ connectionsPerVisitor: 2 }, 429],
      [{ connections: 2 }, 503],
    ] as const) {
      const { service, client } = connect(hello, { limits: { ...limits, ...more } });
      const clients = [1, 2].map(() => {
        const [near, far] = memoryDuplexPair();
        const next = new Client(near);
        service.serve(far, { remote, scheme: "http" });
        return next;
      });
      await settle();
      expect(await clients[0]!.send(get())).toStartWith("HTTP/1.1 200");
      expect(clients[1]!.seen.text).toStartWith(`HTTP/1.1 ${status} `);
      expect(clients[1]!.seen.ended).toBe(true);
      clients[1]!.duplex.end();
      client.duplex.end();
      await settle();
      const [near, far] = memoryDuplexPair();
      service.serve(far, { remote, scheme: "http" });
      expect(await new Client(near).send(get())).toStartWith("HTTP/1.1 200");
    }
  });

  test("draining closes what is idle, and lets what runs finish with Connection: close", async () => {
    const idle = connect(hello);
    await idle.client.send(get());
    await idle.advance(5_000);
    let isDone = false;
    const done = idle.service.drain(30_000).then(() => (isDone = true));
    await settle();
    expect(idle.client.seen.ended).toBe(true);
    expect(isDone).toBe(false);
    idle.client.duplex.end();
    await done;
    let answer: ((reply: Reply) => void) | undefined;
    const busy = connect(() => new Promise((resolve) => (answer = resolve)));
    await busy.client.send(get());
    void busy.service.drain(30_000);
    await busy.advance(5_000);
    expect(busy.client.seen.ended).toBe(false);
    answer!(reply("x"));
    await settle();
    expect(busy.client.seen.text).toContain("Connection: close\r\n");
    expect(busy.client.seen.ended).toBe(true);
  });

  test("a connection that was just used gets a moment for the request that may be on its way", async () => {
    const { client, service, advance } = connect(hello);
    await client.send(get());
    void service.drain(30_000);
    await settle();
    expect(client.seen.ended).toBe(false);
    client.take();
    expect(await client.send(get())).toContain("Connection: close\r\n");
    const quiet = connect(hello);
    await quiet.client.send(get());
    void quiet.service.drain(30_000);
    await quiet.advance(2_500);
    expect(quiet.client.seen.ended).toBe(true);
    await advance(1);
  });

  test("what still runs after the grace is reset", async () => {
    const { client, service, advance } = connect(() => new Promise(() => {}));
    await client.send(get());
    const done = service.drain(3_000);
    await advance(3_000);
    await done;
    expect(client.seen.error).toBeDefined();
    expect(service.connectionCount).toBe(0);
  });

  test("the access log says what happened to each request", async () => {
    const records: AccessRecord[] = [];
    const { client, clock } = connect(
      async ({ body, request }) => {
        await readAll(body);
        clock.advance(7);
        return request.target === "/hang" ? new Promise(() => {}) : reply("four");
      },
      { accessLog: (record) => records.push(record) },
    );
    await client.send(post("abc"));
    await client.send(get("/hang"));
    client.duplex.reset(new SallyError("CANCELLED"));
    await settle();
    expect(records).toHaveLength(2);
    expect(records[0]).toMatchObject({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      method: "POST",
      target: "/",
      host: "a",
      status: 200,
      bytesIn: 3,
      durationMs: 7,
      visitor: remote,
    });
    expect(records[0]!.bytesOut).toBe("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour".length);
    expect(records[1]).toMatchObject({ target: "/hang", status: 499, error: "VISITOR_GONE" });
  });

  test("the access log has what there was of a reply that broke off", async () => {
    const records: AccessRecord[] = [];
    const body = new HandBody();
    const { client } = connect(async () => reply(body, ["Content-Length", "5"]), {
      accessLog: (record) => records.push(record),
    });
    await client.send(get());
    await body.give("ab", new SallyError("ORIGIN_RESET"));
    const bytesOut = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".length;
    expect(records).toMatchObject([{ status: 200, bytesOut, error: "ORIGIN_RESET" }]);
  });

  test("the access log has what was refused, once", async () => {
    const records: AccessRecord[] = [];
    const connected = (): ReturnType<typeof connect> =>
      connect(async () => reply("x"), { accessLog: (record) => records.push(record) });
    const malformed = connected();
    await malformed.client.send("GET / HTTP/1.1\r\nHost: a\r\nbad field: x\r\n\r\n");
    malformed.client.duplex.reset(new SallyError("CANCELLED"));
    const large = connected();
    await large.client.send("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 2199023255552\r\n\r\n");
    const late = connected();
    await late.client.send("GET / HT");
    await late.advance(60_000);
    expect(records).toMatchObject([
      { method: undefined, target: undefined, host: undefined, status: 400, error: "BAD_REQUEST", visitor: remote },
      { method: "POST", target: "/big", host: "a", status: 413, error: "BODY_TOO_LARGE", visitor: remote },
      { method: undefined, status: 408, error: "REQUEST_TIMEOUT", visitor: remote },
    ]);
    expect(records[0]!.bytesOut).toBeGreaterThan(100);
    expect(malformed.client.seen.text).toContain(records[0]!.id);
  });

  test("request ids are long, and differ", async () => {
    const ids = new Set<string>();
    const { client } = connect(async (exchange) => {
      expect(exchange.id).toBe(exchange.id);
      ids.add(exchange.id);
      return reply("x");
    });
    for (let n = 0; n < 50; n++) await client.send(get());
    expect(ids.size).toBe(50);
    for (const id of ids) expect(id).toMatch(/^[\w-]{16}$/);
  });
});
