/** The payload of OPEN: which tunnel, which protocol, which visitor. Bytes after the known fields are ignored. */

import type { Address } from "../core/address.ts";
import { concatBytes, utf8Decode, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import type { StreamProtocol } from "../ports/dialer.ts";
import { readUint16 } from "./frames.ts";

/** What the first frame of a stream says about it. */
export interface Preamble {
  /** Name of the tunnel, lower case, at most 253 bytes. */
  readonly tunnel: string;
  readonly protocol: StreamProtocol;
  /** Absent on pooled streams. */
  readonly visitor?: Address;
}

const protocols: readonly StreamProtocol[] = ["http", "raw", "probe"];
const hasVisitor = 0x01;

export function encodePreamble(preamble: Preamble): Uint8Array {
  const { visitor } = preamble;
  const tunnel = shortText(preamble.tunnel);
  const head = Uint8Array.of(protocols.indexOf(preamble.protocol) + 1, visitor === undefined ? 0 : hasVisitor);
  if (visitor === undefined) return concatBytes([head, tunnel]);
  return concatBytes([head, tunnel, shortText(visitor.host), Uint8Array.of(visitor.port >>> 8, visitor.port)]);
}

/** @throws SallyError PROTOCOL_VIOLATION */
export function decodePreamble(payload: Uint8Array): Preamble {
  const protocol = protocols[(payload[0] ?? 0) - 1];
  if (protocol === undefined) throw new SallyError("PROTOCOL_VIOLATION", "OPEN names an unknown protocol");
  const tunnel = readText(payload, 2);
  const afterTunnel = 3 + payload[2]!; // readText checked it
  if ((payload[1]! & hasVisitor) === 0) return { tunnel, protocol };
  const host = readText(payload, afterTunnel);
  const portAt = afterTunnel + 1 + payload[afterTunnel]!;
  if (payload.length < portAt + 2) throw new SallyError("PROTOCOL_VIOLATION", "OPEN is cut short");
  return { tunnel, protocol, visitor: { host, port: readUint16(payload, portAt) } };
}

function shortText(text: string): Uint8Array {
  const bytes = utf8Encode(text);
  if (bytes.length > 255) throw new SallyError("BAD_REQUEST", "a name in a stream's preamble is over 255 bytes");
  return concatBytes([Uint8Array.of(bytes.length), bytes]);
}

function readText(payload: Uint8Array, at: number): string {
  const length = payload[at];
  if (length === undefined || payload.length < at + 1 + length) {
    throw new SallyError("PROTOCOL_VIOLATION", "OPEN is cut short");
  }
  return utf8Decode(payload.subarray(at + 1, at + 1 + length));
}
