/** What stands in heads arrives as it was sent, both ways, but for what belongs to one connection or was made up. */

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/** The fields that the edge adds for a visitor of `path`. */
function forwardedLines({ host }: VisitorPath): string {
  return (
    `X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: ${host}\r\nX-Forwarded-Proto: http\r\n` +
    `Forwarded: for=127.0.0.1;host="${host}";proto=http\r\n\r\n`
  );
}

/** Sends a request head; gives the head that the origin got, and the reply. */
async function send(path: VisitorPath, request: string, reply = ok): Promise<{ seen: string; answer: string }> {
  const visitor = await path.visit();
  visitor.write(request);
  const connection = await path.origin.accept();
  const seen = await connection.readHead();
  connection.write(reply);
  const answer = await visitor.readHead();
  path.forget();
  return { seen, answer };
}

const targets = [
  "/",
  "//",
  "///a//b/",
  "//evil.example/path",
  "/..",
  "/../../etc/passwd",
  "/a/./b/../c",
  "/%2e%2e/%2E%2e/.%2e/",
  "/a%2Fb%2fc%5C",
  "/a%252Fb",
  "/%",
  "/%zz%1",
  "/%00%0d%0a",
  "/?",
  "/??",
  "/a?b?c=d&&e==f&",
  "/a;b=c;d?x;y",
  "/a\\..\\b",
  '/"<>\\^`{|}[]',
  "/~!$&'()*+,;=:@-._",
  "/http://other.example/?https://third.example",
  "/gr\xc3\xbc\xc3\x9fe?\xf0\x9f\x9a\xaa",
  "/\x80\xff",
  `/${"a".repeat(15_000)}?${"b".repeat(1_000)}`,
];

describe.each([...transports])("over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  test("targets arrive byte for byte", async () => {
    const seen: string[] = [];
    for (const target of targets) {
      const { seen: head } = await send(path, `GET ${target} HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
      seen.push(head.slice(0, head.indexOf("\r\n")));
    }
    expect(seen).toEqual(targets.map((target) => `GET ${target} HTTP/1.1`));
  });

  test("an absolute-form target is cut to its path, a * stays a *", async () => {
    const cases: [string, string][] = [
      [`GET http://${path.host}/a//b?c HTTP/1.1`, "GET /a//b?c HTTP/1.1"],
      [`GET http://${path.host.toUpperCase()}?q HTTP/1.1`, "GET /?q HTTP/1.1"],
      [`GET http://${path.host} HTTP/1.1`, "GET / HTTP/1.1"],
      [`OPTIONS http://${path.host} HTTP/1.1`, "OPTIONS * HTTP/1.1"],
      [`OPTIONS http://${path.host}/ HTTP/1.1`, "OPTIONS / HTTP/1.1"],
      ["OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"],
    ];
    for (const [sent, expected] of cases) {
      const { seen } = await send(path, `${sent}\r\nHost: ${path.host}\r\n\r\n`);
      expect(seen).toBe(`${expected}\r\nHost: ${path.host}\r\n${forwardedLines(path)}`);
    }
  });

  test("methods arrive as they are, unknown ones too", async () => {
    for (const method of ["get", "PATCH", "DELETE", "PROPFIND", "M-SEARCH", "!#$%&'*+-.^_`|~1", "PRI"]) {
      const { seen } = await send(path, `${method} /m HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
      expect(seen).toStartWith(`${method} /m HTTP/1.1\r\n`);
    }
  });

  test("request fields keep order, case, duplicates and every byte of their values", async () => {
    const fields = [
      "X-Zeta: 1",
      `hOsT: ${path.host}`,
      "x-alpha: 2",
      "X-ZETA: 3",
      "X-Empty: ",
      "X-Tab: a\tb",
      "X-Obs: \xe9\x80\xff",
      "X-Quoted: \"a, b\"; c='d'",
      `X-Long: ${"v".repeat(20_000)}`,
      "Cookie: a=1",
      "Accept: text/html;q=0.9",
      "cookie: b=2",
      "accept: */*",
      "!#$%&'*+-.^_`|~9: token",
      "User_Id: 7",
      "Authorization: Bearer a.b.c",
      "authorization: Basic Og==",
      'If-None-Match: W/"x", "y"',
      "Accept-Encoding: gzip;q=0, br",
      "Range: bytes=0-0,-1",
      "Proxy-Authorization: Basic Og==",
      "Cache-Control: no-cache",
      "Via: 1.0 fred, 1.1 p.example",
      "Origin: null",
      "Sec-Fetch-Mode: cors",
      "Max-Forwards: 0",
      "X-Request-Id: mine",
    ];
    const { seen } = await send(path, `GET /f HTTP/1.1\r\n${fields.join("\r\n")}\r\n\r\n`);
    expect(seen).toBe(`GET /f HTTP/1.1\r\n${fields.join("\r\n")}\r\n${forwardedLines(path)}`);
  });

  test("white space around a value is the only thing that is lost", async () => {
    const request = `GET / HTTP/1.1\r\nHost:\t ${path.host} \t\r\nA:1\r\nB: \t two  words \t \r\nC:\r\n\r\n`;
    const { seen } = await send(path, request);
    expect(seen).toBe(
      `GET / HTTP/1.1\r\nHost: ${path.host}\r\nA: 1\r\nB: two  words\r\nC: \r\n${forwardedLines(path)}`,
    );
  });

  test("request fields of one connection are removed, with those that Connection names, and nothing else", async () => {
    const head = [
      "GET / HTTP/1.1",
      `Host: ${path.host}`,
      "Connection: X-Private, keep-alive",
      "X-Private: 1",
      "Keep-Alive: timeout=99",
      "connection: x-other , Authorization, Cookie, X-Forwarded-For",
      "x-OTHER: 2",
      "Proxy-Connection: keep-alive",
      "TE: gzip, trailers;q=0.5",
      "Upgrade: websocket",
      "HTTP2-Settings: AAMAAABk",
      "Authorization: Basic Og==",
      "Cookie: a=1",
      "X-Public: 3",
      "x-private: 4",
    ].join("\r\n");
    const { seen } = await send(path, `${head}\r\n\r\n`);
    const lines = seen.split("\r\n");
    expect(lines.filter((line) => !line.startsWith("TE:") && !/^Connection: TE$/i.test(line)).join("\r\n")).toBe(
      `GET / HTTP/1.1\r\nHost: ${path.host}\r\nAuthorization: Basic Og==\r\nCookie: a=1\r\nX-Public: 3\r\n${forwardedLines(path)}`,
    );
  });

  test("TE says trailers to the origin, and Connection names it", async () => {
    const { seen } = await send(
      path,
      `GET / HTTP/1.1\r\nHost: ${path.host}\r\nTE: trailers, gzip\r\nConnection: TE\r\n\r\n`,
    );
    expect(seen).toContain("\r\nTE: trailers\r\n");
    expect(seen).toContain("\r\nConnection: TE\r\n");
  });

  test("forwarding fields are written anew: what a visitor claims is gone, in every spelling", async () => {
    const claimed = [
      "X-Forwarded-For: 6.6.6.6",
      "x-forwarded-for: 7.7.7.7",
      "X_Forwarded_For: 8.8.8.8",
      "X-Forwarded_For: 8.8.8.8",
      "X-Forwarded-Host: evil.example",
      "X_FORWARDED_HOST: evil.example",
      "X-Forwarded-Proto: https",
      "X_Forwarded-Proto: https",
      "X-Forwarded-Port: 443",
      "X-Forwarded-Prefix: /admin",
      "X-Forwarded-Server: evil",
      "X-Forwarded-Ssl: on",
      "X-Forwarded-User: root",
      "x_forwarded_anything: 1",
      "Forwarded: for=6.6.6.6;proto=https",
      "forwarded: for=7.7.7.7",
      "X-Real-IP: 6.6.6.6",
      "X_Real_IP: 6.6.6.6",
      "Sally-Request-Id: fake",
      "Sally-Probe: fake",
      "sally_identity: root",
      "Content_Length: 5",
      "Transfer_Encoding: chunked",
    ];
    const { seen } = await send(
      path,
      `GET / HTTP/1.1\r\nHost: ${path.host}\r\n${claimed.join("\r\n")}\r\nX-Kept: 1\r\n\r\n`,
    );
    expect(seen).toBe(`GET / HTTP/1.1\r\nHost: ${path.host}\r\nX-Kept: 1\r\n${forwardedLines(path)}`);
  });

  test("reply fields keep status, reason, order, case, duplicates and every byte of their values", async () => {
    const lines = [
      "HTTP/1.1 299 Very  Fine \xe9!",
      "set-cookie: a=1; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
      "X-Zeta: 1",
      "Set-Cookie: b=2, c",
      "x-zeta: 2",
      "X-Empty: ",
      "X-Obs: \xe9\x80\xff",
      `X-Long: ${"v".repeat(100_000)}`,
      "Location: /a b%zz\x80",
      'WWW-Authenticate: Basic realm="a", Digest realm="b"',
      "Server: origin",
      "Via: 1.1 inner",
      "Strict-Transport-Security: max-age=1",
      "X-Forwarded-For: mine",
      "Content-Length: 0",
      "Date: yesterday",
    ];
    const { answer } = await send(
      path,
      `GET / HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`,
      `${lines.join("\r\n")}\r\n\r\n`,
    );
    expect(answer).toBe(`${lines.join("\r\n")}\r\n\r\n`);
  });

  test("a reply without a reason, with or without the space before it, has none", async () => {
    for (const line of ["HTTP/1.1 204 ", "HTTP/1.1 204", "HTTP/1.0 204 "]) {
      const { answer } = await send(path, `GET / HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`, `${line}\r\nA: 1\r\n\r\n`);
      expect(answer).toBe("HTTP/1.1 204 \r\nA: 1\r\n\r\n");
    }
  });

  test("reply fields of one connection are removed, with those that Connection names, and nothing else", async () => {
    const reply = [
      "HTTP/1.1 200 OK",
      "Connection: X-Private, keep-alive",
      "X-Private: 1",
      "Keep-Alive: timeout=99",
      "connection: X-Other, Set-Cookie, Content-Type",
      "Set-Cookie: a=1",
      "Content-Type: text/plain",
      "x-OTHER: 2",
      "Proxy-Connection: keep-alive",
      "Upgrade: h2c",
      "X-Public: 3",
      "Content-Length: 0",
    ].join("\r\n");
    const { answer } = await send(path, `GET / HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`, `${reply}\r\n\r\n`);
    expect(answer).toBe(
      "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Type: text/plain\r\nX-Public: 3\r\nContent-Length: 0\r\n\r\n",
    );
  });

  test("heads arrive whole however they are cut", async () => {
    const request = `GET /cut?x HTTP/1.1\r\nHost: ${path.host}\r\nX-A: 1\r\n\r\n`;
    const visitor = await path.visit();
    for (const byte of request) {
      visitor.write(byte);
      await Bun.sleep(0); // each byte travels by itself
    }
    const connection = await path.origin.accept();
    expect(await connection.readHead()).toBe(
      `GET /cut?x HTTP/1.1\r\nHost: ${path.host}\r\nX-A: 1\r\n${forwardedLines(path)}`,
    );
    for (const byte of "HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n") {
      connection.write(byte);
      await Bun.sleep(0); // as above
    }
    expect(await visitor.readHead()).toBe("HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n");
  });

  test("HTTP/1.0 visitors are served as such", async () => {
    const visitor = await path.visit();
    visitor.write(`GET /old HTTP/1.0\r\nHost: ${path.host}\r\n\r\n`);
    const connection = await path.origin.accept();
    expect(await connection.readHead()).toStartWith(`GET /old HTTP/1.1\r\nHost: ${path.host}\r\n`);
    connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    expect(await visitor.readToEnd()).toBe("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde");
  });
});

describe("settings", () => {
  test("a trusted proxy's forwarding fields are kept, and ours go behind them", async () => {
    await using path = await VisitorPath.open({
      transport: "websocket",
      settings: { trustedProxies: ["127.0.0.0/8"] },
    });
    const head = `GET / HTTP/1.1\r\nHost: ${path.host}\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n`;
    const { seen } = await send(path, head);
    expect(seen).toContain("\r\nX-Forwarded-For: 203.0.113.9, 127.0.0.1\r\n");
    expect(seen).toContain("\r\nX-Forwarded-Proto: https\r\n");
    expect(seen).not.toContain("6.6.6.6");
  });

  test("the Host field is rewritten to the target's, or to a value, where that was asked for", async () => {
    for (const [policy, expected] of [
      ["rewrite", undefined],
      ["app.internal:81", "app.internal:81"],
    ] as const) {
      await using path = await VisitorPath.open({ transport: "websocket", agentArgs: ["--host", policy] });
      const { seen } = await send(path, `GET / HTTP/1.1\r\nA: 1\r\nhost: ${path.host}\r\n\r\n`);
      expect(seen).toBe(
        `GET / HTTP/1.1\r\nA: 1\r\nhost: ${expected ?? `127.0.0.1:${path.origin.port}`}\r\n${forwardedLines(path)}`,
      );
    }
  });
});
