/**
 * What the edge's handler costs for each request, without listener, wire and origin: a stream that answers every write
 * with the same bytes. Run: `bun bench/micro/edge-handler.ts [requests]`; prints microseconds of CPU time a request.
 */

import { systemClock } from "../../src/core/clock.ts";
import { type DialledStream, type DuplexHandler, idleHandler } from "../../src/core/duplex.ts";
import { limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import { createEdge } from "../../src/edge/edge.ts";
import { bytesBody, emptyBody } from "../../src/http/body.ts";
import type { Exchange } from "../../src/http/exchange.ts";
import { HeaderList } from "../../src/http/header-list.ts";

const encoder = new TextEncoder();
const reply = encoder.encode(
  "HTTP/1.1 200 OK\r\nServer: nginx/1.26.3\r\nDate: Sun, 22 Nov 2026 14:00:00 GMT\r\nContent-Type: text/plain\r\n" +
    'Content-Length: 1024\r\nLast-Modified: Sun, 22 Nov 2026 13:00:00 GMT\r\nConnection: keep-alive\r\nETag: "x-400"\r\n' +
    `Accept-Ranges: bytes\r\n\r\n${"x".repeat(1024)}`,
);

class InstantOrigin implements DialledStream {
  handler: DuplexHandler = idleHandler;
  readonly queuedBytes = 0;
  readonly deliveredBytes = undefined;
  readonly isOpened = true;
  write(): boolean {
    queueMicrotask(() => this.handler.onData(reply));
    return true;
  }
  end(): void {}
  reset(): void {}
  consume(): void {}
}

const wrkFields = ["Host", "demo.localhost:8080"];
const browserFields = `Host: demo.localhost:8080
Connection: keep-alive
Cache-Control: max-age=0
Upgrade-Insecure-Requests: 1
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8
Sec-Fetch-Site: none
Sec-Fetch-Mode: navigate
Sec-Fetch-User: ?1
Sec-Fetch-Dest: document
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-GB,en;q=0.9
Cookie: session=0123456789`.split(/: |\n/);
const connection = { id: 1, remote: { host: "127.0.0.1", port: 4711 }, onClose() {} };
const payload = new Uint8Array(512);

function exchangeOf(raw: string[], method: string): Exchange {
  const hasBody = method === "POST";
  return {
    id: "x",
    request: { method, target: "/index.html", minorVersion: 1, headers: new HeaderList(raw) },
    body: hasBody ? bytesBody(payload) : emptyBody,
    wantsUpgrade: false,
    scheme: "http",
    connection,
    authority: "demo.localhost:8080",
    startedMs: 0,
    inform() {},
    onAbort() {},
  };
}

const hostHeader = { kind: "preserve" } as const;
const tunnel = { name: "demo", state: "live", hostHeader, pathPrefix: "", originLabel: "localhost:3000" } as const;
const edge = createEdge({
  domain: "localhost",
  directory: { lookup: () => tunnel },
  dialer: { dial: () => ({ stream: new InstantOrigin(), linkId: "link", claim: { isCurrent: true }, owner: "ann" }) },
  clock: systemClock,
  log: silentLogger,
  limits,
});

async function run(raw: string[], method: string, count: number): Promise<number> {
  const began = process.cpuUsage();
  for (let i = 0; i < count; i++) {
    const answer = await edge.handler(exchangeOf(raw, method));
    if (answer.kind !== "message") throw new Error("an upgrade was not asked for");
    while ((await answer.body.read()) !== null);
  }
  const used = process.cpuUsage(began);
  return (used.user + used.system) / count;
}

const count = Number(process.argv[2] ?? 100_000);
for (const [name, raw, method] of [
  ["GET, 1 field", wrkFields, "GET"],
  ["GET, 13 fields", browserFields, "GET"],
  ["POST 512 B, 13 fields", [...browserFields, "Content-Length", "512"], "POST"],
] as const) {
  await run([...raw], method, count / 4);
  process.stdout.write(`${name}: ${(await run([...raw], method, count)).toFixed(2)} us\n`);
}
edge.close();
