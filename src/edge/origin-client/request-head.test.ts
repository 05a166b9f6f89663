import { describe, expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../../core/bytes.ts";
import { limits } from "../../core/limits.ts";
import { encodeRequestHead } from "../../http/http1/head-writer.ts";
import { FakeConnection, FakeExchange, type FakeExchangeOptions, FedBody } from "../fake-exchange.ts";
import { demoTunnel } from "../test-rig.ts";
import type { TunnelEntry } from "../../ports/tunnel-directory.ts";
import { FieldKinds, hostField, keepField } from "./field-kinds.ts";
import { originTarget, RequestHeadWriter } from "./request-head.ts";

const forwarded = [
  "X-Forwarded-For: 192.0.2.7",
  "X-Forwarded-Host: demo.localhost:8080",
  "X-Forwarded-Proto: http",
  'Forwarded: for=192.0.2.7;host="demo.localhost:8080";proto=http',
];

function linesOf(options: FakeExchangeOptions, tunnel: Partial<TunnelEntry> = {}, writer = new RequestHeadWriter()) {
  const head = writer.write(new FakeExchange(options), { ...demoTunnel, ...tunnel });
  const text = utf8Decode(encodeRequestHead(head));
  expect(text.endsWith("\r\n\r\n")).toBe(true);
  return text.slice(0, -4).split("\r\n");
}

describe("the request head for the origin", () => {
  test("keeps order, case and duplicates of end-to-end fields", () => {
    const fields = [
      ["X-b", "1"],
      ["cookie", "a=1"],
      ["x-B", "2"],
      ["Cookie", "b=2"],
      ["X-Empty", ""],
    ] as const;
    expect(linesOf({ fields })).toEqual([
      "GET / HTTP/1.1",
      "Host: demo.localhost:8080",
      "X-b: 1",
      "cookie: a=1",
      "x-B: 2",
      "Cookie: b=2",
      "X-Empty: ",
      ...forwarded,
    ]);
  });

  test("drops what belongs to the visitor's connection, and what Connection names", () => {
    const fields = [
      ["Connection", "keep-alive, X-Mine, close"],
      ["X-Mine", "gone"],
      ["Keep-Alive", "timeout=9"],
      ["Proxy-Connection", "x"],
      ["TE", "gzip"],
      ["Upgrade", "h2c"],
      ["X-Stays", "1"],
    ] as const;
    expect(linesOf({ fields })).toEqual(["GET / HTTP/1.1", "Host: demo.localhost:8080", "X-Stays: 1", ...forwarded]);
  });

  test("lets Connection remove neither framing nor credentials nor the Host", () => {
    const fields = [
      ["Connection", "Content-Length, Host, Cookie, Authorization, X-Forwarded-For, Transfer-Encoding"],
      ["Cookie", "a=1"],
      ["Authorization", "Bearer x"],
    ] as const;
    expect(linesOf({ method: "POST", fields, body: utf8Encode("abc") })).toEqual([
      "POST / HTTP/1.1",
      "Host: demo.localhost:8080",
      "Cookie: a=1",
      "Authorization: Bearer x",
      "Content-Length: 3",
      ...forwarded,
    ]);
  });

  test("says anew who asks, whatever the visitor claims and however it spells it", () => {
    const names = [
      "X-Forwarded-For",
      "x_forwarded_for",
      "X-Forwarded_Proto",
      "X-Forwarded-Port",
      "Forwarded",
      "X-Real-IP",
      "X_Real_Ip",
      "Sally-Probe",
      "sally_identity",
      "Content_Length",
      "Transfer_Encoding",
    ];
    expect(linesOf({ fields: names.map((name) => [name, "6.6.6.6"] as const) })).toEqual([
      "GET / HTTP/1.1",
      "Host: demo.localhost:8080",
      ...forwarded,
    ]);
  });

  test("adds to what a trusted proxy says, without its aliases", () => {
    const writer = new RequestHeadWriter({ isTrustedProxy: (host) => host === "192.0.2.7" });
    const fields = [
      ["X-Forwarded-For", "203.0.113.1"],
      ["X-Forwarded-For", "203.0.113.2"],
      ["X-Forwarded-Proto", "https"],
      ["Forwarded", "for=203.0.113.1"],
      ["X_Forwarded_For", "6.6.6.6"],
    ] as const;
    expect(linesOf({ fields }, {}, writer).slice(2)).toEqual([
      "X-Forwarded-For: 203.0.113.1, 203.0.113.2, 192.0.2.7",
      "X-Forwarded-Host: demo.localhost:8080",
      "X-Forwarded-Proto: https",
      'Forwarded: for=203.0.113.1, for=192.0.2.7;host="demo.localhost:8080";proto=http',
    ]);
  });

  test("writes IPv6 addresses as RFC 7239 wants them", () => {
    const lines = linesOf({ connection: new FakeConnection("2001:db8::1") });
    expect(lines).toContain("X-Forwarded-For: 2001:db8::1");
    expect(lines).toContain('Forwarded: for="[2001:db8::1]";host="demo.localhost:8080";proto=http');
  });

  test("remembers forwarding fields for each connection and authority, not for the writer", () => {
    const writer = new RequestHeadWriter();
    const connection = new FakeConnection("192.0.2.1");
    expect(linesOf({ connection }, {}, writer)).toContain("X-Forwarded-For: 192.0.2.1");
    expect(linesOf({ connection, authority: "b.localhost" }, {}, writer)).toContain("X-Forwarded-Host: b.localhost");
    expect(linesOf({ connection: new FakeConnection("192.0.2.2") }, {}, writer)).toContain(
      "X-Forwarded-For: 192.0.2.2",
    );
  });

  test("treats Host by the tunnel's policy, and adds one where there is none", () => {
    expect(linesOf({}, { hostHeader: { kind: "rewrite", originHost: "localhost:3000" } })[1]).toBe(
      "Host: localhost:3000",
    );
    expect(linesOf({}, { hostHeader: { kind: "value", value: "app.test" } })[1]).toBe("Host: app.test");
    const exchange = new FakeExchange();
    exchange.request.headers.delete("host");
    expect(new RequestHeadWriter().write(exchange, demoTunnel).headers.raw.slice(0, 2)).toEqual([
      "Host",
      "demo.localhost:8080",
    ]);
  });

  test("sends the Host that was routed on, in the visitor's letter case", () => {
    const exchange = new FakeExchange();
    exchange.request.headers.set("Host", "DEMO.localhost:8080");
    expect(new RequestHeadWriter().write(exchange, demoTunnel).headers.get("host")).toBe("DEMO.localhost:8080");
    exchange.request.headers.set("Host", "other.localhost");
    expect(new RequestHeadWriter().write(exchange, demoTunnel).headers.get("host")).toBe("demo.localhost:8080");
  });

  test("frames the body once: by length as it was announced, else chunked", () => {
    expect(linesOf({ method: "POST", body: utf8Encode("abc") })).toContain("Content-Length: 3");
    const chunked = linesOf({ method: "POST", body: new FedBody(), fields: [["transfer-encoding", "chunked"]] });
    expect(chunked.filter((line) => /^(content-length|transfer-encoding)/i.test(line))).toEqual([
      "transfer-encoding: chunked",
    ]);
    const fields = [
      ["Content-Length", "5"],
      ["Content-Length", "7"],
    ] as const;
    const twice = linesOf({ method: "POST", body: new FedBody([], 5), fields });
    expect(twice.filter((line) => /^content-length/i.test(line))).toEqual(["Content-Length: 5"]);
    expect(linesOf({ method: "POST", body: new FedBody([], 4) })).toContain("Content-Length: 4");
    expect(linesOf({ method: "POST", body: new FedBody() })).toContain("Transfer-Encoding: chunked");
    expect(linesOf({ method: "POST", fields: [["Content-Length", "0"]] })).toContain("Content-Length: 0");
  });

  test("passes TE: trailers on and names it in Connection", () => {
    const lines = linesOf({ fields: [["TE", "gzip, trailers"]] });
    expect(lines).toContain("TE: trailers");
    expect(lines).toContain("Connection: TE");
  });

  test("asks for an upgrade as the visitor did, never for h2c", () => {
    const fields = [
      ["Connection", "keep-alive, Upgrade"],
      ["Upgrade", "websocket"],
      ["Sec-WebSocket-Key", "x"],
    ] as const;
    expect(linesOf({ fields, wantsUpgrade: true }).slice(1, 5)).toEqual([
      "Host: demo.localhost:8080",
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Key: x",
    ]);
    const h2c = [
      ["Connection", "Upgrade, HTTP2-Settings"],
      ["Upgrade", "h2c"],
      ["HTTP2-Settings", "x"],
    ] as const;
    expect(linesOf({ fields: h2c, wantsUpgrade: true })).toEqual([
      "GET / HTTP/1.1",
      "Host: demo.localhost:8080",
      ...forwarded,
    ]);
  });

  test("passes Expect on, but not for HTTP/1.0", () => {
    const fields = [["Expect", "100-continue"]] as const;
    const writer = new RequestHeadWriter();
    const body = utf8Encode("x");
    expect(writer.write(new FakeExchange({ method: "PUT", fields, body }), demoTunnel).expectsContinue).toBe(true);
    expect(linesOf({ method: "PUT", fields, body })).toContain("Expect: 100-continue");
    expect(linesOf({ method: "PUT", fields, body, minorVersion: 0 })).not.toContain("Expect: 100-continue");
  });

  test("keeps bytes above 0x7f as they are", () => {
    const head = new RequestHeadWriter().write(new FakeExchange({ fields: [["X-Name", "caf\u00e9"]] }), demoTunnel);
    expect(encodeRequestHead(head).includes(0xe9)).toBe(true);
  });

  test("remembers only so many spellings", () => {
    const writer = new RequestHeadWriter();
    for (let i = 0; i < limits.fieldNames; i++) linesOf({ fields: [[`X-${i}`, "1"]] }, {}, writer);
    expect(linesOf({ fields: [["X-Forwarded-FOR", "6.6.6.6"]] }, {}, writer)).toEqual([
      "GET / HTTP/1.1",
      "Host: demo.localhost:8080",
      ...forwarded,
    ]);
  });
});

describe("the target for the origin", () => {
  const cases: [string, string, string][] = [
    ["/a/../b//c?x=%2F&y=://z", "", "/a/../b//c?x=%2F&y=://z"],
    ["/", "/prefix", "/prefix/"],
    ["/a?b", "/p", "/p/a?b"],
    ["http://demo.localhost:8080/a%20b?c", "", "/a%20b?c"],
    ["http://demo.localhost:8080", "", "/"],
    ["http://demo.localhost?x=/y", "/p", "/p/?x=/y"],
    ["*", "", "*"],
  ];
  for (const [target, prefix, expected] of cases) {
    test(`of ${target} behind "${prefix}" is ${expected}`, () =>
      expect(originTarget({ method: "GET", target }, prefix)).toBe(expected));
  }

  test("of OPTIONS for a whole host is *, whatever the prefix", () => {
    expect(originTarget({ method: "OPTIONS", target: "http://demo.localhost:8080" }, "/p")).toBe("*");
    expect(originTarget({ method: "OPTIONS", target: "http://demo.localhost:8080/" }, "")).toBe("/");
    expect(originTarget({ method: "OPTIONS", target: "http://demo.localhost:8080?q" }, "")).toBe("/?q");
  });
});

test("kinds of fields are remembered for a bounded number of spellings, none of them long", () => {
  const kinds = new FieldKinds();
  const long = "X".repeat(limits.fieldNameChars);
  for (const name of [`${long}X`, long, "Host", "HOST", "host", "Host"]) kinds.of(name);
  expect(kinds.size).toBe(4);
  for (let i = 0; i < limits.fieldNames; i++) kinds.of(`X-${i}`);
  expect(kinds.size).toBe(limits.fieldNames);
  expect([kinds.of("HOST"), kinds.of("hOST"), kinds.of("X-New")]).toEqual([hostField, hostField, keepField]);
});
