/**
 * The HTTP API under `/_sally/` on the tunnel port: hands out the CA, trades a join token for a certificate, renews
 * one by proof of its key. Every proof names the CA, the time and a nonce that counts once; a renewal never changes
 * whose certificate it is.
 */

import { type EnrolReply, enrolRequest, renewRequest } from "../api/schemas.ts";
import { enrolTranscript, renewTranscript } from "../api/transcript.ts";
import { addressGroup } from "../core/address-group.ts";
import { base64UrlDecode } from "../core/bytes.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import { type Limits, limits as defaultLimits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { clientAddress } from "../http/client-address.ts";
import { htmlDocument, pagePolicy } from "../http/error-page.ts";
import type { Exchange, Handler, Reply } from "../http/exchange.ts";
import type { EnrolmentRecord, Registry, TokenRecord } from "../ports/registry.ts";
import { type Ca, issueCertificate, openCertificate } from "../trust/certificates.ts";
import { importPublicKey, isSignedBy, spkiFingerprint } from "../trust/key-pair.ts";
import { encodePem } from "../trust/pem.ts";
import { NonceMemory, RateLimiter } from "./abuse.ts";
import { ControlError, jsonReply, methodOf, pathOf, readJson, textReply, withProblems } from "./http.ts";
import { isTokenLive } from "./revocations.ts";
import type { TokenService } from "./token-service.ts";

export interface EnrolHandlerOptions {
  readonly registry: Registry;
  readonly tokens: TokenService;
  readonly ca: Ca;
  readonly clock: Clock;
  readonly log: Logger;
  /** Whose word about the client's address is taken. Default nobody's. */
  readonly isTrustedProxy?: ((address: string) => boolean) | undefined;
  readonly limits: Pick<Limits, "agentCertificateMs" | "renewAfterExpiryMs" | "enrolmentsPerToken">;
}

/** For who opens the node's own address: nothing about the node, its version or its tunnels. */
const frontPage = htmlDocument(
  "Sallyport",
  "<h1>This is a Sallyport node.</h1>\n<p>Tunnels have addresses of their own: open the one that you were given.</p>",
);

export function createEnrolHandler(options: EnrolHandlerOptions): Handler {
  return withProblems(new Enrolment(options).handle, options.log);
}

class Enrolment {
  readonly #options: EnrolHandlerOptions;
  /** Of those who have proved nothing, by address group; of the others, by token. */
  readonly #strangers: RateLimiter;
  readonly #tokenHolders: RateLimiter;
  readonly #nonces: NonceMemory;

  constructor(options: EnrolHandlerOptions) {
    const { clock } = options;
    const { proofAgeMs, proofNoncesMax, rateLimitedKeysMax: keysMax } = defaultLimits;
    const { failedEnrolmentsPerMinutePerAddress, enrolmentsPerMinutePerToken } = defaultLimits;
    this.#options = options;
    this.#strangers = new RateLimiter({ clock, perMinute: failedEnrolmentsPerMinutePerAddress, keysMax });
    this.#tokenHolders = new RateLimiter({ clock, perMinute: enrolmentsPerMinutePerToken, keysMax });
    // A proof may be from the future by as much as it may be old.
    this.#nonces = new NonceMemory({ clock, keepMs: 2 * proofAgeMs, max: proofNoncesMax });
  }

  readonly handle = async (exchange: Exchange): Promise<Reply> => {
    switch (`${methodOf(exchange)} ${pathOf(exchange)}`) {
      case "GET /":
        return textReply(200, "text/html; charset=utf-8", frontPage, ["Content-Security-Policy", pagePolicy]);
      case "GET /_sally/ca":
        return textReply(200, "application/x-pem-file", encodePem("CERTIFICATE", this.#options.ca.certificate));
      case "POST /_sally/enrol":
        return jsonReply(await this.#limited(exchange, (onProven) => this.#enrol(exchange, onProven)));
      case "POST /_sally/renew":
        return jsonReply(await this.#limited(exchange, (onProven) => this.#renew(exchange, onProven)));
      default:
        throw new SallyError("NOT_FOUND");
    }
  };

  /**
   * Whoever proves nothing uses up the allowance of its address, and so does not hear why it fails any more. Who proves
   * a key does not depend on that allowance: it may have the same address, or the same proxy in front.
   */
  async #limited(
    { connection, request }: Exchange,
    work: (onProven: () => void) => Promise<EnrolReply>,
  ): Promise<EnrolReply> {
    let isProven = false;
    try {
      return await work(() => void (isProven = true));
    } catch (thrown) {
      if (!isProven) {
        const isTrusted = this.#options.isTrustedProxy ?? (() => false);
        this.#strangers.admit(addressGroup(clientAddress(connection.remote.host, request.headers, isTrusted)));
      }
      throw thrown;
    }
  }

  async #enrol(exchange: Exchange, onProven: () => void): Promise<EnrolReply> {
    const request = await readJson(exchange, enrolRequest);
    const { registry, tokens, ca } = this.#options;
    const token = await tokens.authenticate(base64UrlDecode(request.secret));
    const spki = decodeBase64(request.publicKey);
    const publicKey = await importPublicKey(spki);
    const transcript = enrolTranscript({ ...request, caFingerprint: ca.fingerprint });
    const keyFingerprint = await spkiFingerprint(spki);
    await this.#checkProof({ publicKey, transcript, proof: request.proof });
    onProven();
    this.#checkFresh({ request, keyFingerprint, tokenId: token.id });
    const known = await registry.findEnrolment(keyFingerprint);
    if (known?.revokedMs !== undefined) throw revoked();
    if (known !== undefined && known.identity !== token.identity) {
      throw new SallyError("FORBIDDEN", "This key is enrolled for somebody else: make a new one.");
    }
    const { installation } = request;
    return this.#issue({ token, spki, keyFingerprint, installation, action: "agent.enrol" });
  }

  async #renew(exchange: Exchange, onProven: () => void): Promise<EnrolReply> {
    const request = await readJson(exchange, renewRequest);
    const { registry, ca, clock, limits } = this.#options;
    const { peer, publicKey, publicKeySpki } = await openCertificate(decodeBase64(request.certificate), ca);
    if (peer.role !== "agent" || peer.tokenId === undefined) {
      throw new SallyError("CERTIFICATE_INVALID", "Only certificates of agents are renewed here.");
    }
    if (clock.wallMs() > peer.notAfterMs + limits.renewAfterExpiryMs) {
      throw new SallyError("CERTIFICATE_INVALID", "The certificate expired too long ago: log in again.");
    }
    const transcript = renewTranscript({ ...request, caFingerprint: ca.fingerprint });
    await this.#checkProof({ publicKey, transcript, proof: request.proof });
    onProven();
    const { keyFingerprint, installation } = peer;
    this.#checkFresh({ request, keyFingerprint, tokenId: peer.tokenId });
    const enrolment = await registry.findEnrolment(keyFingerprint);
    const token = await registry.findToken(peer.tokenId);
    if (enrolment === undefined || enrolment.revokedMs !== undefined || enrolment.identity !== peer.identity)
      throw revoked();
    if (token === undefined || token.identity !== peer.identity || !isTokenLive(token, clock.wallMs())) throw revoked();
    return this.#issue({ token, spki: publicKeySpki, keyFingerprint, installation, action: "agent.renew" });
  }

  async #checkProof(check: { publicKey: CryptoKey; transcript: Uint8Array; proof: string }): Promise<void> {
    if (await isSignedBy(check.publicKey, check.transcript, decodeBase64(check.proof))) return;
    throw new SallyError("AUTH_FAILED", "The proof of the key is wrong.");
  }

  /** After the proof: only a good one tells the node's clock and uses up a nonce, which counts for one request. */
  #checkFresh(proven: {
    request: { readonly timestampMs: number; readonly nonce: string };
    keyFingerprint: string;
    tokenId: string;
  }): void {
    const { request, keyFingerprint, tokenId } = proven;
    const nowMs = this.#options.clock.wallMs();
    if (Math.abs(nowMs - request.timestampMs) > defaultLimits.proofAgeMs) {
      throw new ControlError("AUTH_FAILED", "The clocks of both machines are too far apart.", { nowMs });
    }
    this.#tokenHolders.admit(tokenId);
    if (!this.#nonces.use(`${keyFingerprint} ${request.nonce}`)) {
      throw new SallyError("AUTH_FAILED", "This request was made before.");
    }
  }

  async #issue(grant: {
    token: TokenRecord;
    spki: Uint8Array;
    keyFingerprint: string;
    installation: string;
    action: "agent.enrol" | "agent.renew";
  }): Promise<EnrolReply> {
    const { registry, ca, clock, limits } = this.#options;
    const { token, spki, keyFingerprint, installation, action } = grant;
    const { identity } = token;
    const nowMs = clock.wallMs();
    // X.509 counts whole seconds.
    const notAfterMs =
      Math.floor(Math.min(nowMs + limits.agentCertificateMs, token.expiresMs ?? Infinity) / 1_000) * 1_000;
    const certificate = await issueCertificate({
      ca,
      publicKeySpki: spki,
      role: "agent",
      identity,
      installation,
      tokenId: token.id,
      nowMs,
      notAfterMs,
    });
    const enrolment: EnrolmentRecord = {
      keyFingerprint,
      tokenId: token.id,
      identity,
      installation,
      createdMs: nowMs,
      renewedMs: nowMs,
      expiresMs: notAfterMs,
      revokedMs: undefined,
    };
    const bounds = {
      forgetBeforeMs: nowMs - limits.renewAfterExpiryMs,
      perTokenMax: limits.enrolmentsPerToken,
    };
    if (!(await registry.putEnrolment(enrolment, bounds))) {
      throw new SallyError("ENROLMENT_LIMIT", "This token has enrolled as many machines as it may: use another token.");
    }
    const subject = `${keyFingerprint.slice(0, 16)} ${installation} ${token.id}`;
    await registry.audit({ atMs: nowMs, actor: identity, action, subject });
    return { certificate: certificate.toBase64(), notAfterMs, identity };
  }
}

function revoked(): SallyError {
  return new SallyError("CERTIFICATE_REVOKED", "The certificate or its token was revoked: log in again.");
}

function decodeBase64(text: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(text);
  } catch {
    throw new SallyError("BAD_REQUEST", "A field is not base64.");
  }
}
