/** A link without a wire, for the tests of the rooms above it: streams are memory pipes, messages are kept in a list. */

import { memoryDuplexPair, type MemoryDuplex } from "../../core/memory-duplex.ts";
import { SallyError } from "../../core/errors.ts";
import type { Address } from "../../core/address.ts";
import type { PeerIdentity } from "../../core/identity.ts";
import type { TransportKind } from "../../ports/session.ts";
import type { IncomingStream, Link, LinkOptions, LinkStream, Preamble } from "../link.ts";
import type { ControlMessage } from "../messages.ts";

export interface StubLinkOptions {
  readonly id?: string;
  readonly identity?: string;
  readonly installation?: string;
  readonly process?: string;
  readonly transport?: TransportKind;
  readonly notAfterMs?: number;
  readonly keyFingerprint?: string;
}

let counter = 0;

export class StubLink implements Link {
  readonly id: string;
  readonly peer: PeerIdentity;
  readonly peerProcess: string;
  readonly peerVersion = "test";
  readonly transport: TransportKind;
  readonly remote: Address = { host: "192.0.2.1", port: 1 };
  rttMs: number | undefined;
  streamCount = 0;
  laneCount = 1;
  isDraining = false;
  isInDoubt = false;
  isSuspected = false;
  isBorne = false;
  isClosed = false;
  closeError: SallyError | undefined;
  /** What `open` throws next. */
  openError: SallyError | undefined;
  /** Streams that were to wait for their place. */
  waits = 0;
  readonly sent: ControlMessage[] = [];
  readonly opened: Preamble[] = [];
  options: LinkOptions | undefined;
  onSend: ((message: ControlMessage) => void) | undefined;

  constructor(options: StubLinkOptions = {}) {
    this.id = options.id ?? `link-${++counter}`;
    this.peerProcess = options.process ?? "p1";
    this.transport = options.transport ?? "memory";
    this.peer = {
      role: "agent",
      identity: options.identity ?? "ann",
      installation: options.installation ?? "laptop",
      keyFingerprint: options.keyFingerprint ?? "00",
      notAfterMs: options.notAfterMs ?? Number.MAX_SAFE_INTEGER,
      tokenId: undefined,
    };
  }

  /** Messages of one type that were sent here. */
  sentOf<T extends ControlMessage["type"]>(type: T): Extract<ControlMessage, { readonly type: T }>[] {
    return this.sent.filter((message) => message.type === type) as Extract<ControlMessage, { readonly type: T }>[]; // by the filter
  }

  open(preamble: Preamble, mayWait = false): LinkStream {
    if (mayWait) this.waits++;
    else if (this.openError !== undefined) throw this.openError;
    if (this.isClosed) throw new SallyError("LINK_LOST");
    if (this.isDraining) throw new SallyError("DRAINING");
    this.opened.push(preamble);
    this.streamCount++;
    return streamPair(preamble)[0];
  }

  send(message: ControlMessage): void {
    if (this.isClosed) return;
    this.sent.push(message);
    this.onSend?.(message);
  }

  drain(): void {
    this.isDraining = true;
  }

  suspect(): void {
    this.isSuspected = true;
  }

  bear(): void {
    this.isBorne = true;
  }

  close(error?: SallyError): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.closeError = error;
    this.options?.onClose(error, this);
  }

  /** As if the peer had sent it. */
  receive(message: ControlMessage): void {
    this.options?.onMessage(message, this);
  }
}

export interface StubStream extends IncomingStream {
  readonly isAccepted: boolean;
  readonly refusal: SallyError | undefined;
  readonly reportedBytes: number | undefined;
}

/** The two ends of a stream: `near` is what the opener holds, `far` what the accepting side is given. */
export function streamPair(preamble: Preamble): [MemoryDuplex & LinkStream, MemoryDuplex & StubStream] {
  const [near, far] = memoryDuplexPair();
  const state: { isAccepted: boolean; refusal?: SallyError; reportedBytes?: number } = { isAccepted: false };
  const nearStream = Object.defineProperties(near, {
    preamble: { value: preamble },
    laneLoadBytes: { value: 0 },
    deliveredBytes: { get: () => state.reportedBytes },
    isOpened: { get: () => state.isAccepted },
  });
  const farStream = Object.defineProperties(far, {
    preamble: { value: preamble },
    laneLoadBytes: { value: 0 },
    deliveredBytes: { value: undefined },
    isOpened: { value: true },
    isAccepted: { get: () => state.isAccepted },
    refusal: { get: () => state.refusal },
    reportedBytes: { get: () => state.reportedBytes },
    accept: { value: () => void (state.isAccepted = true) },
    refuse: {
      value: (error: SallyError) => {
        state.refusal = error;
        far.reset(error);
      },
    },
    reportDelivered: { value: (bytes: number) => void (state.reportedBytes = bytes) },
  });
  // The properties above make them so.
  return [nearStream as MemoryDuplex & LinkStream, farStream as MemoryDuplex & StubStream];
}

/** Lets promises and microtasks settle; timers stand still. */
export async function settle(rounds = 20): Promise<void> {
  for (let i = 0; i < rounds; i++) await Promise.resolve();
}
