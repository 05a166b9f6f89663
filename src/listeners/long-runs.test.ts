import { describe, expect, test } from "bun:test";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { FakeExchange } from "../edge/fake-exchange.ts";
import { keepAliveTimeoutMs } from "../edge/origin-client/keep-alive.ts";
import { isConnectionBoundScheme, RequestHeadWriter } from "../edge/origin-client/request-head.ts";
import { errorReply } from "../http/error-page.ts";
import { ChunkedDecoder } from "../http/http1/body-decoder.ts";
import { listMembers, parseContentLength } from "../http/http1/field-list.ts";
import { type ParsedRequest, ReplyParser, RequestParser } from "../http/http1/head-parser.ts";
import { withoutHopByHop } from "../http/http1/hop-by-hop.ts";
import { checkTarget, parseAuthority } from "../http/http1/request-authority.ts";
import { refusalOf } from "./request-intake.ts";

/** Twice the default, half of the largest reply head: what grows with the square of this takes ten seconds. */
const headBytes = 128 * 1024;
const runBytes = headBytes - 4_096;
const mostLimits = { ...limits, headBytes, requestLineBytes: headBytes, replyHeadBytes: headBytes, headFields: 2_000 };

/** Of the processor, so that a busy machine does not matter. Linear work takes a few milliseconds. */
const budgetMs = 1_000;

const pieces = [" ", "\t", ",", ", ", "a", "a ", " a", "a,", ";", "; ", "=", ":", "/", ".", "-", "0", '"'];
const words = ["te,", "close, ", "te", "upgrade ", "timeout", "timeout=", "timeout ", "q=", "text/html;q=", "http://"];
const runs = [...pieces, ...words].map((piece) => piece.repeat(Math.ceil(runBytes / piece.length)).slice(0, runBytes));
const values = runs.flatMap((run) => [`a${run}b`, `${run}\u00ff`]);

/** Fails when `run` takes more than the budget. A refusal is fine: it must only come soon. */
function expectSoon(what: string, run: () => void): void {
  const before = process.cpuUsage();
  try {
    run();
  } catch (error) {
    if (!(error instanceof SallyError)) throw error;
  }
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1_000, `milliseconds for ${what}`).toBeLessThan(budgetMs);
}

function expectLinear(run: (value: string) => void): void {
  for (const value of values) {
    expectSoon(`a value that starts ${JSON.stringify(value.slice(0, 12))}`, () => run(value));
  }
}

const fieldNames = [
  "Accept",
  "Authorization",
  "Connection",
  "Content-Length",
  "Cookie",
  "Expect",
  "Forwarded",
  "Host",
  "Keep-Alive",
  "TE",
  "Transfer-Encoding",
  "Upgrade",
  "X-Forwarded-For",
];

const latin1 = (text: string): Uint8Array => Buffer.from(text, "latin1");

function parseRequest(text: string): ParsedRequest | undefined {
  const parser = new RequestParser(mostLimits);
  const bytes = latin1(text);
  try {
    return parser.push(bytes, 0);
  } catch (error) {
    parser.acceptOfRefused(bytes);
    throw error;
  }
}

const tunnel = {
  name: "demo",
  state: "live",
  hostHeader: { kind: "preserve" },
  pathPrefix: "",
  originLabel: "localhost:3000",
} as const;

/** What happens to a request until the origin has its head. */
function handle(request: ParsedRequest | undefined): void {
  if (request === undefined) return;
  refusalOf(request, mostLimits);
  const { raw } = request.headers;
  const fields = Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i]!, raw[2 * i + 1]!] as const);
  const exchange = new FakeExchange({ target: request.target, fields, wantsUpgrade: request.wantsUpgrade });
  new RequestHeadWriter({ isTrustedProxy: () => true }).write(exchange, tunnel);
  const accept = request.headers.get("accept");
  errorReply(new SallyError("TUNNEL_UNKNOWN", request.target), { id: "x", accept });
}

describe("the time for a long run of anything grows with its length only", () => {
  for (const name of fieldNames) {
    test(`in a request's ${name}`, () => {
      const host = name === "Host" ? "" : "Host: a.localhost\r\n";
      expectLinear((value) => handle(parseRequest(`GET / HTTP/1.1\r\n${host}${name}: ${value}\r\n\r\n`)));
    });

    test(`in a reply's ${name}`, () => {
      expectLinear((value) => {
        const head = `HTTP/1.1 200 OK\r\n${name}: ${value}\r\nTE: x\r\n\r\n`;
        const reply = new ReplyParser(mostLimits).push(latin1(head), 0);
        if (reply === undefined) return;
        withoutHopByHop(reply.headers, reply.nominated, false);
        keepAliveTimeoutMs(reply.headers.get("keep-alive"));
      });
    });
  }

  test("in a head that is refused behind its Accept", () => {
    for (const end of ["\rx", "\r\nbad name: x\r\n", ""]) {
      expectLinear((value) => void parseRequest(`GET / HTTP/1.1\r\nAccept:${value}${end}`));
    }
    expectLinear((value) => void parseRequest(`GET / HTTP/1.1\r\n${`Accept:${value}`.slice(0, 300).repeat(400)}\n`));
  });

  test("in a target", () => {
    expectLinear((value) => {
      const target = value.replaceAll(/[^!-~]/g, "%");
      handle(parseRequest(`GET /${target} HTTP/1.1\r\nHost: a.localhost\r\n\r\n`));
      checkTarget("GET", `http://${target}`, (what) => new SallyError("BAD_REQUEST", what));
    });
  });

  test("in a value that is looked at alone", () => {
    expectLinear((value) => {
      listMembers(value);
      parseAuthority(value);
      isConnectionBoundScheme(value);
      keepAliveTimeoutMs(`timeout${value}`);
      keepAliveTimeoutMs(`timeout=${value}`);
      parseContentLength(value, (what) => new SallyError("BAD_REQUEST", what));
    });
  });

  test("in a chunk extension and in a trailer", () => {
    const chunked = { ...limits, trailerBytes: headBytes, headFields: 2_000, chunkExtensionBytes: headBytes };
    expectLinear((value) => {
      const decoder = new ChunkedDecoder(chunked, "BAD_REQUEST");
      decoder.push(latin1(`1;${value}\r\na\r\n0\r\nConnection: ${value}\r\nX-A: ${value}\r\n\r\n`), 0, { onBody() {} });
    });
  });
});

describe("the time for a head grows with its length only", () => {
  const start = "GET / HTTP/1.1\r\nHost: a.localhost\r\n";

  test("with many fields of one name", () => {
    for (const name of fieldNames) {
      for (const value of ["", "a", "te, close, te, keep-alive", "x ".repeat(25), "te,".repeat(18)]) {
        const fields = `${name}: ${value}\r\n`.repeat(mostLimits.headFields - 4);
        expectSoon(`${name}: ${value}`, () => handle(parseRequest(`${start}Connection: x\r\n${fields}\r\n`)));
      }
    }
  });

  test("with many fields, and a Connection that names as many as it may, and more that are no names", () => {
    const names = Array.from({ length: 60 }, (_, i) => `x-${i}`).join(", ");
    const fields = Array.from({ length: 1_500 }, (_, i) => `x-a${i}: b\r\n`).join("");
    const head = `${start}Connection: ${names}, ${"close,".repeat(10_000)}\r\n${fields}\r\n`;
    expectSoon("such a head", () => handle(parseRequest(head)));
    expect(parseRequest(head)?.nominated.length).toBe(60);
  });

  test("when it comes byte by byte", () => {
    const bytes = latin1(`${start}X: ${"a".repeat(runBytes)}\r\n\r\n`);
    expectSoon("bytes one by one", () => {
      const parser = new RequestParser(mostLimits);
      for (let i = 0; i < bytes.length - 1; i++) parser.push(bytes.subarray(i, i + 1), 0);
      expect(parser.push(bytes.subarray(-1), 0)?.headers.size).toBe(2);
    });
  });
});
