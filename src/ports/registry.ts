/**
 * What a node must not forget: tokens, who owns which name, what was revoked, who did what. Times are wall-clock
 * milliseconds. Every call may be asynchronous; the SQLite adapter answers at once.
 */

export interface TokenScope {
  /** Names that may be claimed; a trailing `*` matches any rest; empty means any name. */
  readonly names: readonly string[];
  /** Public ports that may be claimed; empty means none. */
  readonly ports: readonly number[];
}

export interface TokenRecord {
  readonly id: string;
  /** Lower-case hex SHA-256 of the secret; the secret itself is never stored. */
  readonly secretHash: string;
  /** The identity that agents enrolled with this token act as. */
  readonly identity: string;
  readonly label: string;
  readonly scope: TokenScope;
  readonly createdMs: number;
  readonly expiresMs: number | undefined;
  readonly revokedMs: number | undefined;
}

export interface EnrolmentRecord {
  /** Hex SHA-256 of the agent's public key (SPKI, DER). */
  readonly keyFingerprint: string;
  readonly tokenId: string;
  readonly identity: string;
  readonly installation: string;
  readonly createdMs: number;
  readonly renewedMs: number;
  /** When the last certificate ends. */
  readonly expiresMs: number;
  readonly revokedMs: number | undefined;
}

/** How much is kept of enrolments. */
export interface EnrolmentBounds {
  /** Those that expired before are of no use to anybody, and are removed when a new one comes. */
  readonly forgetBeforeMs: number;
  /** Keys that one token may have, revoked ones aside. */
  readonly perTokenMax: number;
}

export interface NameRecord {
  readonly name: string;
  readonly identity: string;
  /** The name stays reserved until then, and is extended while an agent serves it. */
  readonly leaseUntilMs: number;
  /** After release or lapse nobody but the owner gets it until then. */
  readonly quarantineUntilMs: number;
}

export type ReserveResult =
  | { readonly kind: "reserved"; readonly record: NameRecord }
  | { readonly kind: "taken"; readonly untilMs: number }
  | { readonly kind: "limit"; readonly max: number };

export interface ReserveRequest {
  readonly name: string;
  readonly identity: string;
  readonly nowMs: number;
  readonly leaseMs: number;
  readonly quarantineMs: number;
  readonly namesMax: number;
}

export interface AuditRecord {
  readonly atMs: number;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
}

type Maybe<T> = T | Promise<T>;

export interface Registry {
  addToken(token: TokenRecord): Maybe<void>;
  findTokenByHash(secretHash: string): Maybe<TokenRecord | undefined>;
  findToken(id: string): Maybe<TokenRecord | undefined>;
  listTokens(): Maybe<readonly TokenRecord[]>;
  /** False when there is no such token. Revoking twice keeps the first time. */
  revokeToken(id: string, nowMs: number): Maybe<boolean>;

  /** Atomic: renews the record with the same key, or adds it. False when it is new and its token has too many. */
  putEnrolment(enrolment: EnrolmentRecord, bounds: EnrolmentBounds): Maybe<boolean>;
  findEnrolment(keyFingerprint: string): Maybe<EnrolmentRecord | undefined>;
  listEnrolments(): Maybe<readonly EnrolmentRecord[]>;
  revokeEnrolment(keyFingerprint: string, nowMs: number): Maybe<boolean>;

  /** Atomic: reserves a free name, extends one's own, refuses another's. */
  reserveName(request: ReserveRequest): Maybe<ReserveResult>;
  findName(name: string): Maybe<NameRecord | undefined>;
  listNames(identity?: string): Maybe<readonly NameRecord[]>;
  /** The lease ends now and the quarantine begins. False when the name is not this identity's. */
  releaseName(name: string, identity: string, nowMs: number, quarantineMs: number): Maybe<boolean>;

  audit(record: AuditRecord): Maybe<void>;
  listAudit(limit: number): Maybe<readonly AuditRecord[]>;
  close(): Maybe<void>;
}
