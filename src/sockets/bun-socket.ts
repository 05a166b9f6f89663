/** The parts of Bun's sockets whose published types are missing or wrong, typed once, and addresses read from them. */

import type { Address } from "../core/address.ts";
import type { RawSocket, SocketDuplex } from "./socket-duplex.ts";
import { exporterBytes, exporterLabel } from "./tls-options.ts";

export interface BunSocket extends RawSocket {
  data: SocketDuplex;
  readonly remoteAddress: string | undefined;
  readonly remotePort: number | undefined;
  readonly localAddress: string | undefined;
  readonly localPort: number | undefined;
  readonly authorized: boolean;
  readonly alpnProtocol: string | false | null;
  getServername(): string | false | undefined;
  getPeerX509Certificate(): { readonly raw: Uint8Array } | undefined;
  exportKeyingMaterial(length: number, label: string, context: Uint8Array): Uint8Array;
  setNoDelay(noDelay: boolean): boolean;
  setKeepAlive(enable: boolean, initialDelayMs: number): boolean;
  upgradeTLS(options: Record<string, unknown>): [raw: BunSocket, tls: BunSocket];
}

const keepAliveAfterMs = 30_000;
const noContext = Buffer.alloc(0);

/** A peer that vanished without a word is noticed by keep-alive after about 40 s. */
export function tuneSocket(socket: BunSocket): void {
  socket.setNoDelay(true);
  socket.setKeepAlive(true, keepAliveAfterMs);
}

export function plainHost(host: string): string {
  return host.startsWith("::ffff:") && host.includes(".") ? host.slice(7) : host;
}

export function remoteOf(socket: BunSocket): Address {
  return { host: plainHost(socket.remoteAddress ?? ""), port: socket.remotePort ?? 0 };
}

export function localOf(socket: BunSocket): Address {
  return { host: plainHost(socket.localAddress ?? ""), port: socket.localPort ?? 0 };
}

/** A copy: Bun's buffers may share a pool. */
export function readExporter(socket: BunSocket): Uint8Array {
  return Uint8Array.from(socket.exportKeyingMaterial(exporterBytes, exporterLabel, noContext));
}

export function readPeerCertificate(socket: BunSocket): Uint8Array | undefined {
  const certificate = socket.getPeerX509Certificate();
  return certificate === undefined || certificate === null ? undefined : Uint8Array.from(certificate.raw);
}
