/**
 * The registry in memory: for tests, and for nodes that need not remember. The SQLite adapter follows the same rules;
 * tests/contract/registry.contract.test.ts holds both to them.
 */

import { limits } from "../core/limits.ts";
import { SallyError } from "../core/errors.ts";
import type {
  AuditRecord,
  EnrolmentBounds,
  EnrolmentRecord,
  NameRecord,
  Registry,
  ReserveRequest,
  ReserveResult,
  TokenRecord,
} from "../ports/registry.ts";

export class MemoryRegistry implements Registry {
  readonly #tokens = new Map<string, TokenRecord>();
  readonly #enrolments = new Map<string, EnrolmentRecord>();
  readonly #names = new Map<string, NameRecord>();
  readonly #audit: AuditRecord[] = [];

  addToken(token: TokenRecord): void {
    if (this.#tokens.has(token.id) || this.findTokenByHash(token.secretHash) !== undefined) {
      throw new SallyError("STORE_FAILED", "A token with this id or secret is already stored.");
    }
    this.#tokens.set(token.id, structuredClone(token));
  }

  findTokenByHash(secretHash: string): TokenRecord | undefined {
    for (const token of this.#tokens.values()) if (token.secretHash === secretHash) return token;
    return undefined;
  }

  findToken(id: string): TokenRecord | undefined {
    return this.#tokens.get(id);
  }

  listTokens(): readonly TokenRecord[] {
    return [...this.#tokens.values()];
  }

  revokeToken(id: string, nowMs: number): boolean {
    const token = this.#tokens.get(id);
    if (token === undefined) return false;
    this.#tokens.set(id, { ...token, revokedMs: token.revokedMs ?? nowMs });
    return true;
  }

  putEnrolment(enrolment: EnrolmentRecord, bounds: EnrolmentBounds): boolean {
    const known = this.#enrolments.get(enrolment.keyFingerprint);
    if (known === undefined && !this.#hasRoom(enrolment.tokenId, bounds)) return false;
    this.#enrolments.set(enrolment.keyFingerprint, {
      ...enrolment,
      createdMs: known?.createdMs ?? enrolment.createdMs,
      // What was revoked stays so: a renewal that runs at the same time must not bring the key back.
      revokedMs: known?.revokedMs ?? enrolment.revokedMs,
    });
    return true;
  }

  findEnrolment(keyFingerprint: string): EnrolmentRecord | undefined {
    return this.#enrolments.get(keyFingerprint);
  }

  listEnrolments(): readonly EnrolmentRecord[] {
    return [...this.#enrolments.values()];
  }

  revokeEnrolment(keyFingerprint: string, nowMs: number): boolean {
    const enrolment = this.#enrolments.get(keyFingerprint);
    if (enrolment === undefined) return false;
    this.#enrolments.set(keyFingerprint, { ...enrolment, revokedMs: enrolment.revokedMs ?? nowMs });
    return true;
  }

  reserveName({ name, identity, nowMs, leaseMs, quarantineMs, namesMax }: ReserveRequest): ReserveResult {
    const known = this.#names.get(name);
    const isHeld = known !== undefined && known.quarantineUntilMs > nowMs;
    if (isHeld && known.identity !== identity) return { kind: "taken", untilMs: known.quarantineUntilMs };
    if (!isHeld) {
      this.#dropLapsed(nowMs);
      if (this.listNames(identity).length >= namesMax) return { kind: "limit", max: namesMax };
    }
    const leaseUntilMs = Math.max(nowMs + leaseMs, isHeld ? known.leaseUntilMs : 0);
    const record = { name, identity, leaseUntilMs, quarantineUntilMs: leaseUntilMs + quarantineMs };
    this.#names.set(name, record);
    return { kind: "reserved", record };
  }

  findName(name: string): NameRecord | undefined {
    return this.#names.get(name);
  }

  listNames(identity?: string): readonly NameRecord[] {
    const names = [...this.#names.values()];
    return identity === undefined ? names : names.filter((record) => record.identity === identity);
  }

  releaseName(name: string, identity: string, nowMs: number, quarantineMs: number): boolean {
    const known = this.#names.get(name);
    if (known === undefined || known.identity !== identity) return false;
    if (known.leaseUntilMs <= nowMs) return true; // the quarantine runs already and is not prolonged
    this.#names.set(name, { ...known, leaseUntilMs: nowMs, quarantineUntilMs: nowMs + quarantineMs });
    return true;
  }

  audit(record: AuditRecord): void {
    this.#audit.push(record);
    if (this.#audit.length > limits.auditRecordsMax) this.#audit.shift();
  }

  listAudit(limit: number): readonly AuditRecord[] {
    return this.#audit.slice(-limit).toReversed();
  }

  close(): void {}

  #hasRoom(tokenId: string, { forgetBeforeMs, perTokenMax }: EnrolmentBounds): boolean {
    let count = 0;
    for (const [key, record] of this.#enrolments) {
      if (record.expiresMs < forgetBeforeMs) this.#enrolments.delete(key);
      else if (record.tokenId === tokenId && record.revokedMs === undefined) count++;
    }
    return count < perTokenMax;
  }

  #dropLapsed(nowMs: number): void {
    for (const [name, record] of this.#names) if (record.quarantineUntilMs <= nowMs) this.#names.delete(name);
  }
}
