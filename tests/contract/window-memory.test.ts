/**
 * Credit counts bytes, and nothing else. So whoever keeps a window's bytes must not pay more when they come one by one:
 * a window of 64 KiB filled with frames of a single byte costs less than a mebibyte wherever it waits.
 */

import { expect, test } from "bun:test";
import { heapStats } from "bun:jsc";
import { OriginStream as AgentStream } from "../../src/agent/origin-stream.ts";
import { TurnEnd } from "../../src/agent/turn-end.ts";
import { systemClock } from "../../src/core/clock.ts";
import { SallyError } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import { relay } from "../../src/core/relay.ts";
import { UpgradedStream } from "../../src/edge/origin-client/upgraded-stream.ts";
import { ReplyReader } from "../../src/edge/origin-client/reply-reader.ts";
import { SocketDuplex } from "../../src/sockets/socket-duplex.ts";
import { frameType } from "../../src/wire/frames.ts";
import type { IncomingStream } from "../../src/wire/link.ts";
import { settle } from "../../src/wire/testing/link-pair.ts";
import { hostilePair } from "../../src/wire/testing/raw-peer.ts";

const streamCount = 8;
const windowBytes = limits.streamWindowInitialBytes;

/** After two collections, since the first one may only find what the second frees. */
function heapBytes(): number {
  Bun.gc(true);
  Bun.gc(true);
  const { heapSize, extraMemorySize } = heapStats();
  return heapSize + extraMemorySize;
}

/** What a window costs each of several streams, when whoever `holds` keeps it. */
async function costOfWindow(holds: (stream: IncomingStream) => object): Promise<number> {
  const holders: object[] = [];
  const { peer, link } = await hostilePair({ onStream: (stream) => void holders.push(holds(stream)) });
  const before = heapBytes();
  for (let i = 0; i < streamCount; i++) peer.open(2 * i + 1);
  peer.flush();
  await settle();
  const byte = Uint8Array.of(7);
  for (let sent = 0; sent < windowBytes; sent++) {
    for (let i = 0; i < streamCount; i++) peer.pack(frameType.data, 2 * i + 1, byte);
    if ((sent & 255) === 255) {
      peer.flush();
      await settle(1);
    }
  }
  peer.flush();
  await settle();
  expect(holders).toHaveLength(streamCount);
  expect(link.streamCount).toBe(streamCount);
  peer.frames.length = 0;
  const cost = (heapBytes() - before) / streamCount;
  expect(holders).toHaveLength(streamCount); // still alive
  link.close();
  return cost;
}

const deafSocket = { write: () => 0, flush() {}, shutdown() {}, close() {}, terminate() {}, pause() {}, resume() {} };
const places: readonly (readonly [string, (stream: IncomingStream) => object])[] = [
  [
    "in the queue of a visitor's socket",
    (stream) => {
      const visitor = new SocketDuplex(deafSocket);
      relay(stream, visitor, () => {});
      return visitor;
    },
  ],
  ["behind a reply that nobody took over", (stream) => new UpgradedStream(stream, new Uint8Array(0))],
  [
    "in a reply's body that nobody reads",
    (stream) => {
      const nothing = (): void => {};
      const events = { interim: () => true, switched: nothing, final: nothing, finished: nothing, cancelled: nothing };
      let isHead = true; // the head does not come out of the stream
      const consumed = (byteCount: number): void => {
        if (!isHead) stream.consume(byteCount);
      };
      const reader = new ReplyReader(limits, { ...events, consumed });
      reader.start(false);
      reader.push(new TextEncoder().encode("HTTP/1.1 200 OK\r\n\r\n"));
      isHead = false;
      stream.handler = { onData: (chunk) => reader.push(chunk), onEnd: nothing, onDrain: nothing, onClose: nothing };
      return reader;
    },
  ],
  [
    "at an agent whose origin has not answered",
    (stream) =>
      new AgentStream({
        stream,
        counters: { streams: 0, openStreams: 0, bytesToOrigin: 0, bytesFromOrigin: 0 },
        tap: undefined,
        turnEnd: new TurnEnd(queueMicrotask),
        isServed: () => true,
        clock: systemClock,
        limits,
      }),
  ],
];

for (const [where, holds] of places) {
  test(`a window of single bytes costs less than a mebibyte ${where}`, async () => {
    expect(await costOfWindow(holds)).toBeLessThan(1024 * 1024);
  });
}

test("bytes written one by one without credit cost less than a mebibyte a window", async () => {
  const streams: IncomingStream[] = [];
  const { peer, link } = await hostilePair({ onStream: (stream) => void streams.push(stream) });
  for (let i = 0; i < streamCount; i++) peer.open(2 * i + 1);
  peer.flush();
  await settle();
  for (const stream of streams) stream.write(new Uint8Array(windowBytes));
  await settle();
  const before = heapBytes();
  for (let i = 0; i < windowBytes; i++) for (const stream of streams) stream.write(Uint8Array.of(i & 255));
  const cost = (heapBytes() - before) / streamCount;
  expect(streams.map((stream) => stream.queuedBytes)).toEqual(streams.map(() => windowBytes));
  expect(cost).toBeLessThan(1024 * 1024);
  link.close(new SallyError("CANCELLED"));
});
