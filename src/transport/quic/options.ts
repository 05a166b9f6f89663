/** What both ends of the QUIC transport agree on, and the tuning that measurement chose (docs/runtime-facts.md). */

import { createPrivateKey } from "node:crypto";
import type { SessionLimits } from "./session.ts";
import { utf8Encode } from "../../core/bytes.ts";
import { limits } from "../../core/limits.ts";
import type { SniEntry } from "node:quic";

export const alpn = "sallyport/1";

/** The name in every node's certificate; agents ask for it whatever address they dial. */
export const nodeServerName = "node.sally.internal";

/** PEM texts. The certificate may be a chain. */
export interface QuicTls {
  readonly keyPem: string;
  readonly certPem: string;
  readonly caPem: string;
}

/** Fixed by measurement, the same on both sides. */
export const tuning = {
  cc: "bbr",
  maxPayloadSize: 1_452,
} as const;

/**
 * What a peer may send before the library has passed it on: with the library's own 512 KiB a lane carries no more than
 * that in a round trip. More than this costs memory, which a hostile peer may fill out of order, and overruns lines.
 */
export const windows = {
  initialMaxStreamDataBidiLocal: 4 * 1024 * 1024,
  initialMaxStreamDataBidiRemote: 4 * 1024 * 1024,
  initialMaxData: 8 * 1024 * 1024,
} as const;

/** Buffers of the library and of the system: tuned, and counted by them alone. */
export const quicLimits = {
  /** Only unsent bytes count, so this does not limit the rate on long paths; larger is slower (docs/runtime-facts.md). */
  laneBufferBytes: 64 * 1024,
  udpBufferBytes: 4 * 1024 * 1024,
} as const;

export function sessionLimits(unreadMaxBytes: number | undefined): SessionLimits {
  return {
    unreadMaxBytes: unreadMaxBytes ?? limits.quicUnreadBytes,
    lanesMax: limits.lanesPerLinkMax,
    laneBufferBytes: quicLimits.laneBufferBytes,
    lingerMs: limits.socketLingerMs,
  };
}

export function identityOf({ keyPem, certPem }: QuicTls): SniEntry {
  return { keys: [createPrivateKey(keyPem)], certs: [utf8Encode(certPem)] };
}
