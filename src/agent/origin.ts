/**
 * The one local service that a tunnel forwards to. Only the target of the agent's own configuration is ever dialled:
 * nothing in a stream's preamble reaches this file but the stream itself. It also knows whether the service is up, from
 * failed dials and, while it is down, from a connection attempt every two seconds.
 */

import { isIP } from "node:net";
import type { Clock, Timer } from "../core/clock.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { OriginTarget } from "../config/origin-target.ts";
import { connectSocket } from "../sockets/connect.ts";
import type { OriginStream } from "./origin-stream.ts";

export type OriginState = "unknown" | "up" | "down";

/** Opens a connection to a target. @throws SallyError */
export type DialOrigin = (
  target: OriginTarget,
  options: { readonly signal: AbortSignal; readonly timeoutMs: number },
) => Promise<Duplex>;

export interface OriginOptions {
  readonly target: OriginTarget;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly onState: (state: "up" | "down", error: SallyError | undefined) => void;
  readonly dial?: DialOrigin;
}

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
      const probe = await this.#dial(this.target, { signal, timeoutMs: this.#options.limits.connectMs });
      probe.end();
      this.#set("up", undefined);
    } catch (thrown) {
      this.#set("down", originError(thrown, this.target));
    }
  }

  /** Connects the stream to the origin, or refuses it with the reason. Never rejects for trouble with the origin. */
  async serve(joint: OriginStream): Promise<void> {
    const connection = await this.#connect(joint.signal);
    if (!(connection instanceof SallyError)) {
      if (this.#state !== "up") this.#set("up", undefined);
      return joint.join(connection);
    }
    if (joint.isDone) return;
    joint.refuse(connection);
    this.#set("down", connection);
  }

  close(): void {
    this.#recheck?.cancel();
    this.#closing.abort(new SallyError("CANCELLED"));
  }

  async #connect(signal: AbortSignal): Promise<Duplex | SallyError> {
    try {
      return await this.#dial(this.target, { signal, timeoutMs: this.#options.limits.connectMs });
    } catch (thrown) {
      return originError(thrown, this.target);
    }
  }

  #set(state: "up" | "down", error: SallyError | undefined): void {
    if (this.#closing.signal.aborted) return;
    const isNews = state !== this.#state;
    this.#state = state;
    this.#lastError = error;
    this.#recheck?.cancel();
    if (state === "down") {
      const { clock, limits } = this.#options;
      this.#recheck = clock.after(limits.originRecheckMs, () => void this.check());
    }
    if (isNews) this.#options.onState(state, error);
  }
}

/** Connects over TCP, TLS or a unix socket. Over TLS the origin's certificate is verified against the system's roots. */
const dialOrigin: DialOrigin = async ({ endpoint, isTls }, { signal, timeoutMs }) => {
  const base = { signal, timeoutMs, closeCode: "ORIGIN_RESET" } as const;
  if (!isTls || endpoint.kind === "unix") return (await connectSocket(endpoint, base)).duplex;
  const serverName = isIP(endpoint.host) === 0 ? endpoint.host : ""; // RFC 6066 §3: an address is no server name
  const options = { ...base, tls: { serverName, alpn: ["http/1.1"], failureCode: "ORIGIN_TLS" } as const };
  return (await connectSocket(endpoint, options)).duplex;
};

/** The system answered, and nobody was there: for a unix socket, not even a file. */
function isRefusal({ cause }: SallyError): boolean {
  if (cause instanceof SallyError) return isRefusal(cause);
  return cause instanceof Error && "code" in cause && (cause.code === "ECONNREFUSED" || cause.code === "ENOENT");
}

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
  if (isRefusal(cause)) {
    const advice = endpoint.kind === "unix" ? "pass another path" : "pass another port";
    return new SallyError("ORIGIN_REFUSED", `nothing listens on ${label}: start your app or ${advice}`, { cause });
  }
  return new SallyError("ORIGIN_REFUSED", `${label} cannot be reached: ${cause.message}`, { cause });
}
