/**
 * A link: one authenticated connection between an agent and a node, made of lanes, over any transport. This file is
 * what the other rooms see; docs/protocol.md says what travels.
 */

import type { Address } from "../core/address.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { LinkAuth, PeerIdentity } from "../core/identity.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Session, TransportKind } from "../ports/session.ts";
import { acceptHandshake, dialHandshake, encodeWelcome } from "./handshake.ts";
import { FirstMessages } from "./first-messages.ts";
import { acceptLanes } from "./lane-accepting.ts";
import { LaneOpener } from "./lane-opener.ts";
import { Lane } from "./lane.ts";
import { LinkCore } from "./link-core.ts";
import type { ControlMessage } from "./messages.ts";
import type { Preamble } from "./preamble.ts";
import type { WindowBudget } from "./window-budget.ts";
import type { IncomingStream, LinkStream } from "./wire-stream.ts";

export type { IncomingStream, LinkStream, Preamble };

export interface LinkOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** One per process. */
  readonly budget: WindowBudget;
  readonly limits: Limits;
  /**
   * Runs a task after the events at hand: all frames until then leave in one write. Apps pass `setImmediate`.
   * Default: a microtask.
   */
  readonly schedule?: (task: () => void) => void;
  /** A stream that the peer opened. Set its handler before returning. */
  onStream(stream: IncomingStream, link: Link): void;
  onMessage(message: ControlMessage, link: Link): void;
  /** The peer has not answered a PING for a while: the way may be blocked. Once for each silence. */
  onDoubt?(link: Link): void;
  /** Once, when the peer said that it takes no new streams: whoever keeps idle ones lets them go. */
  onDrain?(link: Link): void;
  /** Once; every stream has seen its own `onClose` before. Never called when connectLink or acceptLink rejects. */
  onClose(error: SallyError | undefined, link: Link): void;
}

export interface ConnectLinkOptions extends LinkOptions {
  /** Lanes to open, 1 to limits.lanesPerLinkMax. */
  readonly lanes: number;
  readonly agentVersion: string;
}

export interface AcceptLinkOptions extends LinkOptions {
  readonly nodeVersion?: string;
}

export interface Link {
  /** Chosen by the node; both sides know it. */
  readonly id: string;
  readonly peer: PeerIdentity;
  readonly peerProcess: string;
  /** What the peer says it runs. */
  readonly peerVersion: string;
  readonly transport: TransportKind;
  readonly remote: Address;
  /** Smoothed; undefined until the first PONG. */
  readonly rttMs: number | undefined;
  /** The peer has not answered a PING for a while. */
  readonly isInDoubt: boolean;
  readonly streamCount: number;
  readonly laneCount: number;
  /** True after `drain` here or GOAWAY from the peer: `open` throws. */
  readonly isDraining: boolean;
  readonly isClosed: boolean;
  /** Why the link ended, once it has; undefined after a clean end. */
  readonly closeError: SallyError | undefined;
  /**
   * Opens a stream on the best lane; set its handler before control returns to the event loop. Data may be written at
   * once. When the peer has its share of the window budget the OPEN waits up to limits.openWaitMs, then the stream closes
   * OVERLOADED. With `mayWait` it also waits, as long, while the link has all the streams that it may have.
   * @throws SallyError STREAM_LIMIT, OVERLOADED, DRAINING, LINK_LOST
   */
  open(preamble: Preamble, mayWait?: boolean): LinkStream;
  /**
   * Sends a control message; in order, exactly once while the link lives. Ignored after close.
   * @throws SallyError BAD_REQUEST when it is over limits.controlMessageBytes
   */
  send(message: ControlMessage): void;
  /** Opens nothing new, refuses what the peer opens, and closes when the last stream is done. */
  drain(): void;
  /** The peer may have died: it is asked whether this link still lives, which ends within two seconds if not. */
  suspect(): void;
  /** The peer lives and has another link: this one is asked for a sign of life, and given longer than usual to answer. */
  bear(): void;
  /** Ends the link at once: the peer is told the code, streams close with the error (LINK_LOST without one). */
  close(error?: SallyError): void;
}

/**
 * The agent's side: proves who we are, checks the node, opens the lanes. The transport's handshake may still run: it
 * delivers nothing before it has authenticated the node. Rejects with the code that either side found; the session is
 * closed then.
 * @throws SallyError AUTH_FAILED, CERTIFICATE_INVALID, CERTIFICATE_REVOKED, CA_MISMATCH, PROXY_UNTRUSTED,
 *   VERSION_MISMATCH, CONNECT_TIMEOUT, LINK_LOST, PROTOCOL_VIOLATION
 */
export async function connectLink(
  session: Session,
  auth: LinkAuth,
  options: ConnectLinkOptions,
  signal: AbortSignal,
): Promise<Link> {
  const messages = new FirstMessages(2);
  const opener = new LaneOpener(session, options.lanes);
  const core = new LinkCore({
    session,
    options,
    isDialler: true,
    onHandshake: (lane, payload) => (lane.index === 0 ? messages.push(payload) : opener.onHandshake(lane, payload)),
    onLaneLost: () => opener.replace(),
    onStop: () => opener.stop(),
  });
  return shakeHands({ core, messages, options, signal }, async () => {
    const lane = new Lane(core, await session.openLane(signal), 0);
    core.watch(lane);
    messages.lane = lane;
    const { lanesPerLinkMax: lanesMax } = options.limits;
    const handshake = { session, auth, channel: messages, program: options.agentVersion, lanesMax };
    await dialHandshake(handshake, (result) => {
      core.establish(result, lane); // now: frames may follow WELCOME in the same chunk
      opener.start(core, result);
    });
  });
}

/** The node's side. Throws as `connectLink`; the session is closed when it rejects. */
export async function acceptLink(
  session: Session,
  auth: LinkAuth,
  options: AcceptLinkOptions,
  signal: AbortSignal,
): Promise<Link> {
  const messages = new FirstMessages(2);
  const core = new LinkCore({
    session,
    options,
    isDialler: false,
    onHandshake: (lane, payload) => (lane.index === 0 ? messages.push(payload) : lanes.onHandshake(lane, payload)),
    onLaneLost: () => {},
    onStop: () => {},
  });
  const lanes = acceptLanes(core, session, (first) => {
    messages.lane = first;
  });
  return shakeHands({ core, messages, options, signal }, async () => {
    const result = await acceptHandshake({
      session,
      auth,
      channel: messages,
      program: options.nodeVersion ?? "",
      lanesMax: options.limits.lanesPerLinkMax,
    });
    const first = messages.lane!; // a message has come over it
    if (core.isClosed) return;
    lanes.start(result);
    first.sender.handshake(encodeWelcome(result));
    core.establish(result, first);
  });
}

interface Start {
  readonly core: LinkCore;
  readonly messages: FirstMessages;
  readonly options: LinkOptions;
  readonly signal: AbortSignal;
}

/** Bounds the handshake in time, and turns any way it may fail into one rejection. */
async function shakeHands({ core, messages, options, signal }: Start, shake: () => Promise<void>): Promise<Link> {
  core.onEnded((error) => messages.fail(error ?? new SallyError("LINK_LOST")));
  const onAbort = (): void => core.close(toSallyError(signal.reason, "CANCELLED"));
  const timer = options.clock.after(options.limits.handshakeMs, () => core.close(new SallyError("CONNECT_TIMEOUT")));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    await Promise.race([shake(), messages.failed]);
    if (!core.isEstablished) throw core.closeError ?? new SallyError("LINK_LOST");
    return core;
  } catch (thrown) {
    const error = signal.aborted ? toSallyError(signal.reason, "CANCELLED") : toSallyError(thrown);
    core.close(error);
    throw error;
  } finally {
    timer.cancel();
    signal.removeEventListener("abort", onAbort);
  }
}
