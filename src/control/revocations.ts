/**
 * Answers at once whether a peer is still welcome: asked on every stream, so it reads a copy of the tokens and
 * enrolments that is at most `revocationPollMs` old. It fails closed: who is not on record is not let in. Revoking
 * here takes effect before the call returns, elsewhere (another process, another node) with the next poll.
 */

import type { Clock, Timer } from "../core/clock.ts";
import type { PeerIdentity } from "../core/identity.ts";
import type { Logger } from "../core/log.ts";
import type { EnrolmentRecord, Registry, TokenRecord } from "../ports/registry.ts";

export type PeerPredicate = (peer: PeerIdentity) => boolean;

export interface RevocationsOptions {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Logger;
  readonly pollMs: number;
}

export class Revocations {
  readonly #options: RevocationsOptions;
  readonly #listeners = new Set<(isRevoked: PeerPredicate) => void>();
  #tokens = new Map<string, TokenRecord>();
  #enrolments = new Map<string, EnrolmentRecord>();
  #tokenList: readonly TokenRecord[] = [];
  #enrolmentList: readonly EnrolmentRecord[] = [];
  #polledMs = -Infinity;
  /** Counts local revocations, so that a poll that began before one does not undo it. */
  #generation = 0;
  #timer: Timer | undefined;
  #isClosed = false;
  #isFailing = false;

  constructor(options: RevocationsOptions) {
    this.#options = options;
  }

  /** Reads the registry for the first time and begins to poll. @throws SallyError STORE_FAILED */
  async start(): Promise<void> {
    await this.#read();
    this.#schedule();
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#listeners.clear();
  }

  /** Calls back with a test for peers whenever one may have changed: close every live link for which it is true. */
  onRevoked(listener: (isRevoked: PeerPredicate) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** At once for peers on record; a promise for one that may have enrolled since the last poll. */
  isRevoked(peer: PeerIdentity): boolean | Promise<boolean> {
    if (peer.role === "node") return false; // nodes have no token: the CA alone vouches for them
    const token = peer.tokenId === undefined ? undefined : this.#tokens.get(peer.tokenId);
    const enrolment = this.#enrolments.get(peer.keyFingerprint);
    if (token !== undefined && enrolment !== undefined) return !this.#isWelcome(peer, token, enrolment);
    return this.#lookUp(peer);
  }

  async revokeToken(id: string): Promise<boolean> {
    const { registry, clock } = this.#options;
    const nowMs = clock.wallMs();
    if (!(await registry.revokeToken(id, nowMs))) return false;
    this.#generation += 1;
    const known = this.#tokens.get(id);
    if (known !== undefined) this.#tokens.set(id, { ...known, revokedMs: known.revokedMs ?? nowMs });
    this.#notify((peer) => peer.tokenId === id || this.#isKnownRevoked(peer));
    return true;
  }

  async revokeEnrolment(keyFingerprint: string): Promise<boolean> {
    const { registry, clock } = this.#options;
    const nowMs = clock.wallMs();
    if (!(await registry.revokeEnrolment(keyFingerprint, nowMs))) return false;
    this.#generation += 1;
    const known = this.#enrolments.get(keyFingerprint);
    if (known !== undefined) this.#enrolments.set(keyFingerprint, { ...known, revokedMs: known.revokedMs ?? nowMs });
    this.#notify((peer) => peer.keyFingerprint === keyFingerprint || this.#isKnownRevoked(peer));
    return true;
  }

  /** Reads the registry now; tells the listeners if something changed. What fails is logged, the old copy stays. */
  async poll(): Promise<void> {
    try {
      if (await this.#read()) this.#notify((peer) => this.#isKnownRevoked(peer));
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing) this.#options.log.error("revocations could not be read", { error: String(error) });
      this.#isFailing = true;
    }
  }

  #schedule(): void {
    if (this.#isClosed) return;
    this.#timer = this.#options.clock.after(this.#options.pollMs, () => {
      void this.poll().then(() => this.#schedule()); // poll never rejects
    });
  }

  /** True when a list changed or a token's time ran out since the last call. */
  async #read(): Promise<boolean> {
    const { registry, clock } = this.#options;
    for (;;) {
      const generation = this.#generation;
      const tokens = await registry.listTokens();
      const enrolments = await registry.listEnrolments();
      if (generation !== this.#generation) continue;
      const nowMs = clock.wallMs();
      const hasLapsed = tokens.some(({ expiresMs }) => {
        return expiresMs !== undefined && expiresMs > this.#polledMs && expiresMs <= nowMs;
      });
      const hasChanged = tokens !== this.#tokenList || enrolments !== this.#enrolmentList;
      if (tokens !== this.#tokenList) this.#tokens = new Map(tokens.map((token) => [token.id, token]));
      if (enrolments !== this.#enrolmentList) {
        this.#enrolments = new Map(enrolments.map((enrolment) => [enrolment.keyFingerprint, enrolment]));
      }
      this.#tokenList = tokens;
      this.#enrolmentList = enrolments;
      this.#polledMs = nowMs;
      return hasChanged || hasLapsed;
    }
  }

  /** Only what the copy says for certain: a peer that enrolled since it was made is not shut out by its absence. */
  #isKnownRevoked(peer: PeerIdentity): boolean {
    if (peer.role === "node") return false;
    if (peer.tokenId === undefined) return true;
    const token = this.#tokens.get(peer.tokenId);
    if (token !== undefined && !this.#isTokenGood(peer, token)) return true;
    const enrolment = this.#enrolments.get(peer.keyFingerprint);
    return enrolment !== undefined && !isEnrolmentGood(peer, enrolment);
  }

  async #lookUp(peer: PeerIdentity): Promise<boolean> {
    const { registry } = this.#options;
    const token = peer.tokenId === undefined ? undefined : await registry.findToken(peer.tokenId);
    return !this.#isWelcome(peer, token, await registry.findEnrolment(peer.keyFingerprint));
  }

  #isWelcome(peer: PeerIdentity, token: TokenRecord | undefined, enrolment: EnrolmentRecord | undefined): boolean {
    if (token === undefined || enrolment === undefined) return false;
    return this.#isTokenGood(peer, token) && isEnrolmentGood(peer, enrolment);
  }

  #isTokenGood(peer: PeerIdentity, token: TokenRecord): boolean {
    return token.identity === peer.identity && isTokenLive(token, this.#options.clock.wallMs());
  }

  #notify(isRevoked: PeerPredicate): void {
    for (const listener of this.#listeners) listener(isRevoked);
  }
}

function isEnrolmentGood(peer: PeerIdentity, enrolment: EnrolmentRecord): boolean {
  return enrolment.identity === peer.identity && enrolment.revokedMs === undefined;
}

/** Neither revoked nor past its end. */
export function isTokenLive(token: TokenRecord, nowMs: number): boolean {
  return token.revokedMs === undefined && (token.expiresMs === undefined || nowMs < token.expiresMs);
}
