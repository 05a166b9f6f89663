/**
 * Which transport carries a link. Mode auto starts QUIC at once and WebSocket 250 ms later, or as soon as QUIC has
 * failed; the first that stands carries the traffic and the other is dropped. Going back to QUIC is the agent's
 * decision: it tries `connectQuicOnly` now and then while a link runs over WebSocket.
 */

import type { Clock, Timer } from "../core/clock.ts";
import { SallyError, toSallyError, type ErrorCode } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Connector, Session } from "../ports/session.ts";
import { staggered } from "../sockets/staggered.ts";

export type TransportMode = "auto" | "quic" | "websocket";

export interface DiallerOptions {
  /** Undefined where the runtime has no QUIC. */
  readonly quic: Connector | undefined;
  readonly websocket: Connector;
  readonly mode: TransportMode;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Pick<Limits, "websocketFallbackAfterMs" | "quicAloneMs">;
}

export interface Dialler extends Connector {
  /**
   * QUIC or nothing, to leave a WebSocket link for; rejects at once in mode websocket. Try it every
   * limits.quicReturnEveryMs. @throws SallyError as `connect`
   */
  connectQuicOnly(signal: AbortSignal, greet?: Greet): Promise<Session>;
}

type Greet = Parameters<Connector["connect"]>[1];

/** A refusal of these kinds is about who we are, so it is what the user must hear, whichever transport it came from. */
const tellingCodes: ReadonlySet<ErrorCode> = new Set([
  "CA_MISMATCH",
  "CERTIFICATE_INVALID",
  "CERTIFICATE_REVOKED",
  "AUTH_FAILED",
  "PROXY_UNTRUSTED",
  "VERSION_MISMATCH",
  "USAGE",
]);

export function createDialler(options: DiallerOptions): Dialler {
  const { quic, websocket, mode, log } = options;
  const connectQuicOnly = async (signal: AbortSignal, greet?: Greet): Promise<Session> => {
    if (mode === "websocket") throw new SallyError("CONNECT_FAILED", "QUIC is switched off");
    if (quic === undefined) throw new SallyError("CONNECT_FAILED", "this runtime has no QUIC");
    return quic.connect(signal, greet);
  };
  return {
    connectQuicOnly,
    connect(signal, greet) {
      if (mode === "quic") return connectQuicOnly(signal, greet);
      if (mode === "websocket" || quic === undefined) return websocket.connect(signal, greet);
      return race(options, (attempt) => connectQuicOnly(attempt, greet), signal).then((session) => {
        log.debug("transport chosen", { transport: session.transport });
        return session;
      });
    },
  };
}

async function race(
  { websocket, clock, limits }: DiallerOptions,
  connectQuic: (signal: AbortSignal) => Promise<Session>,
  signal: AbortSignal,
): Promise<Session> {
  const alone = new AbortController();
  let timer: Timer | undefined;
  // A node that refuses TCP is most likely gone: UDP alone would tell that only by its long silence.
  const connectWebsocket = async (attempt: AbortSignal): Promise<Session> => {
    try {
      return await websocket.connect(attempt);
    } catch (error) {
      const giveUp = (): void => alone.abort(new SallyError("CONNECT_TIMEOUT", "no answer over UDP"));
      if (!attempt.aborted) timer = clock.after(limits.quicAloneMs, giveUp);
      throw error;
    }
  };
  try {
    return await staggered<Session>({
      attempts: [(attempt) => connectQuic(AbortSignal.any([attempt, alone.signal])), connectWebsocket],
      staggerMs: limits.websocketFallbackAfterMs,
      clock,
      signal,
      discard: (late) => late.close(),
    });
  } catch (error) {
    throw error instanceof AggregateError
      ? combine(error.errors as readonly unknown[])
      : toSallyError(error, "CANCELLED");
  } finally {
    timer?.cancel();
  }
}

function combine(errors: readonly unknown[]): SallyError {
  const [quic, websocket] = errors.map((error) => toSallyError(error, "CONNECT_FAILED"));
  const main = [quic, websocket].find((error) => error !== undefined && tellingCodes.has(error.code)) ?? websocket;
  return new SallyError(
    main?.code ?? "CONNECT_FAILED",
    `QUIC: ${quic?.message ?? "not tried"}; WebSocket: ${websocket?.message ?? "not tried"}`,
    { cause: main },
  );
}
