/** Who is at the other end of a link, and how one side proves that it is itself. */

export type Role = "agent" | "node";

export interface PeerIdentity {
  readonly role: Role;
  /** The owner that the names belong to. */
  readonly identity: string;
  /** One machine and folder of that owner. */
  readonly installation: string;
  /** Lower-case hex SHA-256 of the public key (SPKI, DER). */
  readonly keyFingerprint: string;
  readonly notAfterMs: number;
  /** The token that the certificate was enrolled with; revoking it revokes the certificate. */
  readonly tokenId: string | undefined;
}

export interface LinkAuth {
  readonly role: Role;
  /** Our leaf certificate, DER. */
  readonly certificate: Uint8Array;
  /** Random for each process: tells a reconnect from a second process of the same slot. */
  readonly process: string;
  /** A node that runs with --trust-tls-proxy; an agent always leaves that decision to the node. */
  readonly allowsProxiedTls: boolean;
  sign(data: Uint8Array): Promise<Uint8Array>;
  /** Checks chain, role, expiry, revocation and the signature. @throws SallyError CERTIFICATE_INVALID, CERTIFICATE_REVOKED */
  verify(peerCertificate: Uint8Array, data: Uint8Array, signature: Uint8Array): Promise<PeerIdentity>;
  /** Lower-case hex SHA-256 of a certificate's public key (SPKI, DER). */
  fingerprint(certificate: Uint8Array): Promise<string>;
}
