/** An exit and agents over real transports on loopback, with real origins behind them. */

import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SallyError } from "../../src/core/errors.ts";
import { collect, LinkRig, type RigTransport } from "../support/link-rig.ts";
import { until } from "../support/until.ts";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

async function rigOver(transport: RigTransport): Promise<LinkRig> {
  const rig = await LinkRig.create(transport, {
    reconnectBackoffMinMs: 50,
    revocationPollMs: 100,
    quicReturnEveryMs: 200,
  });
  cleanups.push(() => rig.close());
  return rig;
}

/** An HTTP origin that answers with its own name, the method and the path. */
function startOrigin(name = "origin"): string {
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => new Response(`${name} ${request.method} ${new URL(request.url).pathname}`),
  });
  cleanups.push(() => server.stop(true));
  return `127.0.0.1:${server.port}`;
}

/** A TCP origin that echoes, and ends when the other side does. */
function startEcho(): string {
  const server = Bun.listen({
    port: 0,
    hostname: "127.0.0.1",
    allowHalfOpen: true,
    socket: {
      data: (socket, chunk) => void socket.write(chunk),
      end: (socket) => void socket.end(),
    },
  });
  cleanups.push(() => server.stop(true));
  return `127.0.0.1:${server.port}`;
}

function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "ok",
    (thrown: unknown) => (thrown instanceof SallyError ? thrown.code : String(thrown)),
  );
}

describe.each(["websocket", "quic"] as const)("a tunnel over %s", (transport) => {
  test("serves its origin, once a probe came back", async () => {
    const rig = await rigOver(transport);
    const laptop = await rig.connect({ target: startOrigin() });
    expect(await laptop.until("tunnel")).toMatchObject({ name: "demo", url: "http://demo.localhost", transport });
    expect(await rig.get("/hello")).toEndWith("origin GET /hello");
    expect(rig.exit.links()).toMatchObject([{ names: ["demo"], transport, identity: "ann" }]);
  });

  test("serves many streams at once", async () => {
    const rig = await rigOver(transport);
    await (await rig.connect({ target: startOrigin() })).until("tunnel");
    const replies = await Promise.all(Array.from({ length: 200 }, (_, index) => rig.get(`/${index}`)));
    expect(replies.every((reply, index) => reply.endsWith(`origin GET /${index}`))).toBe(true);
  });

  test("keeps raw bytes and the half-close", async () => {
    const rig = await rigOver(transport);
    await (await rig.connect({ target: startEcho() })).until("tunnel");
    expect(await rig.send("ping", { protocol: "raw", ends: true })).toBe("ping");
  });

  test("serves a unix socket", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sally-"));
    cleanups.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "app.sock");
    const server = Bun.serve({ unix: path, fetch: () => new Response("over unix") });
    cleanups.push(() => server.stop(true));
    const rig = await rigOver(transport);
    await (await rig.connect({ target: `unix:${path}` })).until("tunnel");
    expect(await rig.get("/")).toEndWith("over unix");
  });

  test("tells that the origin is down, stays up, and sees it come back", async () => {
    const address = startOrigin();
    await (cleanups.pop() as () => Promise<void>)();
    const rig = await rigOver(transport);
    const laptop = await rig.connect({ target: address });
    await laptop.until("tunnel");
    const refusal = await rig.get("/").catch((error: SallyError) => error);
    expect(refusal).toMatchObject({ code: "ORIGIN_REFUSED" });
    expect((refusal as SallyError).message).toContain(`nothing listens on ${address}`);
    await laptop.until("origin", ({ state }) => state === "down");
    const server = Bun.serve({
      port: Number(address.split(":")[1]),
      hostname: "127.0.0.1",
      fetch: () => new Response("back"),
    });
    cleanups.push(() => server.stop(true));
    await laptop.until("origin", ({ state }) => state === "up");
    expect(await rig.get("/")).toEndWith("back");
    expect(laptop.events.filter(({ event }) => event === "link")).toHaveLength(1);
  });

  test("an unknown name is refused by the exit", async () => {
    const rig = await rigOver(transport);
    await (await rig.connect({ target: startOrigin() })).until("tunnel");
    expect(() => rig.dial("other")).toThrow(expect.objectContaining({ code: "TUNNEL_UNKNOWN" }));
  });

  test("a newer process replaces the older, which ends with code 4 and stays away", async () => {
    const rig = await rigOver(transport);
    const older = await rig.connect({ target: startOrigin("older") });
    await older.until("tunnel");
    const newer = await rig.connect({ target: startOrigin("newer") });
    await newer.until("tunnel");
    expect(await older.until("fatal")).toMatchObject({ exitCode: 4, error: { code: "REPLACED" } });
    expect(await rig.get("/")).toEndWith("newer GET /");
    await until("only the newer link is left", () => rig.exit.links().length === 1);
    expect(newer.events.some(({ event }) => event === "fatal")).toBe(false);
  });

  test("two installations share a name only when both say so", async () => {
    const rig = await rigOver(transport);
    const one = await rig.connect({ target: startOrigin("one"), installation: "one", isShared: true });
    await one.until("tunnel");
    const greedy = await rig.connect({ target: startOrigin(), installation: "two" });
    expect(await greedy.until("fatal")).toMatchObject({ exitCode: 4, error: { code: "NAME_IN_USE" } });
    await (await rig.connect({ target: startOrigin("two"), installation: "two", isShared: true })).until("tunnel");
    const replies = await Promise.all(Array.from({ length: 40 }, () => rig.get("/")));
    expect(new Set(replies.map((reply) => reply.slice(-9)))).toEqual(new Set(["one GET /", "two GET /"]));
  });

  test("a name of another identity is refused with code 4", async () => {
    const rig = await rigOver(transport);
    rig.owners.set("demo", "bob");
    const laptop = await rig.connect({ target: startOrigin() });
    expect(await laptop.until("fatal")).toMatchObject({ exitCode: 4, error: { code: "NAME_TAKEN" } });
  });

  test("a revocation closes the live link and its streams, and the agent ends with code 3", async () => {
    const rig = await rigOver(transport);
    const laptop = await rig.connect({ target: startEcho() });
    await laptop.until("tunnel");
    const stream = collect(rig.dial("demo", "raw"), "hello");
    await until("the stream is open", () => rig.exit.links()[0]?.streams === 1);
    rig.revoked.add("ann");
    expect(await codeOf(stream)).not.toBe("ok");
    expect(await laptop.until("fatal")).toMatchObject({ exitCode: 3, error: { code: "CERTIFICATE_REVOKED" } });
    expect(rig.exit.links()).toEqual([]);
  });

  test("a revoked agent is not let in", async () => {
    const rig = await rigOver(transport);
    rig.revoked.add("ann");
    const laptop = await rig.connect({ target: startEcho() });
    expect(await laptop.until("fatal")).toMatchObject({ exitCode: 3 });
  });

  test("the agent comes back by itself when the node restarts", async () => {
    const rig = await rigOver(transport);
    const laptop = await rig.connect({ target: startOrigin() });
    await laptop.until("tunnel");
    await rig.stopNode();
    await laptop.until("link", ({ state }) => state === "down");
    laptop.events.length = 0;
    await rig.startNode(rig.port);
    await laptop.until("tunnel");
    expect(await rig.get("/again")).toEndWith("origin GET /again");
  });

  test("a drained node lets running streams finish", async () => {
    const rig = await rigOver(transport);
    const laptop = await rig.connect({ target: startEcho() });
    await laptop.until("tunnel");
    const stream = rig.dial("demo", "raw");
    const reply = collect(stream, "before ");
    await until("the stream is open", () => rig.exit.links()[0]?.streams === 1);
    const drained = rig.exit.drain(5_000);
    expect(() => rig.dial()).toThrow(expect.objectContaining({ code: "DRAINING" }));
    stream.write(new TextEncoder().encode("after"));
    stream.end();
    expect(await reply).toBe("before after");
    await drained;
  });

  test("an agent that closes lets running streams finish", async () => {
    const rig = await rigOver(transport);
    const laptop = await rig.connect({ target: startEcho() });
    await laptop.until("tunnel");
    const stream = rig.dial("demo", "raw");
    const reply = collect(stream, "a");
    await until("the stream is open", () => laptop.agent.status().traffic.bytesFromOrigin === 1);
    const closed = laptop.agent.close(5_000);
    await until("the node knows", () => rig.exit.links()[0]?.isDraining);
    stream.write(new TextEncoder().encode("b"));
    stream.end();
    expect(await reply).toBe("ab");
    await closed;
  });
});

test("the return to QUIC fails no request, and running streams finish on the old link", async () => {
  const rig = await rigOver("both");
  const laptop = await rig.connect({ target: startOrigin() });
  expect(await laptop.until("tunnel")).toMatchObject({ transport: "websocket" });
  const done = new AbortController();
  let count = 0;
  const visitors = Array.from({ length: 8 }, async () => {
    while (!done.signal.aborted) {
      expect(await rig.get("/x")).toEndWith("origin GET /x");
      count++;
    }
  });
  await laptop.until("tunnel", ({ transport }) => transport === "quic");
  const before = count;
  await until("many more requests", () => count > before + 100);
  done.abort();
  await Promise.all(visitors);
  await until("the WebSocket link has gone", () => rig.exit.links().length === 1);
  expect(laptop.events.some((event) => event.event === "link" && event.state === "down")).toBe(false);
});

test.each(["websocket", "quic"] as const)("16 MiB arrive whole over %s, echoed by the origin", async (transport) => {
  const size = 16 * 1024 * 1024;
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    maxRequestBodySize: size * 2,
    fetch: async (request) => {
      const bytes = await request.bytes();
      return new Response(`${bytes.length} ${Bun.hash(bytes)}`);
    },
  });
  cleanups.push(() => server.stop(true));
  const rig = await rigOver(transport);
  await (await rig.connect({ target: `127.0.0.1:${server.port}` })).until("tunnel");
  const body = new Uint8Array(size);
  for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(body.subarray(at, at + 65_536));
  const stream = rig.dial();
  const reply = collect(stream, `POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${size}\r\n\r\n`);
  const { handler } = stream;
  await new Promise<void>((resolve) => {
    let at = 0;
    const pump = (): void => {
      while (at < size) {
        const chunk = body.subarray(at, at + 65_536);
        at += chunk.length;
        if (!stream.write(chunk)) return;
      }
      resolve();
    };
    stream.handler = { ...handler, onDrain: pump };
    pump();
  });
  expect(await reply).toEndWith(`${size} ${Bun.hash(body)}`);
});
