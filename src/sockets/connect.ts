/**
 * Outgoing TCP, TLS and unix sockets as `Duplex`es. It hides name resolution and that a name has several addresses:
 * they are tried as RFC 8305 says, so `localhost` works whichever family the server listens on.
 */

import { formatAddress, type Address } from "../core/address.ts";
import { systemClock, type Clock } from "../core/clock.ts";
import { SallyError, toSallyError, type ErrorCode } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { openRaw, type ConnectedSocket } from "./open-raw.ts";
import { findAddresses, knownAddresses } from "./resolve-host.ts";
import { staggered } from "./staggered.ts";
import type { TlsClientOptions } from "./tls-options.ts";

export type { ConnectedSocket } from "./open-raw.ts";

export type SocketTarget =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

export interface ConnectOptions {
  readonly tls?: TlsClientOptions;
  readonly signal: AbortSignal;
  /** From the name to the end of the TLS handshake. */
  readonly timeoutMs: number;
  /** Code that `onClose` reports when the connection is lost later. Default LINK_LOST. */
  readonly closeCode?: ErrorCode;
  readonly clock?: Clock;
}

/** @throws SallyError CONNECT_FAILED, CONNECT_TIMEOUT, CANCELLED, and `tls.failureCode` for a certificate that does not verify */
export async function connectSocket(target: SocketTarget, options: ConnectOptions): Promise<ConnectedSocket> {
  return withDeadline(labelOf(target), options, (signal) => {
    const open = (where: Address | string, attemptSignal: AbortSignal): Promise<ConnectedSocket> =>
      openRaw(where, { tls: options.tls, closeCode: options.closeCode ?? "LINK_LOST", signal: attemptSignal });
    if (target.kind === "unix") return open(target.path, signal);
    return connectToAny(target, { signal, clock: options.clock ?? systemClock, open });
  });
}

interface Attempts {
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly open: (where: Address, signal: AbortSignal) => Promise<ConnectedSocket>;
}

async function connectToAny({ host, port }: Address, { signal, clock, open }: Attempts): Promise<ConnectedSocket> {
  const addresses = knownAddresses(host) ?? (await findAddresses(host));
  if (addresses.length === 1) return open({ host: addresses[0]!, port }, signal);
  try {
    return await staggered({
      attempts: addresses.map((address) => (attemptSignal) => open({ host: address, port }, attemptSignal)),
      staggerMs: limits.nextAddressAfterMs,
      clock,
      signal,
      discard: (late) => late.duplex.reset(new SallyError("CANCELLED")),
    });
  } catch (error) {
    if (!(error instanceof AggregateError)) throw error;
    throw mostTelling(error.errors as readonly unknown[], formatAddress({ host, port }));
  }
}

/** A refused certificate says more than a refused connection on the other family. */
function mostTelling(errors: readonly unknown[], label: string): SallyError {
  const all = errors.map((error) => toSallyError(error, "CONNECT_FAILED"));
  const telling = all.find((error) => error.code !== "CONNECT_FAILED");
  if (telling !== undefined) return telling;
  const reasons = [...new Set(all.map((error) => error.message))].join("; ");
  return new SallyError("CONNECT_FAILED", all.length === 1 ? reasons : `cannot reach ${label}: ${reasons}`, {
    cause: errors[0],
  });
}

/** Bounds `work` by the options' signal and time. */
export async function withDeadline(
  label: string,
  options: Pick<ConnectOptions, "signal" | "timeoutMs" | "clock">,
  work: (signal: AbortSignal) => Promise<ConnectedSocket>,
): Promise<ConnectedSocket> {
  const { signal, timeoutMs, clock = systemClock } = options;
  if (signal.aborted) throw cancelled(label, signal.reason);
  const controller = new AbortController();
  const onAbort = (): void => controller.abort(cancelled(label, signal.reason));
  signal.addEventListener("abort", onAbort, { once: true });
  const timer = clock.after(timeoutMs, () =>
    controller.abort(new SallyError("CONNECT_TIMEOUT", `${label} did not answer within ${timeoutMs} ms`)),
  );
  try {
    return await settledBy(controller.signal, work(controller.signal));
  } finally {
    timer.cancel();
    signal.removeEventListener("abort", onAbort);
  }
}

/** Follows `work`, but rejects at once when the signal aborts, also where `work` cannot be stopped (a resolver). */
function settledBy(signal: AbortSignal, work: Promise<ConnectedSocket>): Promise<ConnectedSocket> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    work.then(
      (socket) => {
        if (signal.aborted) socket.duplex.reset(new SallyError("CANCELLED"));
        else resolve(socket);
      },
      (error: unknown) => reject(error),
    );
  });
}

function cancelled(label: string, cause: unknown): SallyError {
  return cause instanceof SallyError
    ? cause
    : new SallyError("CANCELLED", `connecting to ${label} was cancelled`, { cause });
}

export function labelOf(target: SocketTarget): string {
  return target.kind === "unix" ? target.path : formatAddress(target);
}
