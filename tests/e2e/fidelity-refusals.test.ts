/** What the edge refuses, with which status, and that nothing of it reaches an origin. */

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { RawSocket } from "../support/raw-socket.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

const get = "GET / HTTP/1.1\r\nHost: HOST\r\n";
const post = "POST / HTTP/1.1\r\nHost: HOST\r\n";
const chunked = `${post}Transfer-Encoding: chunked\r\n\r\n`;
const line = (first: string): string => `${first}\r\nHost: HOST\r\n\r\n`;
const withHost = (fields: string): string => `GET / HTTP/1.1\r\n${fields}\r\n\r\n`;

/** Name, bytes (HOST stands for the tunnel's host), and the status where it is not 400. */
const refused: readonly (readonly [name: string, bytes: string, status?: number])[] = [
  // Two lengths.
  ["Content-Length and Transfer-Encoding", `${post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["Transfer-Encoding and Content-Length", `${post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n`],
  ["Content-Length 0 and Transfer-Encoding", `${post}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["two Content-Lengths", `${post}Content-Length: 0\r\nContent-Length: 44\r\n\r\n`],
  ["two equal Content-Lengths", `${post}Content-Length: 0\r\nContent-Length: 0\r\n\r\n`],
  ["two Content-Lengths in other case, apart", `${post}content-length: 0\r\nX: 1\r\nCONTENT-LENGTH: 44\r\n\r\n`],
  ...["0, 44", "0,0", "+0", "-1", "0x0", "0 44", "", "00000000000000000000044", "44;", "4e1", "٤", "1_0"].map(
    (value) => [`Content-Length ${JSON.stringify(value)}`, `${post}Content-Length: ${value}\r\n\r\n`] as const,
  ),
  ["Content-Length on a GET, twice", `${get}Content-Length: 0\r\nContent-Length: 0\r\n\r\n`],
  // Codings.
  ...[
    "xchunked",
    "chunked, identity",
    "gzip, chunked",
    "identity, chunked",
    "chunked, chunked",
    "identity",
    "gzip",
    '"chunked"',
    "chunked;q=1",
    "chunked,",
    ", chunked",
    "\x0bchunked",
    "\x0cchunked",
    "chunked\x00",
    "chunked\x7f",
    "",
    "chunked \xa0",
    "ch\u017funked",
  ].map(
    (value) =>
      [`Transfer-Encoding ${JSON.stringify(value)}`, `${post}Transfer-Encoding: ${value}\r\n\r\n0\r\n\r\n`] as const,
  ),
  ["two Transfer-Encodings", `${post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n`],
  ["two equal Transfer-Encodings", `${post}Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["Transfer-Encoding on HTTP/1.0", "POST / HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
  // Lines and names.
  ["a space before a colon", `${post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`],
  ["a tab before a colon", `${post}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n`],
  ["a space before the first field", `GET / HTTP/1.1\r\n Host: HOST\r\n\r\n`],
  ["a folded line with a space", `${post}X: 1\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["a folded line with a tab", `${post}Transfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n`],
  ["a bare LF behind a field", `${post}X: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ["a bare LF behind the request line", "GET / HTTP/1.1\nHost: HOST\r\n\r\n"],
  ["bare LFs all over", "GET / HTTP/1.1\nHost: HOST\n\n"],
  ["a bare LF at the end of the head", `${get}\n`],
  ["a bare CR in a value", `${get}X: 1\rTransfer-Encoding: chunked\r\n\r\n`],
  ["a CR CR LF", `${get}X: 1\r\r\n\r\n`],
  ["a NUL in a value", `${get}X: a\x00b\r\n\r\n`],
  ["a NUL in a name", `${get}X\x00: a\r\n\r\n`],
  ["a control character in a value", `${get}X: a\x01b\r\n\r\n`],
  ["a DEL in a value", `${get}X: a\x7fb\r\n\r\n`],
  ["a byte above 0x7f in a name", `${get}X\xe9: a\r\n\r\n`],
  ["a line without a colon", `${get}Transfer-Encoding chunked\r\n\r\n`],
  ["a field without a name", `${get}: chunked\r\n\r\n`],
  ["a name with parentheses", `${get}X(a): 1\r\n\r\n`],
  // Hosts.
  ["no Host", "GET / HTTP/1.1\r\nX: 1\r\n\r\n"],
  ["two Hosts", withHost("Host: HOST\r\nHost: HOST")],
  ["two different Hosts", withHost("Host: HOST\r\nX: 1\r\nhost: other.localhost")],
  ...[
    "",
    "a b",
    "user@HOST",
    "HOST/path",
    "HOST, other",
    "HOST:",
    "HOST:99999",
    "HOST:0x50",
    "[::1",
    "<script>.localhost",
    "a%2eb",
    "HOST#",
    "HOST?x",
    "..",
    "a\\b",
    '"HOST"',
  ].map((value) => [`Host ${JSON.stringify(value)}`, withHost(`Host: ${value}`)] as const),
  ["absolute-form with another host than Host", line("GET http://other.localhost/ HTTP/1.1")],
  ["absolute-form with a user", line("GET http://user@HOST/ HTTP/1.1")],
  ["absolute-form with another scheme", line("GET ftp://HOST/ HTTP/1.1")],
  ["absolute-form without Host", "GET http://HOST/ HTTP/1.1\r\n\r\n"],
  // Request lines.
  ["authority-form", line("GET HOST HTTP/1.1")],
  ["* for GET", line("GET * HTTP/1.1")],
  ["a target without a slash", line("GET index.html HTTP/1.1")],
  ["a fragment", line("GET /#fragment HTTP/1.1")],
  ["a space in the target", line("GET /a b HTTP/1.1")],
  ["two spaces", line("GET  / HTTP/1.1")],
  ["a tab", line("GET\t/ HTTP/1.1")],
  ["a space behind the version", line("GET / HTTP/1.1 ")],
  ["a space before the method", line(" GET / HTTP/1.1")],
  ["no version", "GET /\r\nHost: HOST\r\n\r\n"],
  ["a lower-case version", line("GET / http/1.1")],
  ["two digits in the version", line("GET / HTTP/1.10")],
  ["a method that is no token", line("GE(T / HTTP/1.1")],
  ["three empty lines first", `\r\n\r\n\r\n${get}\r\n`],
  ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
  ["HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
  ["HTTP/2.0", line("GET / HTTP/2.0"), 505],
  ["HTTP/0.9 written out", line("GET / HTTP/0.9"), 505],
  ["CONNECT", line("CONNECT HOST HTTP/1.1"), 501],
  ["TRACE", line("TRACE / HTTP/1.1"), 501],
  // Chunked bodies.
  ...[
    "x\r\n\r\n",
    "\r\n\r\n",
    "-1\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;\x00\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\n",
    "00000000000000000000005\r\nhello\r\n0\r\n\r\n",
    "0\r\nbad trailer\r\n\r\n",
    "0\r\n X: folded\r\n\r\n",
    "0\r\nX: 1\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
  ].map((body) => [`the chunked body ${JSON.stringify(body)}`, chunked + body] as const),
];

describe.each([...transports])("malformed and ambiguous requests, with an agent over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  test.each([...refused])("%s", async (_name, bytes, status = 400) => {
    // A good request first: a connection to the origin waits for the next one.
    const good = await path.visit();
    good.write(`GET /good HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
    const connection = await path.origin.accept();
    await connection.readHead();
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    await good.readHead();
    const before = path.origin.receivedBytes;

    const visitor = await path.visit();
    const raw = bytes.replaceAll("HOST", path.host);
    // Characters above U+00FF stand for their UTF-8 bytes.
    visitor.write(/[\u0100-\uffff]/.test(raw) ? new TextEncoder().encode(raw) : raw);
    visitor.write(`GET /smuggled HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
    const answer = await visitor.readToEnd();
    expect(answer).toStartWith(`HTTP/1.1 ${status} `);
    expect(answer.match(/HTTP\/1\.1 \d/g)).toHaveLength(1);
    expect(answer).toMatch(/\r\nSally-Error: [A-Z_]+\r\n/);
    expect(answer).toContain("\r\nConnection: close\r\n");

    good.write(`GET /good HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
    expect((await (await path.origin.accept()).readHead()).slice(0, 10)).toBe("GET /good ");
    expect(path.origin.receivedBytes).toBe(2 * before);
  });

  test("a chunked body that turns out malformed later is refused, and the origin sees an abort", async () => {
    const visitor = await path.visit();
    visitor.write(`${chunked.replace("HOST", path.host)}3\r\nabc\r\n`);
    const connection = await path.origin.accept();
    await connection.readUntil("3\r\nabc\r\n");
    visitor.write("zz\r\n");
    expect(await visitor.readToEnd()).toStartWith("HTTP/1.1 400 ");
    await connection.until(() => connection.wasReset, "reset");
    expect(connection.unread).toBe("");
  });
});

/** Small enough that a test reaches them soon. */
const small = {
  headBytes: 4_096,
  headFields: 20,
  requestLineBytes: 1_024,
  bodyBytes: 2_000,
  headMs: 1_000,
  bodyStallMs: 1_000,
  keepAliveIdleMs: 1_000,
  replyHeadMs: 1_000,
  connectionsPerVisitor: 20,
  streamsPerLink: 4,
};

interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly requestId: string;
}

/** Checks the form of an answer of the edge itself, and takes it apart. */
function readProblem(answer: string, status: number, code: string): Problem {
  const [head = "", body = ""] = answer.split("\r\n\r\n");
  expect(head).toStartWith(`HTTP/1.1 ${status} `);
  expect(head).toContain(`\r\nSally-Error: ${code}\r\n`);
  expect(head).toContain("\r\nContent-Type: application/problem+json\r\n");
  expect(head).toContain("\r\nCache-Control: no-store\r\n");
  const problem = JSON.parse(body) as Problem;
  expect(problem).toMatchObject({ status, code, type: `urn:sallyport:error:${code}` });
  expect(problem.requestId.length).toBeGreaterThanOrEqual(16);
  expect(head).toContain(`\r\nSally-Request-Id: ${problem.requestId}`);
  return problem;
}

describe.each([...transports])("limits, with an agent over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport, limits: small });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  const head = (first: string, ...fields: string[]): string =>
    [`${first} HTTP/1.1`, `Host: ${path.host}`, ...fields, "", ""].join("\r\n");

  /** Sends bytes and gives the reply up to the clean end of the connection. */
  async function ask(bytes: string): Promise<string> {
    const visitor = await path.visit();
    visitor.write(bytes);
    return await visitor.readToEnd();
  }

  test("a request line at the limit passes, a longer one is 414, also while it is incomplete", async () => {
    const visitor = await path.visit();
    const target = `/${"a".repeat(1_024 - "GET / HTTP/1.1".length)}`;
    visitor.write(head(`GET ${target}`));
    const connection = await path.origin.accept();
    expect(await connection.readHead()).toStartWith(`GET ${target} HTTP/1.1\r\n`);
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    await visitor.readHead();
    path.forget();
    readProblem(await ask(head(`GET ${target}a`)), 414, "TARGET_TOO_LONG");
    readProblem(await ask(`GET /${"a".repeat(2_000)}`), 414, "TARGET_TOO_LONG");
    expect(path.origin.receivedBytes).toBe(0);
  });

  test("a head with too many bytes or fields is 431, also while it is incomplete", async () => {
    readProblem(await ask(head("GET /", `X: ${"a".repeat(4_096)}`)), 431, "HEADERS_TOO_LARGE");
    readProblem(await ask(`GET / HTTP/1.1\r\nX: ${"a".repeat(5_000)}`), 431, "HEADERS_TOO_LARGE");
    readProblem(await ask(head("GET /", ...Array.from({ length: 20 }, (_, n) => `X: ${n}`))), 431, "HEADERS_TOO_LARGE");
    readProblem(await ask(`GET / HTTP/1.1\r\n${"A: 1\r\n".repeat(21)}`), 431, "HEADERS_TOO_LARGE");
    expect(path.origin.receivedBytes).toBe(0);
  });

  test("a head that does not come to its end is 408; a connection without one just ends", async () => {
    const dribbling = await path.visit();
    const silent = await path.visit();
    dribbling.write(`GET / HTTP/1.1\r\nHost: ${path.host}\r\n`);
    const timer = setInterval(() => dribbling.write("X: 1\r\n"), 200);
    await dribbling.until(() => dribbling.unread !== "", "an answer").finally(() => clearInterval(timer));
    readProblem(await dribbling.readToEnd(), 408, "REQUEST_TIMEOUT");
    expect(await silent.readToEnd()).toBe("");
    expect(path.origin.receivedBytes).toBe(0);
  });

  test("a body at the limit passes; one byte more is 413, and the origin sees nothing of it, or an abort", async () => {
    const visitor = await path.visit();
    const whole = "x".repeat(2_000);
    visitor.write(head("POST /", "Content-Length: 2000") + whole);
    const first = await path.origin.accept();
    await first.readHead();
    expect(await first.read(2_000)).toBe(whole);
    first.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect(await visitor.readHead()).toStartWith("HTTP/1.1 200 ");
    path.forget();
    const before = path.origin.receivedBytes;
    readProblem(await ask(`${head("POST /", "Content-Length: 2001")}${whole}x`), 413, "BODY_TOO_LARGE");
    expect(path.origin.receivedBytes).toBe(before);

    const growing = await path.visit();
    growing.write(`${head("POST /", "Transfer-Encoding: chunked")}7d0\r\n${whole}\r\n`);
    const second = await path.origin.accept();
    await second.readUntil(`${whole}\r\n`);
    growing.write("1\r\nx\r\n0\r\n\r\n");
    readProblem(await growing.readToEnd(), 413, "BODY_TOO_LARGE");
    await second.until(() => second.wasReset, "reset");
    expect(second.unread).not.toContain("0\r\n\r\n");
  });

  test("a body that stalls is 408, and the origin sees an abort", async () => {
    const visitor = await path.visit();
    visitor.write(`${head("POST /", "Content-Length: 10")}abc`);
    const connection = await path.origin.accept();
    await connection.readHead();
    expect(await connection.read(3)).toBe("abc");
    readProblem(await visitor.readToEnd(), 408, "REQUEST_TIMEOUT");
    await connection.until(() => connection.wasReset, "reset");
  });

  test("a body that only dribbles is 408", async () => {
    const visitor = await path.visit();
    visitor.write(head("POST /", "Content-Length: 1000"));
    const timer = setInterval(() => visitor.write("x"), 200);
    const connection = await path.origin.accept();
    await visitor.until(() => visitor.unread !== "", "an answer").finally(() => clearInterval(timer));
    expect((await visitor.readHead()).slice(0, 13)).toBe("HTTP/1.1 408 ");
    await connection.until(() => connection.wasReset, "reset");
  });

  test("a kept-alive connection that idles is ended", async () => {
    const visitor = await path.visit();
    visitor.write(head("GET /"));
    const connection = await path.origin.accept();
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect(await visitor.readToEnd()).toBe("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });

  test("connections past a visitor's limit are 429, and the others work", async () => {
    const first = await path.visit();
    const others = await Promise.all(Array.from({ length: 19 }, () => path.visit()));
    const last = await RawSocket.connect(path.node.port);
    readProblem(await last.readToEnd(), 429, "TOO_MANY_CONNECTIONS");
    for (const other of others) other.reset();
    first.write(head("GET /"));
    const connection = await path.origin.accept();
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect(await first.readHead()).toStartWith("HTTP/1.1 200 ");
  });

  test("an origin that sends no reply head is 504, and sees an abort", async () => {
    const visitor = await path.visit();
    visitor.write(head("GET /", "Connection: close"));
    const connection = await path.origin.accept();
    await connection.readHead();
    connection.write("HTTP/1.1 200 OK\r\nX-Unfinished: ");
    const { detail } = readProblem(await visitor.readToEnd(), 504, "ORIGIN_TIMEOUT");
    expect(detail).toContain(`127.0.0.1:${path.origin.port}`);
    await connection.until(() => connection.wasReset, "reset");
  });

  test("a request past the streams of a link is 503 with Retry-After, and the next one works", async () => {
    const waiting = [];
    for (let n = 0; n < 4; n++) {
      const visitor = await path.visit();
      visitor.write(head("GET /wait"));
      const connection = await path.origin.accept();
      await connection.readHead();
      waiting.push({ visitor, connection });
    }
    const answer = await ask(head("GET /one-more", "Connection: close"));
    readProblem(answer, 503, "OVERLOADED");
    expect(answer).toContain("\r\nRetry-After: 1\r\n");
    for (const { visitor, connection } of waiting) {
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      await visitor.readHead();
    }
    const visitor = await path.visit();
    visitor.write(head("GET /again"));
    const connection = await path.origin.accept();
    expect(await connection.readHead()).toStartWith("GET /again ");
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect(await visitor.readHead()).toStartWith("HTTP/1.1 200 ");
  });
});

describe.each([...transports])("bounds of the whole node, with an agent over %s", (transport) => {
  const head = (path: VisitorPath, target: string): string => `GET ${target} HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`;

  test("a request that finds no memory for its window waits, and is 503 when there is none for too long", async () => {
    // Each stream starts with a window of 64 KiB, and one owner may hold four times what it leaves free.
    await using path = await VisitorPath.open({ transport, limits: { processWindowBudgetBytes: 5 * 64 * 1_024 } });
    const waiting = [];
    for (let n = 0; n < 4; n++) {
      const visitor = await path.visit();
      visitor.write(head(path, `/${n}`));
      const connection = await path.origin.accept();
      await connection.readHead();
      waiting.push({ visitor, connection });
    }
    const [patient, unlucky] = [await path.visit(), await path.visit()];
    patient.write(head(path, "/patient"));
    await patient.until(() => patient.queuedBytes === 0, "flush");
    waiting[0]?.connection.end("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    const connection = await path.origin.accept();
    expect(await connection.readHead()).toStartWith("GET /patient ");
    unlucky.write(head(path, "/unlucky"));
    const answer = await unlucky.readHead();
    readProblem(answer + (await unlucky.read(Number(/Content-Length: (\d+)/.exec(answer)?.[1]))), 503, "OVERLOADED");
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect(await patient.readHead()).toStartWith("HTTP/1.1 200 ");
  });

  test("connections past all that it takes are 503", async () => {
    await using path = await VisitorPath.open({ transport, limits: { connections: 3 } });
    const others = [await path.visit(), await path.visit(), await path.visit()];
    const last = await path.visit();
    readProblem(await last.readToEnd(), 503, "OVERLOADED");
    others[0]?.write(head(path, "/"));
    const connection = await path.origin.accept();
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect(await others[0]?.readHead()).toStartWith("HTTP/1.1 200 ");
  });
});

describe.each([...transports])("origins in trouble, with an agent over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  const badReplies = [
    ["bytes that are no HTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n"],
    ["HTTP/2", "HTTP/2.0 200 OK\r\n\r\n"],
    ["another version", "HTTP/1.2 200 OK\r\n\r\n"],
    ["a status with two digits", "HTTP/1.1 99 Low\r\n\r\n"],
    ["a status above 599", "HTTP/1.1 600 High\r\n\r\n"],
    ["a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"],
    ["a folded line", "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"],
    ["a NUL", "HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n"],
    ["a space before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"],
    ["a length and a coding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ["an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
    ["a bad length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
    ["a 101 nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"],
    ["a head without end", `HTTP/1.1 200 OK\r\nX: ${"a".repeat(300_000)}`],
    ["too many fields", `HTTP/1.1 200 OK\r\n${"A: 1\r\n".repeat(300)}`],
  ] as const;

  test.each(badReplies)("%s is 502", async (_name, reply) => {
    const visitor = await path.visit();
    visitor.write(`${get.replace("HOST", path.host)}Connection: close\r\n\r\n`);
    const connection = await path.origin.accept();
    await connection.readHead();
    connection.write(reply);
    readProblem(await visitor.readToEnd(), 502, "ORIGIN_BAD_REPLY");
    await connection.until(() => connection.wasReset || connection.hasEnded, "an end");
  });

  test("an end or a reset without a reply is 502, and the visitor's connection goes on", async () => {
    const visitor = await path.visit();
    for (const [how, code] of [
      ["end", "ORIGIN_CLOSED"],
      ["reset", "ORIGIN_RESET"],
    ] as const) {
      visitor.write(post.replace("HOST", path.host) + "Content-Length: 1\r\n\r\nx");
      const connection = await path.origin.accept();
      await connection.readHead();
      expect(await connection.read(1)).toBe("x");
      connection[how]();
      const answer = await visitor.readHead();
      const length = Number(/Content-Length: (\d+)/.exec(answer)?.[1]);
      readProblem(answer + (await visitor.read(length)), 502, code);
    }
  });
});

describe("answers of the edge itself", () => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport: "websocket", target: await RawSocket.freePort() });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  async function ask(host: string, ...fields: string[]): Promise<string> {
    const visitor = await path.visit();
    visitor.write(
      ["GET /<script>alert(1)</script> HTTP/1.1", `Host: ${host}`, ...fields, "Connection: close", "", ""].join("\r\n"),
    );
    return await visitor.readToEnd();
  }

  test("an origin that is down is 502 and named, an unknown host 404, the node's own host 404", async () => {
    const { detail } = readProblem(await ask(path.host), 502, "ORIGIN_REFUSED");
    expect(detail).toContain("nothing listens on");
    readProblem(await ask(`nobody.localhost:${path.node.port}`), 404, "TUNNEL_UNKNOWN");
    readProblem(await ask("a.b.localhost"), 404, "TUNNEL_UNKNOWN");
    readProblem(await ask("203.0.113.1"), 404, "TUNNEL_UNKNOWN");
  });

  test("are HTML for those who want it, JSON for all others", async () => {
    const browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (const [accept, type] of [
      [browser, "text/html; charset=utf-8"],
      ["Accept: text/html", "text/html; charset=utf-8"],
      ["Accept: application/json;q=0.5, text/html", "text/html; charset=utf-8"],
      ["Accept: application/json, text/html;q=0.5", "application/problem+json"],
      ["Accept: text/html;q=0", "application/problem+json"],
      ["Accept: application/json", "application/problem+json"],
      ["Accept: */*", "application/problem+json"],
      ["X: no Accept", "application/problem+json"],
    ] as const) {
      const answer = await ask(path.host, accept);
      expect(answer).toContain(`\r\nContent-Type: ${type}\r\n`);
      const id = /\r\nSally-Request-Id: (\S+)\r\n/.exec(answer)?.[1] ?? "";
      const [, body = ""] = answer.split("\r\n\r\n");
      expect(body).toContain(id);
      expect(body).toContain("ORIGIN_REFUSED");
      expect(Number(/\r\nContent-Length: (\d+)\r\n/.exec(answer)?.[1])).toBe(body.length);
    }
  });

  test("are HTML for a browser also where its head is refused, if its Accept came that far", async () => {
    const accept = "Accept: text/html,*/*;q=0.8";
    for (const [bytes, status] of [
      [`GET / HTTP/1.1\r\nHost: ${path.host}\r\n${accept}\r\nCookie: ${"a".repeat(70_000)}\r\n\r\n`, 431],
      [`GET / HTTP/1.1\r\nHost: ${path.host}\r\n${accept}\r\nHost: other\r\n\r\n`, 400],
      [`POST / HTTP/1.1\r\n${accept}\r\nHost: ${path.host}\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n`, 400],
    ] as const) {
      const visitor = await path.visit();
      visitor.write(bytes);
      const answer = await visitor.readToEnd();
      expect(answer).toStartWith(`HTTP/1.1 ${status} `);
      expect(answer).toContain("\r\nContent-Type: text/html; charset=utf-8\r\n");
    }
  });

  test("bring nothing that a visitor, a host or a path says to life", async () => {
    for (const accept of ["text/html", "application/json"]) {
      for (const host of [
        path.host,
        "x-onerror-1.localhost",
        "_script_.localhost",
        "<script>",
        '"><img src=x>.localhost',
      ]) {
        const answer = await ask(host, `Accept: ${accept}`, "X-Forwarded-Host: <script>", "User-Agent: <script>");
        const [head = "", body = ""] = answer.split("\r\n\r\n");
        expect(body).not.toMatch(/<script|<img|onerror=/i);
        expect(head).toContain("\r\nX-Content-Type-Options: nosniff\r\n");
        if (accept === "text/html" && !head.includes("problem+json")) {
          expect(head).toContain("\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'");
        }
      }
    }
  });

  test("to HEAD have a length and no body", async () => {
    const visitor = await path.visit();
    visitor.write(`HEAD / HTTP/1.1\r\nHost: ${path.host}\r\nConnection: close\r\n\r\n`);
    const answer = await visitor.readToEnd();
    expect(answer).toStartWith("HTTP/1.1 502 ");
    expect(answer).toMatch(/\r\nContent-Length: [1-9]\d+\r\n/);
    expect(answer).toEndWith("\r\n\r\n");
  });

  test("request ids differ", async () => {
    const ids = new Set<string>();
    for (let n = 0; n < 20; n++) ids.add(/Sally-Request-Id: (\S+)/.exec(await ask(path.host))?.[1] ?? "");
    expect(ids.size).toBe(20);
  });

  test("without an agent it is 503 with Retry-After", async () => {
    await path.agent.process.stop();
    const answer = await ask(path.host);
    readProblem(answer, 503, "TUNNEL_OFFLINE");
    expect(answer).toContain("\r\nRetry-After: 1\r\n");
  });
});
