/** What a lane needs of the link that it belongs to. */

import type { Clock } from "../core/clock.ts";
import type { SallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Frame } from "./frames.ts";
import type { Lane } from "./lane.ts";
import type { WindowAccount } from "./window-budget.ts";
import type { WireStream } from "./wire-stream.ts";

export interface LaneHost {
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Limits;
  /** What the streams of this link's peer hold of the process's windows. */
  readonly budget: WindowAccount;
  readonly schedule: (task: () => void) => void;
  readonly rttMs: number | undefined;
  /** Agents open streams with odd ids, nodes with even ones. */
  readonly opensOdd: boolean;
  /** Bytes of other lanes that go before those of this one. */
  bytesInFront(lane: Lane): number;
  /** Whether the peer may open one more stream; its window is reserved then. */
  admit(): SallyError | undefined;
  onStream(stream: WireStream): void;
  onStreamDone(stream: WireStream): void;
  /** The peer reset a stream that it had opened itself. */
  onPeerReset(): void;
  onPeerPing(lane: Lane): void;
  /** Milliseconds since the PING that a PONG answers; nonsense if the peer makes it up. */
  onRoundTrip(rttMs: number): void;
  /** HANDSHAKE, GOAWAY, CONTROL, CONTROL_ACK. */
  onLinkFrame(lane: Lane, frame: Frame): void;
  /** The peer broke the protocol, or overran a bound: the link ends with this code. */
  onViolation(lane: Lane, error: SallyError): void;
  /** The carrier is gone and every stream of the lane has been told. */
  onLaneClosed(lane: Lane, error: SallyError): void;
}
