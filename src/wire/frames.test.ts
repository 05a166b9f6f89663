import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { concatBytes, hexEncode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { FrameDecoder, FrameWriter, frameType, readUint64, type Frame } from "./frames.ts";

interface Seen {
  readonly type: number;
  readonly streamId: number;
  payload: string;
}

/** Decodes chunks into frames, with the parts of one DATA frame joined. */
function decode(chunks: readonly Uint8Array[], max = limits.framePayloadBytes): Seen[] {
  const seen: Seen[] = [];
  const decoder = new FrameDecoder(
    {
      onData(streamId, part, frameBytes) {
        if (frameBytes > 0) seen.push({ type: frameType.data, streamId, payload: "" });
        seen.at(-1)!.payload += hexEncode(part);
      },
      onFrame(frame: Frame) {
        const payload = hexEncode(frame.bytes.subarray(frame.at, frame.at + frame.length));
        seen.push({ type: frame.type, streamId: frame.streamId, payload });
      },
    },
    max,
  );
  for (const chunk of chunks) decoder.push(chunk);
  return seen;
}

function encode(frames: readonly { type: number; streamId: number; payload: Uint8Array }[]): Uint8Array {
  const chunks: Uint8Array[] = [];
  const writer = new FrameWriter((slab, start, end) => chunks.push(slab.subarray(start, end)) < 0);
  for (const { type, streamId, payload } of frames) {
    writer.begin(type, streamId, payload.length);
    writer.putBytes(payload);
  }
  writer.flush();
  return concatBytes(chunks);
}

function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes.length === 0 ? bytes.length : sizes[i % sizes.length]!;
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

const anyFrame = fc.record({
  type: fc.constantFrom(...Object.values(frameType)),
  streamId: fc.integer({ min: 0, max: 0xffff_ffff }),
  payload: fc.uint8Array({ minLength: 1, maxLength: 300 }),
});

describe("the decoder", () => {
  test("sees the same frames however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(anyFrame, { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 10 }),
        (frames, sizes) => {
          const expected = frames.map((frame) => ({ ...frame, payload: hexEncode(frame.payload) }));
          expect(decode(cut(encode(frames), sizes))).toEqual(expected);
        },
      ),
    );
  });

  test("takes a payload of exactly 64 KiB and ends the lane at one byte more, before the payload", () => {
    const atLimit = { type: frameType.data, streamId: 1, payload: new Uint8Array(64 * 1024) };
    expect(decode([encode([atLimit])])).toHaveLength(1);
    const over = encode([{ type: frameType.data, streamId: 1, payload: new Uint8Array(64 * 1024 + 1) }]);
    expect(() => decode([over.subarray(0, 8)])).toThrow(new SallyError("FRAME_TOO_LARGE"));
  });

  test("skips an unknown type that says so, of any size, and refuses one that does not", () => {
    const skipped = { type: 0xf0, streamId: 9, payload: new Uint8Array(60_000) };
    const ping = { type: frameType.ping, streamId: 0, payload: new Uint8Array(8) };
    expect(decode(cut(encode([skipped, ping]), [777]))).toEqual([{ type: 8, streamId: 0, payload: "0".repeat(16) }]);
    expect(() => decode([encode([{ type: 0x70, streamId: 9, payload: new Uint8Array(0) }])])).toThrow(
      "0x70 is unknown",
    );
  });

  test("ignores the reserved flags", () => {
    const bytes = encode([{ type: frameType.opened, streamId: 5, payload: new Uint8Array(0) }]);
    bytes[1] = 0xf0;
    expect(decode([bytes])).toEqual([{ type: frameType.opened, streamId: 5, payload: "" }]);
  });

  test("hands on a payload that lies within a chunk without copying it", () => {
    const bytes = encode([{ type: frameType.data, streamId: 1, payload: new Uint8Array(1_000) }]);
    let part: Uint8Array | undefined;
    new FrameDecoder({ onData: (_id, data) => void (part = data), onFrame() {} }, 1 << 16).push(bytes);
    expect(part!.buffer).toBe(bytes.buffer);
  });

  test("holds less than one frame while bytes dribble in", () => {
    const bytes = encode([
      { type: frameType.control, streamId: 1, payload: new Uint8Array(5_000) },
      { type: frameType.data, streamId: 1, payload: new Uint8Array(60_000) },
    ]);
    const decoder = new FrameDecoder({ onData() {}, onFrame() {} }, 1 << 16);
    let most = 0;
    for (let i = 0; i < bytes.length; i++) {
      decoder.push(bytes.subarray(i, i + 1));
      most = Math.max(most, decoder.bufferedBytes);
    }
    expect(most).toBeLessThan(5_000);
    expect(decoder.frameCount).toBe(2);
    expect(decoder.bufferedBytes).toBe(0);
  });

  test("never does worse than a SallyError on random bytes", () => {
    const seed = Number(process.env["FUZZ_SEED"] ?? Date.now() % 0x7fff_ffff);
    const random = mulberry32(seed);
    for (let round = 0; round < 300; round++) {
      const bytes = new Uint8Array(1 + Math.floor(random() * 4_000));
      for (let i = 0; i < bytes.length; i++) bytes[i] = random() < 0.5 ? random() * 16 : random() * 256;
      const sizes = Array.from({ length: 5 }, () => 1 + Math.floor(random() * 900));
      const outcome = (chunks: Uint8Array[]): unknown => {
        try {
          return decode(chunks);
        } catch (thrown) {
          if (!(thrown instanceof SallyError)) throw new Error(`FUZZ_SEED=${seed} round ${round}`, { cause: thrown });
          return thrown.code;
        }
      };
      const [whole, parts] = [outcome([bytes]), outcome(cut(bytes, sizes))];
      if (JSON.stringify(whole) !== JSON.stringify(parts)) throw new Error(`FUZZ_SEED=${seed} round ${round} differs`);
    }
  });
});

test("the writer never touches what it has emitted", () => {
  const chunks: Uint8Array[] = [];
  const writer = new FrameWriter((slab, start, end) => chunks.push(slab.subarray(start, end)) < 0);
  const copies: string[] = [];
  for (let i = 0; i < 3_000; i++) {
    writer.begin(frameType.data, i, 50);
    writer.putBytes(new Uint8Array(50).fill(i));
    if (i % 7 === 0) writer.flush();
    while (copies.length < chunks.length) copies.push(hexEncode(chunks[copies.length]!));
  }
  expect(chunks.map((chunk) => hexEncode(chunk))).toEqual(copies);
});

test("u64 keeps every integer up to 2^53", () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      const chunks: Uint8Array[] = [];
      const writer = new FrameWriter((slab, start, end) => chunks.push(slab.subarray(start, end)) < 0);
      writer.begin(frameType.fin, 1, 8);
      writer.putUint64(value);
      writer.flush();
      expect(readUint64(chunks[0]!, 8)).toBe(value);
    }),
  );
});

function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
