/** What a TLS server or client of ours is given, and its translation to Bun's terms. Unknown to everybody above. */

import { createSecureContext } from "node:tls";
import { SallyError } from "../core/errors.ts";

export interface TlsServerOptions {
  /** PKCS8 private key. */
  readonly keyPem: string;
  /** The leaf, then its chain. */
  readonly certPem: string;
  /** What client certificates must chain to. */
  readonly caPem?: string;
  /** Asks clients for a certificate; one that does not verify is reported, not refused. Default false. */
  readonly requestCert?: boolean;
  /** Protocols in order of preference; a client that offers none of them is refused. Absent: ALPN is ignored. */
  readonly alpn?: readonly string[];
}

export interface TlsClientOptions {
  /** Sent as SNI and checked against the certificate. Empty: none is sent, and the address that is dialled is checked. */
  readonly serverName: string;
  /** Replaces the system's roots. */
  readonly caPem?: string;
  readonly keyPem?: string;
  readonly certPem?: string;
  /** False accepts any certificate. Default true. */
  readonly rejectUnauthorized?: boolean;
  readonly alpn?: readonly string[];
  /** Code of the error when the certificate does not verify. Default CA_MISMATCH. */
  readonly failureCode?: "CA_MISMATCH" | "ORIGIN_TLS";
  /** What to do when the other side does not speak TLS at all. */
  readonly plainAdvice?: string;
}

/** Label of the exporter that both sides of a link sign (RFC 9266 uses its own; this one is private to us). */
export const exporterLabel = "EXPORTER-sallyport";
export const exporterBytes = 32;

/** Bun takes ALPN only in wire form: each name with its length before it. */
export function encodeAlpn(names: readonly string[]): Buffer {
  return Buffer.concat(names.map((name) => Buffer.from([name.length, ...Buffer.from(name, "latin1")])));
}

/** Options for `socket.upgradeTLS` on the accepting side. @throws SallyError CERTIFICATE_INVALID */
export function serverTlsOptions(options: TlsServerOptions): Record<string, unknown> {
  const { keyPem, certPem, caPem, requestCert = false, alpn } = options;
  try {
    if (keyPem.trim() === "" || certPem.trim() === "") throw new Error("one of them is empty"); // OpenSSL takes that
    const secure = createSecureContext({ key: keyPem, cert: certPem, ...(caPem === undefined ? {} : { ca: caPem }) });
    return {
      secureContext: secure.context,
      requestCert,
      rejectUnauthorized: false,
      ...(alpn === undefined ? {} : { ALPNProtocols: encodeAlpn(alpn) }),
    };
  } catch (cause) {
    throw new SallyError("CERTIFICATE_INVALID", `the TLS key or certificate cannot be used: ${String(cause)}`, {
      cause,
    });
  }
}

/** Options for `Bun.connect` and `socket.upgradeTLS` on the dialling side. */
export function clientTlsOptions(options: TlsClientOptions): Record<string, unknown> {
  const { serverName, caPem, keyPem, certPem, rejectUnauthorized = true, alpn } = options;
  return {
    serverName,
    rejectUnauthorized,
    ...(caPem === undefined ? {} : { ca: caPem }),
    ...(keyPem === undefined ? {} : { key: keyPem }),
    ...(certPem === undefined ? {} : { cert: certPem }),
    ...(alpn === undefined ? {} : { ALPNProtocols: encodeAlpn(alpn) }),
  };
}
