/** A peer that shakes hands honestly and then says whatever a test wants, byte by byte. */

import { SallyError } from "../../core/errors.ts";
import type { MemoryDuplex } from "../../core/memory-duplex.ts";
import { FrameDecoder, frameType, FrameWriter } from "../frames.ts";
import { dialHandshake, type HandshakeChannel, type HandshakeResult } from "../handshake.ts";
import { acceptLink, type Link } from "../link.ts";
import { encodePreamble } from "../preamble.ts";
import { linkOptions, newSeen, settle, type EndOptions, type Seen } from "./link-pair.ts";
import { memorySessionPair, testAuth, type MemorySession } from "./memory-session.ts";

export interface RawFrame {
  readonly type: number;
  readonly streamId: number;
  readonly payload: Uint8Array;
}

export class RawPeer implements HandshakeChannel {
  readonly frames: RawFrame[] = [];
  closeError: SallyError | undefined;
  /** False: what arrives is not consumed, so the other side's queue fills. */
  reads = true;
  readonly carrier: MemoryDuplex;
  readonly #writer: FrameWriter;
  #take: ((payload: Uint8Array) => void) | undefined;

  constructor(carrier: MemoryDuplex) {
    this.carrier = carrier;
    this.#writer = new FrameWriter((slab, start, end) => {
      carrier.write(slab.subarray(start, end));
      return false;
    });
    const decoder = new FrameDecoder(
      {
        onData: (streamId, part) => void this.frames.push({ type: frameType.data, streamId, payload: part }),
        onFrame: ({ type, streamId, bytes, at, length }) => {
          const payload = bytes.slice(at, at + length);
          const take = this.#take;
          this.#take = undefined;
          if (type === frameType.handshake && take !== undefined) take(payload);
          else this.frames.push({ type, streamId, payload });
        },
      },
      1 << 16,
    );
    carrier.handler = {
      onData: (chunk) => {
        if (!this.reads) return;
        decoder.push(chunk);
        carrier.consume(chunk.length);
      },
      onEnd() {},
      onDrain() {},
      onClose: (error) => {
        this.closeError = error;
      },
    };
  }

  send(payload: Uint8Array): void {
    this.frame(frameType.handshake, 0, payload);
  }

  receive<T>(read: (payload: Uint8Array) => T): Promise<T> {
    return new Promise((resolve) => {
      this.#take = (payload) => resolve(read(payload));
    });
  }

  /** Packs a frame without sending it. */
  pack(type: number, streamId: number, payload: Uint8Array = new Uint8Array(0)): this {
    this.#writer.begin(type, streamId, payload.length);
    this.#writer.putBytes(payload);
    return this;
  }

  flush(): void {
    this.#writer.flush();
  }

  frame(type: number, streamId: number, payload?: Uint8Array): void {
    this.pack(type, streamId, payload).flush();
  }

  open(streamId: number): this {
    return this.pack(frameType.open, streamId, encodePreamble({ tunnel: "t", protocol: "http" }));
  }

  /** The code and text of the GOAWAY that was received. */
  get goaway(): { readonly wire: number; readonly text: string } | undefined {
    const frame = this.frames.find(({ type }) => type === frameType.goaway);
    if (frame === undefined) return undefined;
    const wire = (frame.payload[0]! << 8) | frame.payload[1]!; // GOAWAY has a code
    return { wire, text: new TextDecoder().decode(frame.payload.subarray(2)) };
  }
}

export interface HostilePair {
  readonly peer: RawPeer;
  readonly link: Link;
  readonly seen: Seen;
  readonly welcome: HandshakeResult;
  readonly peerSession: MemorySession;
  readonly session: MemorySession;
}

/** A node's link whose agent is a raw peer. */
export async function hostilePair(end: EndOptions = {}): Promise<HostilePair> {
  const [peerSession, session] = memorySessionPair();
  const seen = newSeen();
  const signal = new AbortController().signal;
  const accepting = acceptLink(session, testAuth("node"), linkOptions(seen, end), signal);
  await peerSession.openLane(signal);
  const peer = new RawPeer(peerSession.lanes[0]!);
  const options = { session: peerSession, auth: testAuth("agent"), channel: peer, program: "raw", lanesMax: 8 };
  let welcome: HandshakeResult | undefined;
  await dialHandshake(options, (result) => {
    welcome = result;
  });
  const link = await accepting;
  await settle(1);
  if (welcome === undefined) throw new SallyError("INTERNAL");
  return { peer, link, seen, welcome, peerSession, session };
}
