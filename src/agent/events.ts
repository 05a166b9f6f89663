/** What an agent tells its user interface. */

import type { ErrorCode, SallyError } from "../core/errors.ts";
import type { TransportKind } from "../ports/session.ts";

export type AgentEvent =
  /** A probe went through the node's public listener, the link and back: the URL works. After each new link again. */
  | { readonly event: "tunnel"; readonly name: string; readonly url: string; readonly transport: TransportKind }
  /** The probe failed; it is sent again. */
  | { readonly event: "probe-failed"; readonly name: string; readonly code: ErrorCode; readonly message: string }
  /** The node does not let this tunnel be served; the others go on. */
  | { readonly event: "refused"; readonly name: string | undefined; readonly error: SallyError }
  | {
      readonly event: "link";
      readonly state: "up" | "down";
      readonly transport: TransportKind;
      readonly node: string;
      readonly error?: SallyError | undefined;
    }
  | { readonly event: "retry"; readonly node: string; readonly error: SallyError; readonly delayMs: number }
  | {
      readonly event: "origin";
      readonly state: "up" | "down";
      readonly name: string | undefined;
      readonly origin: string;
      readonly error?: SallyError | undefined;
    }
  /** At most once a second, when something changed. Totals since the start. */
  | {
      readonly event: "traffic";
      readonly streams: number;
      readonly openStreams: number;
      readonly bytesToOrigin: number;
      readonly bytesFromOrigin: number;
    }
  /** The agent has stopped; `exitCode` is the error table's. */
  | { readonly event: "fatal"; readonly error: SallyError; readonly exitCode: number };
