/**
 * Proof of identity for one side of a link: signs with our key, and checks the peer's certificate and signature. What
 * is costly about a certificate is done once; expiry and revocation are asked each time.
 */

import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import type { LinkAuth, PeerIdentity, Role } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import {
  type CaCertificate,
  checkValidity,
  keyFingerprint,
  type OpenedCertificate,
  openCertificate,
} from "./certificates.ts";
import { isSignedBy, signBytes } from "./key-pair.ts";

export interface LinkAuthOptions {
  readonly role: Role;
  /** Our private key. */
  readonly key: CryptoKey;
  /** Our leaf, DER. */
  readonly certificate: Uint8Array;
  readonly caCertificate: CaCertificate;
  /** Random for each process. */
  readonly process: string;
  readonly clock: Clock;
  /** Asked on every proof; nodes pass the control's. */
  readonly isRevoked?: (peer: PeerIdentity) => boolean | Promise<boolean>;
  readonly allowsProxiedTls: boolean;
  /** Roles of peers that are let in; by default only the other one than ours. */
  readonly peerRoles?: readonly Role[];
}

export function createLinkAuth(options: LinkAuthOptions): LinkAuth {
  const { role, certificate, clock } = options;
  const peerRoles = options.peerRoles ?? [role === "node" ? "agent" : "node"];
  const cache = new CertificateCache(options.caCertificate, limits.certificateCacheMax);
  return {
    role,
    certificate,
    process: options.process,
    allowsProxiedTls: options.allowsProxiedTls,
    sign: (data) => signBytes(options.key, data),
    fingerprint: keyFingerprint,
    async verify(peerCertificate, data, signature) {
      const opened = await cache.open(peerCertificate);
      const { peer } = opened;
      checkValidity(opened, clock.wallMs());
      if (!peerRoles.includes(peer.role)) {
        throw new SallyError("CERTIFICATE_INVALID", `A certificate with role ${peer.role} cannot be used here.`);
      }
      if (!(await isSignedBy(opened.publicKey, data, signature))) {
        throw new SallyError("CERTIFICATE_INVALID", "The peer could not prove that the certificate is its own.");
      }
      if (options.isRevoked !== undefined && (await options.isRevoked(peer))) {
        throw new SallyError("CERTIFICATE_REVOKED", "The certificate or its token was revoked: log in again.");
      }
      return peer;
    },
  };
}

/** Opened certificates by their bytes; only good ones are kept, the oldest go first. */
export class CertificateCache {
  readonly #ca: CaCertificate;
  readonly #max: number;
  readonly #opened = new Map<string, OpenedCertificate>();

  constructor(ca: CaCertificate, max: number) {
    this.#ca = ca;
    this.#max = max;
  }

  get size(): number {
    return this.#opened.size;
  }

  async open(der: Uint8Array): Promise<OpenedCertificate> {
    const key = der.length > limits.certificateBytes ? "" : der.toBase64();
    const known = this.#opened.get(key);
    if (known !== undefined) return known;
    const opened = await openCertificate(der, this.#ca);
    if (this.#opened.size >= this.#max) {
      for (const oldest of this.#opened.keys()) {
        this.#opened.delete(oldest);
        break;
      }
    }
    this.#opened.set(key, opened);
    return opened;
  }
}
