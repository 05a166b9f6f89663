/** Sessions and identities for tests: two ends in one process, without sockets and without real certificates. */

import { equalConstantTime, hexEncode, utf8Decode, utf8Encode } from "../../core/bytes.ts";
import type { Duplex } from "../../core/duplex.ts";
import { SallyError } from "../../core/errors.ts";
import type { LinkAuth, PeerIdentity, Role } from "../../core/identity.ts";
import { memoryDuplexPair, type MemoryDuplex, type MemoryDuplexOptions } from "../../core/memory-duplex.ts";
import type { Session, TransportKind } from "../../ports/session.ts";

export interface MemorySessionOptions {
  readonly transport?: TransportKind;
  readonly host?: string;
  readonly peerCertificate?: Uint8Array | undefined;
  readonly exporter?: Uint8Array | undefined;
  readonly isProxied?: boolean;
}

/** One end of a pair made by `memorySessionPair`. */
export class MemorySession implements Session {
  readonly transport: TransportKind;
  readonly remote = { host: "192.0.2.1", port: 4_000 };
  readonly host: string;
  readonly peerCertificate: Uint8Array | undefined;
  readonly exporter: Uint8Array | undefined;
  readonly isProxied: boolean;
  readonly closed: Promise<SallyError | undefined>;
  /** This end's lanes, in the order in which they were opened. */
  readonly lanes: MemoryDuplex[] = [];
  /** Set to make `openLane` fail. */
  laneError: SallyError | undefined;
  isClosed = false;
  closeError: SallyError | undefined;
  readonly #duplex: MemoryDuplexOptions;
  #peer: MemorySession | undefined;
  #resolveClosed!: (error: SallyError | undefined) => void;
  #early: Duplex[] = [];
  #onLane: ((lane: Duplex) => void) | undefined;

  constructor(duplex: MemoryDuplexOptions, options: MemorySessionOptions) {
    this.#duplex = duplex;
    this.transport = options.transport ?? "memory";
    this.host = options.host ?? "node.test";
    this.peerCertificate = options.peerCertificate;
    this.exporter = options.exporter;
    this.isProxied = options.isProxied ?? false;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  join(peer: MemorySession): void {
    this.#peer = peer;
  }

  get onLane(): (lane: Duplex) => void {
    return this.#onLane ?? (() => {});
  }

  set onLane(receive: (lane: Duplex) => void) {
    this.#onLane = receive;
    for (const lane of this.#early.splice(0)) receive(lane);
  }

  openLane(signal: AbortSignal): Promise<Duplex> {
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    if (this.laneError !== undefined) return Promise.reject(this.laneError);
    const peer = this.#peer;
    if (this.isClosed || peer === undefined) return Promise.reject(new SallyError("LINK_LOST"));
    const [ours, theirs] = memoryDuplexPair(this.#duplex);
    this.lanes.push(ours);
    peer.lanes.push(theirs);
    if (peer.#onLane === undefined) peer.#early.push(theirs);
    else peer.#onLane(theirs);
    return Promise.resolve(ours);
  }

  close(error?: SallyError): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.closeError = error;
    for (const lane of this.lanes) {
      if (error === undefined) lane.end();
      else lane.reset(error);
    }
    this.#resolveClosed(error);
    const peer = this.#peer;
    // A clean close lets what is queued arrive first.
    setTimeout(() => peer?.lost(error === undefined ? undefined : new SallyError("LINK_LOST")), 0);
  }

  /** The network between the two ends is gone. */
  lost(error: SallyError | undefined): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.closeError = error;
    for (const lane of this.lanes) lane.fail(error ?? new SallyError("LINK_LOST"));
    this.#resolveClosed(error);
  }
}

/** The dialling end and the accepting end. */
export function memorySessionPair(
  duplex: MemoryDuplexOptions = {},
  dialler: MemorySessionOptions = {},
  acceptor: MemorySessionOptions = dialler,
): [MemorySession, MemorySession] {
  const ends: [MemorySession, MemorySession] = [
    new MemorySession(duplex, dialler),
    new MemorySession(duplex, acceptor),
  ];
  ends[0].join(ends[1]);
  ends[1].join(ends[0]);
  return ends;
}

/** A proof of identity whose certificate is its name and whose signature is an HMAC under that name. */
export function testAuth(role: Role, options: { name?: string; allowsProxiedTls?: boolean } = {}): LinkAuth {
  const name = options.name ?? role;
  return {
    role,
    certificate: utf8Encode(`cert:${role}:${name}`),
    process: `process-of-${name}`,
    allowsProxiedTls: options.allowsProxiedTls ?? role === "agent",
    sign: (data) => mac(utf8Encode(`cert:${role}:${name}`), data),
    async verify(certificate, data, signature): Promise<PeerIdentity> {
      if (!equalConstantTime(await mac(certificate, data), signature)) throw new SallyError("CERTIFICATE_INVALID");
      const [, peerRole = "", identity = ""] = utf8Decode(certificate).split(":");
      if (peerRole !== "agent" && peerRole !== "node") throw new SallyError("CERTIFICATE_INVALID");
      if (peerRole === role) throw new SallyError("CERTIFICATE_INVALID", "the wrong role");
      const keyFingerprint = await testFingerprint(certificate);
      return { role: peerRole, identity, installation: "here", keyFingerprint, notAfterMs: 1e15, tokenId: undefined };
    },
    fingerprint: testFingerprint,
  };
}

async function mac(certificate: Uint8Array, data: Uint8Array): Promise<Uint8Array> {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", new Uint8Array(certificate), algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new Uint8Array(data)));
}

async function testFingerprint(certificate: Uint8Array): Promise<string> {
  return hexEncode(new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(certificate))));
}
