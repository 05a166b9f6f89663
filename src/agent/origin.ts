/**
 * The one local service that a tunnel forwards to. Only the target of the agent's own configuration is ever dialled:
 * nothing in a stream's preamble reaches this file but the stream itself. It also knows whether the service is up, from
 * failed dials and, while it is down, from a connection attempt every two seconds.
 */

import type { Clock, Timer } from "../core/clock.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { OriginTarget } from "../config/origin-target.ts";
import { connectSocket } from "../sockets/connect.ts";
import type { IncomingStream } from "../wire/link.ts";
import { OriginStream, type TrafficCounters } from "./origin-stream.ts";
import type { StreamTap } from "./tap.ts";

export type OriginState = "unknown" | "up" | "down";

/** Opens a connection to a target. @throws SallyError */
export type DialOrigin = (
  target: OriginTarget,
  options: { readonly signal: AbortSignal; readonly timeoutMs: number; readonly withTls: boolean },
) => Promise<Duplex>;

export interface OriginOptions {
  readonly target: OriginTarget;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly counters: TrafficCounters;
  /** A tap for a new stream, while somebody listens. */
  readonly makeTap: () => StreamTap | undefined;
  readonly onState: (state: "up" | "down", error: SallyError | undefined) => void;
  readonly dial?: DialOrigin;
}

/** While the origin is down. */
const recheckMs = 2_000;

export class Origin {
  readonly target: OriginTarget;
  readonly #options: OriginOptions;
  readonly #dial: DialOrigin;
  readonly #closing = new AbortController();
  #state: OriginState = "unknown";
  #recheck: Timer | undefined;
  #lastError: SallyError | undefined;

  constructor(options: OriginOptions) {
    this.target = options.target;
    this.#options = options;
    this.#dial = options.dial ?? dialOrigin;
  }

  get state(): OriginState {
    return this.#state;
  }

  /** Why it is down. */
  get lastError(): SallyError | undefined {
    return this.#state === "down" ? this.#lastError : undefined;
  }

  /** Looks once whether something listens, so that a forgotten service is seen before the first visitor comes. */
  async check(): Promise<void> {
    try {
      const { signal } = this.#closing;
      const probe = await this.#dial(this.target, {
        signal,
        timeoutMs: this.#options.limits.connectMs,
        withTls: false,
      });
      probe.end();
      this.#set("up", undefined);
    } catch (thrown) {
      this.#set("down", originError(thrown, this.target));
    }
  }

  /** Connects the stream to the origin, or refuses it with the reason. */
  serve(stream: IncomingStream): void {
    const { counters, clock, limits, makeTap } = this.#options;
    const abandoned = new AbortController();
    const joint = new OriginStream({
      stream,
      counters,
      tap: makeTap(),
      clock,
      limits,
      onAbandoned: () => abandoned.abort(new SallyError("CANCELLED")),
    });
    void this.#connect(joint, abandoned.signal);
  }

  close(): void {
    this.#recheck?.cancel();
    this.#closing.abort(new SallyError("CANCELLED"));
  }

  async #connect(joint: OriginStream, signal: AbortSignal): Promise<void> {
    try {
      joint.join(await this.#dial(this.target, { signal, timeoutMs: this.#options.limits.connectMs, withTls: true }));
      if (this.#state !== "up") this.#set("up", undefined);
    } catch (thrown) {
      if (joint.isDone) return;
      const error = originError(thrown, this.target);
      joint.refuse(error);
      this.#set("down", error);
    }
  }

  #set(state: "up" | "down", error: SallyError | undefined): void {
    if (this.#closing.signal.aborted) return;
    const isNews = state !== this.#state;
    this.#state = state;
    this.#lastError = error;
    this.#recheck?.cancel();
    // A certificate that does not verify is only seen by the next real dial: a TCP check would say "up" each time.
    const isCheckable = error?.code !== "ORIGIN_TLS";
    if (state === "down" && isCheckable) {
      this.#recheck = this.#options.clock.after(recheckMs, () => void this.check());
    }
    if (isNews) this.#options.onState(state, error);
  }
}

/** Connects over TCP, TLS or a unix socket. Over TLS the origin's certificate is verified against the system's roots. */
const dialOrigin: DialOrigin = async (target, { signal, timeoutMs, withTls }) => {
  const { endpoint, isTls } = target;
  const tls =
    isTls && withTls && endpoint.kind === "tcp" ? { serverName: endpoint.host, alpn: ["http/1.1"] } : undefined;
  const options = tls === undefined ? { signal, timeoutMs } : { signal, timeoutMs, tls };
  return (await connectSocket(endpoint, options)).duplex;
};

/** What a visitor is told when the origin could not be dialled. */
export function originError(thrown: unknown, { label, endpoint }: OriginTarget): SallyError {
  const cause = toSallyError(thrown, "CONNECT_FAILED");
  const { code } = cause;
  if (code === "ORIGIN_TLS" || code === "CA_MISMATCH" || code === "CERTIFICATE_INVALID") {
    return new SallyError("ORIGIN_TLS", `the certificate of ${label} could not be verified: ${cause.message}`, {
      cause,
    });
  }
  if (code === "CONNECT_TIMEOUT" || code === "ORIGIN_TIMEOUT") {
    return new SallyError("ORIGIN_REFUSED", `${label} did not accept a connection in time`, { cause });
  }
  const advice = endpoint.kind === "unix" ? "pass another path" : "pass another port";
  return new SallyError("ORIGIN_REFUSED", `nothing listens on ${label}: start your app or ${advice}`, { cause });
}
