/** A pair of established links over memory, with what their callbacks saw, for tests. */

import { concatBytes } from "../../core/bytes.ts";
import { systemClock, type Clock } from "../../core/clock.ts";
import type { Duplex } from "../../core/duplex.ts";
import type { SallyError } from "../../core/errors.ts";
import { limits as defaults, type Limits } from "../../core/limits.ts";
import { silentLogger } from "../../core/log.ts";
import type { MemoryDuplexOptions } from "../../core/memory-duplex.ts";
import { acceptLink, connectLink, type IncomingStream, type Link, type LinkOptions } from "../link.ts";
import type { ControlMessage } from "../messages.ts";
import { WindowBudget } from "../window-budget.ts";
import { memorySessionPair, testAuth, type MemorySession } from "./memory-session.ts";

/** What one end saw. */
export interface Seen {
  readonly streams: IncomingStream[];
  readonly messages: ControlMessage[];
  readonly closes: (SallyError | undefined)[];
  /** How often the peer said that it drains. */
  drains: number;
  doubts: number;
}

export interface EndOptions {
  readonly clock?: Clock;
  readonly limits?: Partial<Limits>;
  readonly budget?: WindowBudget;
  readonly onStream?: (stream: IncomingStream) => void;
}

export function linkOptions(seen: Seen, end: EndOptions = {}): LinkOptions {
  const limits = { ...defaults, ...end.limits };
  return {
    clock: end.clock ?? systemClock,
    log: silentLogger,
    budget: end.budget ?? new WindowBudget(limits.processWindowBudgetBytes, limits.openWaitersMax),
    limits,
    onStream(stream) {
      seen.streams.push(stream);
      end.onStream?.(stream);
    },
    onMessage: (message) => void seen.messages.push(message),
    onDrain: () => void seen.drains++,
    onDoubt: () => void seen.doubts++,
    onClose: (error) => void seen.closes.push(error),
  };
}

export function newSeen(): Seen {
  return { streams: [], messages: [], closes: [], drains: 0, doubts: 0 };
}

export interface LinkPair {
  readonly agent: Link;
  readonly node: Link;
  readonly agentSeen: Seen;
  readonly nodeSeen: Seen;
  readonly agentSession: MemorySession;
  readonly nodeSession: MemorySession;
}

export interface LinkPairOptions {
  readonly lanes?: number;
  readonly duplex?: MemoryDuplexOptions;
  readonly agent?: EndOptions;
  readonly node?: EndOptions;
}

export async function linkPair(options: LinkPairOptions = {}): Promise<LinkPair> {
  const [agentSession, nodeSession] = memorySessionPair(options.duplex);
  const agentSeen = newSeen();
  const nodeSeen = newSeen();
  const signal = new AbortController().signal;
  const lanes = options.lanes ?? 1;
  const agentOptions = { ...linkOptions(agentSeen, options.agent), lanes, agentVersion: "1.2.3" };
  const [node, agent] = await Promise.all([
    acceptLink(nodeSession, testAuth("node"), { ...linkOptions(nodeSeen, options.node), nodeVersion: "3.2.1" }, signal),
    connectLink(agentSession, testAuth("agent"), agentOptions, signal),
  ]);
  while (agent.laneCount < lanes || node.laneCount < lanes) await settle();
  return { agent, node, agentSeen, nodeSeen, agentSession, nodeSession };
}

/** Lets everything that is under way happen, but for what is computed elsewhere: proofs and MACs are waited for. */
export async function settle(turns = 3): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

export interface Recording {
  readonly chunks: Uint8Array[];
  readonly bytes: () => Uint8Array;
  byteCount: number;
  ends: number;
  drains: number;
  readonly closes: (SallyError | undefined)[];
}

/** Records what a pipe delivers, and consumes it at once unless told not to. */
export function record(pipe: Duplex, { consumes = true } = {}): Recording {
  const chunks: Uint8Array[] = [];
  const seen: Recording = { chunks, bytes: () => concatBytes(chunks), byteCount: 0, ends: 0, drains: 0, closes: [] };
  pipe.handler = {
    onData(chunk) {
      chunks.push(chunk);
      seen.byteCount += chunk.length;
      if (consumes) pipe.consume(chunk.length);
    },
    onEnd: () => void seen.ends++,
    onDrain: () => void seen.drains++,
    onClose: (error) => void seen.closes.push(error),
  };
  return seen;
}
