/**
 * How a reason travels in QUIC's own close and reset codes. Zero is never sent: node:quic reports an idle time-out as
 * a close with code zero, so only an explicit code of ours counts as a clean end.
 */

import { errorCodeFromWire, SallyError, type ErrorCode } from "../../core/errors.ts";

const base = 0x100n;

/** Without an error: a clean end. */
export function closeCode(error: SallyError | undefined): bigint {
  return base + BigInt(error?.row.wire ?? 0);
}

interface QuicErrorLike {
  readonly type: unknown;
  readonly errorCode: bigint;
}

function isQuicError(error: unknown): error is QuicErrorLike {
  return error instanceof Error && "errorCode" in error && typeof error.errorCode === "bigint" && "type" in error;
}

/** With this code node:quic itself ends the streams of a first flight that the node did not take. */
const earlyRefusal = 1n;

/** True: the end of a stream means that early data was not taken. It comes a round trip before the handshake's report. */
export function isEarlyRefusal(error: unknown): boolean {
  return isQuicError(error) && error.type === "application" && error.errorCode === earlyRefusal;
}

/** TLS alerts that say something about a certificate (RFC 8446 section 6.2); QUIC adds 0x100 to the alert. */
const certificateAlerts = new Set([42, 43, 44, 45, 46, 48, 49, 116]);

/**
 * What ended a session or a stream, from the error of node:quic; undefined when the peer ended it cleanly.
 * Nothing at all, a transport error or an unknown code is `fallback`.
 */
export function reasonOf(error: unknown, fallback: ErrorCode = "LINK_LOST"): SallyError | undefined {
  if (error instanceof SallyError) return error;
  if (error === undefined) return new SallyError(fallback, "The QUIC connection was lost.");
  if (isQuicError(error)) {
    if (error.type === "application" && error.errorCode === base) return undefined;
    if (error.type === "application" && error.errorCode > base && error.errorCode < base + 0x10000n)
      return new SallyError(errorCodeFromWire(Number(error.errorCode - base), fallback), undefined, { cause: error });
    if (error.type === "transport" && certificateAlerts.has(Number(error.errorCode) - 0x100))
      return new SallyError("CERTIFICATE_INVALID", "The peer did not accept our certificate.", { cause: error });
  }
  const message = error instanceof Error ? error.message : "unknown";
  if (message.includes("certificate validation failed"))
    return new SallyError(
      "CA_MISMATCH",
      `The node's certificate was not issued by the CA of the token (${message}): a node that was set up anew needs a new token.`,
      { cause: error },
    );
  return new SallyError(fallback, `The QUIC connection was lost (${message}).`, { cause: error });
}
