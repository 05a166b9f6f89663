import { describe, expect, test } from "bun:test";
import { encodeFrame, opcode, randomMasks } from "./frames.ts";
import { WebsocketDuplex } from "./websocket-duplex.ts";
import { idleHandler, type DuplexHandler } from "../../core/duplex.ts";
import { SallyError } from "../../core/errors.ts";
import { FakeClock } from "../../core/fake-clock.ts";
import { limits } from "../../core/limits.ts";
import { memoryDuplexPair } from "../../core/memory-duplex.ts";

async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve();
}

function listenTo(duplex: { handler: DuplexHandler; consume(n: number): void }, consumes = true) {
  const heard: string[] = [];
  duplex.handler = {
    onData(chunk) {
      heard.push(`data ${Buffer.from(chunk).toString("latin1")}`);
      if (consumes) duplex.consume(chunk.length);
    },
    onEnd: () => void heard.push("end"),
    onDrain: () => void heard.push("drain"),
    onClose: (error) => void heard.push(`close ${error?.code}`),
  };
  return heard;
}

function setUp() {
  const clock = new FakeClock();
  const overs: (string | undefined)[] = [];
  const [near, far] = memoryDuplexPair({ nextChunkBytes: (waiting) => Math.min(waiting, 7) });
  const onOver = (reason: SallyError | undefined): void => void overs.push(reason?.code ?? "clean");
  const client = new WebsocketDuplex(near, { masks: randomMasks(), clock, onOver });
  const server = new WebsocketDuplex(far, { masks: undefined, clock, onOver });
  return { clock, overs, near, far, client, server };
}

/** A server whose client is the test itself. */
function serverOnly() {
  const clock = new FakeClock();
  const [near, far] = memoryDuplexPair();
  const server = new WebsocketDuplex(far, { masks: undefined, clock });
  const frames: Uint8Array[] = [];
  near.handler = {
    onData(chunk) {
      frames.push(chunk);
      near.consume(chunk.length);
    },
    onEnd() {},
    onDrain() {},
    onClose() {},
  };
  return { clock, near, far, server, frames };
}

const bytes = (text: string): Uint8Array => Buffer.from(text, "latin1");

describe("a lane over WebSocket", () => {
  test("carries bytes both ways", async () => {
    const { client, server } = setUp();
    const [heardClient, heardServer] = [listenTo(client), listenTo(server)];
    client.write(bytes("hello"));
    server.write(bytes("world"));
    await settle();
    expect(heardServer.join("").replaceAll("data ", "")).toBe("hello");
    expect(heardClient.join("").replaceAll("data ", "")).toBe("world");
  });

  test("cuts a long write into frames of 128 KiB", () => {
    const { near, client } = setUp();
    client.write(new Uint8Array(300 * 1024));
    expect(near.writeCount).toBe(3);
  });

  test("consumes heads itself and payload when its owner does", async () => {
    const { far, client, server } = setUp();
    listenTo(server, false);
    client.write(bytes("0123456789"));
    await settle();
    expect(far.unconsumedBytes).toBe(10);
    server.consume(10);
    expect(far.unconsumedBytes).toBe(0);
  });

  test("closes cleanly when the other side ends in answer", async () => {
    const { overs, client, server } = setUp();
    const heardClient = listenTo(client);
    const heardServer = listenTo(server);
    const { handler } = server;
    server.handler = {
      ...handler,
      onEnd() {
        handler.onEnd();
        server.write(bytes("bye"));
        server.end();
      },
    };
    client.write(bytes("q"));
    client.end();
    await settle();
    expect(heardServer).toEqual(["data q", "end", "close undefined"]);
    expect(heardClient).toEqual(["data bye", "end", "close undefined"]);
    expect(overs).toEqual(["clean", "clean"]);
  });

  test("is an error for a side that was still using it", async () => {
    const { client, server } = setUp();
    const [heardClient, heardServer] = [listenTo(client), listenTo(server)];
    client.end();
    await settle();
    expect(heardServer).toEqual(["end", "close LINK_LOST"]);
    expect(heardClient).toEqual(["end", "close undefined"]);
  });

  test("tells the peer why it was reset, and is silent itself", async () => {
    const { overs, client, server } = setUp();
    const [heardClient, heardServer] = [listenTo(client), listenTo(server)];
    client.reset(new SallyError("CREDIT_EXCEEDED"));
    await settle();
    expect(heardServer).toEqual(["close CREDIT_EXCEEDED"]);
    expect(heardClient).toEqual([]);
    expect(overs).toEqual(["CREDIT_EXCEEDED", "CREDIT_EXCEEDED"]);
    expect(client.write(bytes("x"))).toBe(true);
  });

  test("is lost when the carrier ends without a closing frame, or breaks", async () => {
    const ended = setUp();
    const heardEnded = listenTo(ended.server);
    ended.near.end();
    await settle();
    expect(heardEnded).toEqual(["close LINK_LOST"]);
    const broken = setUp();
    const heardBroken = listenTo(broken.server);
    broken.far.fail(new SallyError("LINK_LOST"));
    await settle();
    expect(heardBroken).toEqual(["close LINK_LOST"]);
    expect(broken.overs).toEqual(["LINK_LOST"]);
  });

  test("keeps what came before anybody listened", async () => {
    const clock = new FakeClock();
    const [near, far] = memoryDuplexPair();
    let early = new Uint8Array();
    far.handler = { ...idleHandler, onData: (chunk) => void (early = Uint8Array.from(chunk)) };
    near.write(encodeFrame(opcode.binary, bytes("early "), randomMasks()));
    await settle();
    const server = new WebsocketDuplex(far, { masks: undefined, clock, earlyBytes: early });
    const late = encodeFrame(opcode.binary, bytes("late"), randomMasks());
    near.write(late);
    await settle();
    expect(far.unconsumedBytes).toBe(early.length + late.length);
    const heard = listenTo(server);
    await settle();
    expect(heard).toEqual(["data early ", "data late"]);
    expect(far.unconsumedBytes).toBe(0);
  });

  test("answers a ping with its payload, and ignores pongs", async () => {
    const { near, server, frames } = serverOnly();
    const heard = listenTo(server);
    near.write(encodeFrame(opcode.ping, bytes("now"), randomMasks()));
    near.write(encodeFrame(opcode.pong, bytes("what"), randomMasks()));
    await settle();
    expect(frames).toEqual([encodeFrame(opcode.pong, bytes("now"), undefined)]);
    expect(heard).toEqual([]);
  });

  test("pings to a peer that reads nothing do not pile up answers", async () => {
    const { near, far, server } = serverOnly();
    listenTo(server);
    far.isHeld = true;
    const ping = encodeFrame(opcode.ping, new Uint8Array(125), randomMasks());
    const count = Math.ceil((2 * limits.socketQueueHighBytes) / ping.length);
    for (let i = 0; i < count; i++) {
      near.write(Uint8Array.from(ping));
      await Promise.resolve();
      await Promise.resolve();
    }
    await settle();
    expect(far.queuedBytes).toBeLessThan(limits.socketQueueHighBytes + 128);
    expect(far.queuedBytes).toBeGreaterThan(limits.socketQueueHighBytes - 128);
  });

  test.each([
    ["an unmasked frame", Uint8Array.of(0x82, 1, 1), "PROTOCOL_VIOLATION", 1002],
    ["a frame too large", Uint8Array.of(0x82, 255, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0), "FRAME_TOO_LARGE", 1009],
  ])("%s closes the lane and says so", async (_what, frame, code, status) => {
    const { near, far, server, frames } = serverOnly();
    const heard = listenTo(server);
    near.write(frame);
    await settle();
    expect(heard).toEqual([`close ${code}`]);
    const close = Buffer.concat(frames);
    expect(close[0]).toBe(0x88);
    expect(close.readUInt16BE(2)).toBe(status);
    expect(far.unconsumedBytes).toBe(0);
  });

  test("a peer that never answers the close is dropped after the linger time", async () => {
    const { clock, far, server } = serverOnly();
    listenTo(server);
    server.end();
    server.close(undefined);
    await settle();
    expect(far.resetError).toBeUndefined();
    clock.advance(2 * limits.socketLingerMs);
    expect(far.resetError?.code).toBe("CANCELLED");
    expect(clock.pending).toBe(0);
  });

  test("half a closing status is a violation", async () => {
    const { near, server } = serverOnly();
    const heard = listenTo(server);
    near.write(encodeFrame(opcode.close, Uint8Array.of(3), randomMasks()));
    await settle();
    expect(heard).toEqual(["close PROTOCOL_VIOLATION"]);
  });
});
