/** The HTTP/1.1 listener on real sockets, plain and TLS, with raw clients. */

import type { Socket } from "bun";
import { afterEach, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { readSync } from "node:fs";
import https from "node:https";
import net from "node:net";
import { systemClock } from "../../src/core/clock.ts";
import { SallyError } from "../../src/core/errors.ts";
import { FakeClock } from "../../src/core/fake-clock.ts";
import { limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import { memoryDuplexPair } from "../../src/core/memory-duplex.ts";
import { type Body, bytesBody } from "../../src/http/body.ts";
import { errorReply } from "../../src/http/error-page.ts";
import type { Handler, Reply } from "../../src/http/exchange.ts";
import { HeaderList } from "../../src/http/header-list.ts";
import { type Http1Listener, type Http1ListenOptions, listenHttp1 } from "../../src/listeners/http1.ts";
import { createTestAuthority } from "../contract/certificates.fixture.ts";
import { until } from "../support/until.ts";

const opened: Http1Listener[] = [];
afterEach(async () => {
  for (const listener of opened.splice(0)) await listener.close();
});

async function listen(handler: Handler, more: Partial<Http1ListenOptions> = {}): Promise<Http1Listener> {
  const base = { host: "127.0.0.1", port: 0, clock: systemClock, log: silentLogger, limits, errorPage: errorReply };
  const listener = await listenHttp1({ ...base, handler, ...more });
  opened.push(listener);
  return listener;
}

function reply(body: Body, raw: string[] = [], status = 200): Reply {
  return { kind: "message", head: { status, reason: "OK", headers: new HeaderList(raw) }, body };
}

const echo: Handler = async ({ body }) => reply(body);
const hello: Handler = async () => reply(bytesBody(Buffer.from("hello")));

/** Everything the server sends until it closes; `onText` hears what has come so far. */
function exchangeRaw(
  port: number,
  bytes: string | Buffer,
  { onText, end = false }: { onText?: (text: string) => void; end?: boolean } = {},
) {
  return new Promise<{ text: string; error: NodeJS.ErrnoException | undefined }>((resolve) => {
    let text = "";
    let error: NodeJS.ErrnoException | undefined;
    const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => {
      socket.write(bytes);
      if (end) socket.end();
    });
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      onText?.(text);
    });
    socket.on("end", () => socket.end());
    socket.on("error", (thrown) => (error = thrown));
    socket.on("close", () => resolve({ text, error }));
  });
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

test("megabytes go up and down unchanged, with length and chunked", async () => {
  const { address } = await listen(echo);
  const sent = randomBytes(5_000_000);
  for (const isChunked of [false, true]) {
    const received = await new Promise<Buffer>((resolve, reject) => {
      const headers: http.OutgoingHttpHeaders = isChunked ? {} : { "Content-Length": sent.length };
      const request = http.request({ port: address.port, method: "POST", headers }, (message) => {
        const chunks: Buffer[] = [];
        message.on("data", (chunk: Buffer) => chunks.push(chunk));
        message.on("end", () => resolve(Buffer.concat(chunks)));
      });
      request.on("error", reject);
      for (let at = 0; at < sent.length; at += 100_000) request.write(sent.subarray(at, at + 100_000));
      request.end();
    });
    expect(sha256(received)).toBe(sha256(sent));
  }
});

test("pipelined requests are answered in order, and a half-closed visitor gets all of it", async () => {
  const { address } = await listen(async ({ request }) => reply(bytesBody(Buffer.from(`<${request.target}>`))));
  const requests = Array.from({ length: 20 }, (_, n) => `GET /${n} HTTP/1.1\r\nHost: a\r\n\r\n`).join("");
  const { text, error } = await exchangeRaw(address.port, requests, { end: true });
  expect(error).toBeUndefined();
  expect([...(text.match(/<\/\d+>/g) ?? [])]).toEqual(Array.from({ length: 20 }, (_, n) => `</${n}>`));
});

test("a malformed request is answered and the answer is not lost, though bytes still come", async () => {
  const { address } = await listen(hello);
  const bytes = `GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n${"x".repeat(2_000_000)}`;
  const { text } = await exchangeRaw(address.port, bytes);
  expect(text).toStartWith("HTTP/1.1 400 Bad Request\r\n");
  expect(text).toContain("Sally-Error: BAD_REQUEST\r\n");
});

test("a reply that breaks off is a reset, never a clean end", async () => {
  let reads = 0;
  const arrived = Promise.withResolvers<void>();
  const body: Body = {
    length: 100,
    trailers: undefined,
    read: async () => {
      if (reads++ === 0) return Buffer.from("part");
      await arrived.promise;
      throw new SallyError("LINK_LOST");
    },
    cancel() {},
  };
  const { address } = await listen(async () => reply(body));
  const { text, error } = await exchangeRaw(address.port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", {
    onText: (seen) => void (seen.endsWith("part") && arrived.resolve()),
  });
  expect(text).toEndWith("part");
  expect(error?.code).toBe("ECONNRESET");
});

test("a visitor's abort reaches the exchange", async () => {
  const { promise, resolve } = Promise.withResolvers<string>();
  const { address } = await listen((exchange) => {
    exchange.onAbort((error) => resolve(error.code));
    socket.resetAndDestroy();
    return new Promise(() => {});
  });
  const socket = net.connect(address.port, "127.0.0.1", () => socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  socket.on("error", () => {});
  expect(await promise).toBe("VISITOR_GONE");
});

test("an upgrade becomes a byte pipe both ways", async () => {
  const [stream, origin] = memoryDuplexPair();
  origin.handler = {
    onData(chunk) {
      origin.consume(chunk.length);
      origin.write(Buffer.from(chunk.toReversed()));
    },
    onEnd: () => origin.end(),
    onDrain() {},
    onClose() {},
  };
  const headers = new HeaderList(["Connection", "Upgrade", "Upgrade", "mirror"]);
  const { address } = await listen(async () => ({
    kind: "upgrade",
    head: { status: 101, reason: "Go", headers },
    stream,
  }));
  const request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: mirror\r\n\r\nabc";
  const { text, error } = await exchangeRaw(address.port, request, { end: true });
  expect(error).toBeUndefined();
  expect(text).toBe("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: mirror\r\n\r\ncba");
});

test("over TLS the scheme is https", async () => {
  const authority = await createTestAuthority();
  const { keyPem, certPem } = await authority.issue({ role: "node" });
  const { address } = await listen(async ({ scheme }) => reply(bytesBody(Buffer.from(scheme))), {
    tls: { keyPem, certPem },
  });
  const text = await new Promise<string>((resolve, reject) => {
    const target = { port: address.port, host: "127.0.0.1", rejectUnauthorized: false };
    https.get(target, (message) => message.on("data", (chunk: Buffer) => resolve(String(chunk)))).on("error", reject);
  });
  expect(text).toBe("https");
});

/** Reads from the paused socket of a visitor as a slow one does: the runtime would take half a megabyte at once. */
async function readPast(socket: Socket, byteCount: number): Promise<void> {
  const { fd } = socket as Socket & { readonly fd: number }; // missing in the types
  const buffer = Buffer.alloc(byteCount);
  let left = byteCount;
  await until("the visitor has read", () => {
    try {
      left -= readSync(fd, buffer, 0, left, null);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
    return left === 0;
  });
}

test.each(["http", "https"])(
  "a visitor over %s who reads slowly is not taken for one who does not read",
  async (scheme) => {
    const clock = new FakeClock();
    const { keyPem, certPem } = await (await createTestAuthority()).issue({ role: "node" });
    const bytes = 24 * 1024 * 1024; // more than both systems hold
    const listener = await listen(async () => reply(bytesBody(Buffer.alloc(bytes, "x"))), {
      clock,
      writeStallMs: 10_000,
      ...(scheme === "http" ? {} : { tls: { keyPem, certPem } }),
    });
    const { promise: asked, resolve } = Promise.withResolvers<Socket>();
    const ask = (socket: Socket): void => {
      socket.pause();
      socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      resolve(socket);
    };
    await Bun.connect({
      hostname: "127.0.0.1",
      port: listener.address.port,
      ...(scheme === "http" ? {} : { tls: { rejectUnauthorized: false } }),
      socket: { data() {}, ...(scheme === "http" ? { open: ask } : { handshake: ask }) },
    });
    const socket = await asked;
    const isCutOff = (): boolean => listener.connectionCount === 0;
    for (let second = 0; second < 60; second++) {
      await readPast(socket, 40 * 1024);
      clock.advance(1_000);
      expect(isCutOff()).toBe(false);
    }
    for (let second = 0; second < 12; second++) clock.advance(1_000);
    await until("who reads nothing more is cut off", isCutOff);
  },
);

test("draining under load loses no request", async () => {
  const listener = await listen(async () => {
    await Bun.sleep(20); // how long each request runs
    return reply(bytesBody(Buffer.from("hello")));
  });
  const { port } = listener.address;
  const state = { answered: 0 };
  const visitor = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
      let text = "";
      const socket = net.connect(port, "127.0.0.1", () => socket.write(one));
      socket.on("data", (chunk) => {
        text += chunk.toString();
        if (!text.endsWith("hello")) return;
        state.answered++;
        if (text.includes("Connection: close")) {
          socket.end();
          return;
        }
        text = "";
        socket.write(one);
      });
      socket.on("error", reject);
      socket.on("close", () => (text.endsWith("hello") ? resolve() : reject(new Error(`cut off in ${text}`))));
    });
  const visitors = Array.from({ length: 20 }, visitor);
  await until("some answers", () => state.answered >= 60);
  await listener.drain(5_000);
  await Promise.all(visitors);
  expect(listener.connectionCount).toBe(0);
  const refused = await exchangeRaw(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  expect(refused.text).toBe("");
});
