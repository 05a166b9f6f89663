import { describe, expect, test } from "bun:test";
import { createDialler, type TransportMode } from "./dialler.ts";
import { memoryPair } from "./memory.ts";
import { SallyError } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import type { Connector, Session } from "../ports/session.ts";

async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}

class FakeConnector implements Connector {
  readonly calls: { readonly signal: AbortSignal; readonly result: PromiseWithResolvers<Session> }[] = [];
  connect(signal: AbortSignal): Promise<Session> {
    const result = Promise.withResolvers<Session>();
    this.calls.push({ signal, result });
    return result.promise;
  }
}

function setUp(mode: TransportMode = "auto", hasQuic = true) {
  const clock = new FakeClock();
  const quic = new FakeConnector();
  const websocket = new FakeConnector();
  const dialler = createDialler({
    quic: hasQuic ? quic : undefined,
    websocket,
    mode,
    clock,
    log: silentLogger,
    limits,
  });
  const abort = new AbortController();
  const outcome = dialler.connect(abort.signal).then(
    (session) => ({ session, error: undefined }),
    (error: SallyError) => ({ session: undefined, error }),
  );
  return { clock, quic, websocket, dialler, abort, outcome };
}

describe("mode auto", () => {
  test("QUIC that answers within 250 ms is alone", async () => {
    const { clock, quic, websocket, outcome } = setUp();
    const [session] = memoryPair();
    clock.advance(limits.websocketFallbackAfterMs - 1);
    quic.calls[0]!.result.resolve(session);
    expect((await outcome).session).toBe(session);
    clock.advance(10_000);
    expect(websocket.calls).toHaveLength(0);
  });

  test("a WebSocket that is cancelled because QUIC won leaves nothing behind", async () => {
    const { clock, quic, websocket, outcome } = setUp();
    clock.advance(limits.websocketFallbackAfterMs);
    const [session] = memoryPair();
    quic.calls[0]!.result.resolve(session);
    await outcome;
    websocket.calls[0]!.result.reject(websocket.calls[0]!.signal.reason);
    await settle();
    expect(clock.pending).toBe(0);
  });

  test("WebSocket starts after 250 ms, wins when it is up first, and a late QUIC session is closed", async () => {
    const { clock, quic, websocket, outcome } = setUp();
    clock.advance(limits.websocketFallbackAfterMs);
    const [first] = memoryPair();
    const [late] = memoryPair();
    websocket.calls[0]!.result.resolve(first);
    expect((await outcome).session).toBe(first);
    expect(quic.calls[0]!.signal.aborted).toBe(true);
    quic.calls[0]!.result.resolve(late);
    expect(await late.closed).toBeUndefined();
  });

  test("WebSocket starts at once when QUIC fails early", async () => {
    const { quic, websocket, outcome } = setUp();
    quic.calls[0]!.result.reject(new SallyError("CONNECT_FAILED", "no route"));
    await settle();
    const [session] = memoryPair();
    websocket.calls[0]!.result.resolve(session);
    expect((await outcome).session).toBe(session);
  });

  test("QUIC is not waited for much longer when WebSocket was refused: the node is most likely gone", async () => {
    const { clock, quic, websocket, outcome } = setUp();
    quic.calls[0]!.signal.addEventListener("abort", () => quic.calls[0]!.result.reject(quic.calls[0]!.signal.reason));
    clock.advance(limits.websocketFallbackAfterMs);
    websocket.calls[0]!.result.reject(new SallyError("CONNECT_FAILED", "nothing listens"));
    await settle();
    clock.advance(limits.quicAloneMs - 1);
    expect(quic.calls[0]!.signal.aborted).toBe(false);
    clock.advance(1);
    expect((await outcome).error?.code).toBe("CONNECT_FAILED");
    expect(clock.pending).toBe(0);
  });

  test("QUIC that answers in that time still wins", async () => {
    const { clock, quic, websocket, outcome } = setUp();
    clock.advance(limits.websocketFallbackAfterMs);
    websocket.calls[0]!.result.reject(new SallyError("CONNECT_FAILED", "TCP is blocked"));
    await settle();
    clock.advance(limits.quicAloneMs - 1);
    const [session] = memoryPair();
    quic.calls[0]!.result.resolve(session);
    expect((await outcome).session).toBe(session);
    clock.advance(10_000);
    expect(await Promise.race([session.closed.then(() => "closed"), settle().then(() => "open")])).toBe("open");
    expect(clock.pending).toBe(0);
  });

  test("when both fail the message names both", async () => {
    const { quic, websocket, outcome } = setUp();
    quic.calls[0]!.result.reject(new SallyError("CONNECT_TIMEOUT", "UDP is blocked"));
    await settle();
    websocket.calls[0]!.result.reject(new SallyError("CONNECT_FAILED", "nothing listens"));
    const { error } = await outcome;
    expect(error?.code).toBe("CONNECT_FAILED");
    expect(error?.message).toBe("QUIC: UDP is blocked; WebSocket: nothing listens");
  });

  test("a refused certificate is what the user hears, whichever transport found it", async () => {
    const { quic, websocket, outcome } = setUp();
    quic.calls[0]!.result.reject(new SallyError("CA_MISMATCH"));
    await settle();
    websocket.calls[0]!.result.reject(new SallyError("CONNECT_FAILED"));
    expect((await outcome).error?.code).toBe("CA_MISMATCH");
  });

  test("cancelling cancels both", async () => {
    const { clock, quic, websocket, abort, outcome } = setUp();
    clock.advance(limits.websocketFallbackAfterMs);
    abort.abort(new SallyError("CANCELLED"));
    expect((await outcome).error?.code).toBe("CANCELLED");
    expect([quic.calls[0]!.signal.aborted, websocket.calls[0]!.signal.aborted]).toEqual([true, true]);
    expect(clock.pending).toBe(0);
  });

  test("without QUIC in the runtime WebSocket starts at once", async () => {
    const { websocket } = setUp("auto", false);
    expect(websocket.calls).toHaveLength(1);
  });
});

describe("one transport only", () => {
  test("mode quic never tries WebSocket", async () => {
    const { clock, quic, websocket, outcome } = setUp("quic");
    clock.advance(10_000);
    quic.calls[0]!.result.reject(new SallyError("CONNECT_TIMEOUT"));
    expect((await outcome).error?.code).toBe("CONNECT_TIMEOUT");
    expect(websocket.calls).toHaveLength(0);
  });

  test("mode websocket never tries QUIC, not even to return to it", async () => {
    const { quic, dialler } = setUp("websocket");
    const never = new AbortController().signal;
    const code = await dialler.connectQuicOnly(never).catch((error: unknown) => (error as SallyError).code);
    expect(code).toBe("CONNECT_FAILED");
    expect(quic.calls).toHaveLength(0);
  });

  test("connectQuicOnly returns QUIC's session", async () => {
    const { quic, dialler } = setUp();
    const [session] = memoryPair();
    const connecting = dialler.connectQuicOnly(new AbortController().signal);
    quic.calls[1]!.result.resolve(session);
    expect(await connecting).toBe(session);
  });
});
