/**
 * What a WebSocket frame costs: the mask by words against the bytewise loop, and whole frames of several sizes.
 * Run: `bun bench/micro/websocket-frames.ts`; prints MB/s and nanoseconds of wall time, one thread.
 */

import { encodeFrame, maskInPlace, opcode, randomMasks } from "../../src/transport/websocket/frames.ts";

const size = 64 * 1024;
const buffer = new Uint8Array(size + 16);
const key = Uint8Array.of(1, 2, 3, 4);

function maskBytes(): void {
  for (let i = 0; i < size; i++) buffer[i + 14]! ^= key[i & 3]!;
}

/** Nanoseconds for each call, after a warm-up. */
function measure(count: number, work: () => void): number {
  for (let i = 0; i < count / 5; i++) work();
  const startedMs = performance.now();
  for (let i = 0; i < count; i++) work();
  return ((performance.now() - startedMs) / count) * 1e6;
}

function print(what: string, value: number, unit: string): void {
  process.stdout.write(`${what.padEnd(28)} ${value.toFixed(0).padStart(7)} ${unit}\n`);
}

const words = measure(3_000, () => maskInPlace(buffer, { start: 14, end: 14 + size }, 0x04030201, 0));
print("mask by words", size / words / 1e-3, "MB/s");
print("mask by bytes", size / measure(3_000, maskBytes) / 1e-3, "MB/s");
const masks = randomMasks();
for (const payloadBytes of [100, 1_024, 16 * 1024, size]) {
  const payload = new Uint8Array(payloadBytes);
  const count = payloadBytes > 2_000 ? 5_000 : 200_000;
  const masked = measure(count, () => void encodeFrame(opcode.binary, payload, masks));
  const plain = measure(count, () => void encodeFrame(opcode.binary, payload, undefined));
  print(`frame of ${payloadBytes}, client`, masked, "ns");
  print(`frame of ${payloadBytes}, server`, plain, "ns");
}
