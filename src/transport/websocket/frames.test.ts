import { describe, expect, test } from "bun:test";
import { encodeFrame, framePayloadMaxBytes, FrameReader, maskInPlace, opcode, randomMasks } from "./frames.ts";
import type { SallyError } from "../../core/errors.ts";

/** The plain version that the fast one must agree with. */
function maskPlain(bytes: Uint8Array, key: readonly number[], phase: number): Uint8Array {
  return bytes.map((byte, i) => byte ^ key[(phase + i) % 4]!);
}

function random(length: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(length));
}

function read(
  frames: Uint8Array,
  { cut = frames.length, expectsMask = true }: { cut?: number; expectsMask?: boolean } = {},
) {
  const payload: number[] = [];
  const controls: { code: number; payload: number[] }[] = [];
  const reader = new FrameReader(expectsMask, {
    onPayload: (piece) => void payload.push(...piece),
    onControl(code, bytes) {
      controls.push({ code, payload: [...bytes] });
      return code !== opcode.close;
    },
  });
  let overhead = 0;
  const copy = Uint8Array.from(frames);
  for (let at = 0; at < copy.length; at += cut) overhead += reader.push(copy.slice(at, at + cut));
  return { payload, controls, overhead };
}

describe("masks", () => {
  test("the fast mask agrees with the plain one for every alignment, phase and length", () => {
    const key = [0x9a, 0x01, 0xff, 0x42];
    const number = Buffer.from(key).readInt32LE();
    for (let offset = 0; offset < 8; offset++) {
      for (let phase = 0; phase < 5; phase++) {
        for (const length of [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 65]) {
          const buffer = random(offset + length + 3);
          const expected = Uint8Array.from(buffer);
          expected.set(maskPlain(buffer.slice(offset, offset + length), key, phase), offset);
          maskInPlace(buffer, { start: offset, end: offset + length }, number, phase);
          expect(buffer).toEqual(expected);
        }
      }
    }
  });

  test("a client's frame looks different each time, and reads back the same", () => {
    const masks = randomMasks();
    const payload = random(1_000);
    const first = encodeFrame(opcode.binary, payload, masks);
    const second = encodeFrame(opcode.binary, payload, masks);
    expect(first).not.toEqual(second);
    expect(read(first).payload).toEqual([...payload]);
    expect(read(second).payload).toEqual([...payload]);
  });
});

describe("reading", () => {
  test.each([0, 1, 125, 126, 127, 65_535, 65_536, framePayloadMaxBytes])(
    "a frame of %d bytes survives any cut",
    (length) => {
      const payload = random(length);
      for (const masks of [randomMasks(), undefined]) {
        const frame = encodeFrame(opcode.binary, payload, masks);
        const options = { expectsMask: masks !== undefined };
        for (const cut of [1, 3, 1_000, frame.length]) {
          if (cut === 1 && length > 200) continue;
          const result = read(frame, { ...options, cut });
          expect(Buffer.compare(Buffer.from(result.payload), Buffer.from(payload))).toBe(0);
          expect(result.overhead).toBe(frame.length - length);
        }
      }
    },
  );

  test("control frames between fragments are told apart and count as overhead", () => {
    const frames = Buffer.concat([
      Uint8Array.of(0x02, 2, 1, 2),
      encodeFrame(opcode.ping, Uint8Array.of(9), undefined),
      Uint8Array.of(0x00, 1, 3),
      Uint8Array.of(0x80, 1, 4),
      encodeFrame(opcode.pong, new Uint8Array(), undefined),
    ]);
    for (const cut of [1, 2, 99]) {
      const { payload, controls, overhead } = read(frames, { cut, expectsMask: false });
      expect(payload).toEqual([1, 2, 3, 4]);
      expect(controls).toEqual([
        { code: opcode.ping, payload: [9] },
        { code: opcode.pong, payload: [] },
      ]);
      expect(overhead).toBe(frames.length - 4);
    }
  });

  test("nothing is read behind a close", () => {
    const frames = Buffer.concat([
      encodeFrame(opcode.close, Uint8Array.of(3, 232), undefined),
      encodeFrame(opcode.binary, Uint8Array.of(1), undefined),
    ]);
    const { payload, controls, overhead } = read(frames, { expectsMask: false });
    expect(payload).toEqual([]);
    expect(controls).toHaveLength(1);
    expect(overhead).toBe(frames.length);
  });

  const mask = [0, 0, 0, 0];
  const broken: [string, number[], boolean][] = [
    ["a reserved bit", [0xc2, 0x80, ...mask], true],
    ["a client frame without mask", [0x82, 0x00], true],
    ["a server frame with mask", [0x82, 0x80, ...mask], false],
    ["a long control frame", [0x89, 126, 0, 126], false],
    ["a fragmented control frame", [0x09, 0], false],
    ["an unknown opcode", [0x83, 0], false],
    ["an unknown control opcode", [0x8b, 0], false],
    ["text", [0x81, 0], false],
    ["a continuation of nothing", [0x80, 0], false],
    ["a message inside a message", [0x02, 1, 7, 0x82, 0], false],
    ["a padded 16-bit length", [0x82, 126, 0, 125], false],
    ["a padded 64-bit length", [0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], false],
  ];
  test.each(broken)("%s is a violation", (_what, frame, expectsMask) => {
    for (const cut of [1, 99]) {
      expect(() => read(Uint8Array.from(frame), { cut, expectsMask })).toThrow(
        expect.objectContaining({ code: "PROTOCOL_VIOLATION" }) as SallyError,
      );
    }
  });

  test.each([
    [[0x82, 127, 0, 0, 0, 0, 0, 2, 0, 1]],
    [[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]],
    [[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]],
  ])("one byte over the limit is too large, and so is more", (frame) => {
    expect(() => read(Uint8Array.from(frame), { expectsMask: false })).toThrow(
      expect.objectContaining({ code: "FRAME_TOO_LARGE" }) as SallyError,
    );
  });
});
