/**
 * The dialling side of a connection while its handshake runs. Its lanes may be written to at once: what is written
 * leaves with the first packet when the connection is resumed, else with the last one of the handshake. Nothing that
 * comes back is delivered before the node is authenticated.
 */

import { reasonOf } from "./close-codes.ts";
import { QuicCarrier, toAddress, type CarrierOptions } from "./session.ts";
import { SallyError } from "../../core/errors.ts";
import type { Session } from "../../ports/session.ts";
import type { HandshakeInfo, QuicSession } from "node:quic";

export interface QuicSessionHandle extends Session {
  /** What became of the data that left with the first packet: "none" when the connection is not a resumed one. */
  readonly early: "none" | "pending" | "accepted" | "rejected";
}

export class DialledCarrier extends QuicCarrier implements QuicSessionHandle {
  early: "none" | "pending" | "accepted" | "rejected";
  /** Undefined once the node is authenticated, else why it was not. Never rejects. */
  readonly opened: Promise<SallyError | undefined>;
  readonly #raw: QuicSession;
  #hasProven = false;
  #isOpened = false;
  #resolveOpened!: (problem: SallyError | undefined) => void;

  constructor(options: Omit<CarrierOptions, "isOpen">) {
    super({ ...options, isOpen: false });
    this.#raw = options.raw;
    this.early = options.earlyMaxBytes === undefined ? "none" : "pending";
    this.opened = new Promise((resolve) => {
      this.#resolveOpened = resolve;
    });
    options.raw.opened.then(
      (info) => this.#onHandshake(info),
      (error: unknown) => this.#fail(error),
    );
  }

  /**
   * Only the node that gave us the ticket can answer early data, and the certificate that it showed then is known: so
   * there is no need to wait for the end of the handshake, which node:quic reports a round trip later.
   */
  override answered(): void {
    if (this.early !== "pending" || this.#raw.peerCertificate === undefined) return;
    this.early = "accepted";
    this.earlyTaken();
    this.prove();
    this.#admit();
  }

  override earlyRefused(): void {
    if (this.early !== "pending") return;
    this.early = "rejected";
    this.sendAgain().catch((error: unknown) => this.#fail(error));
  }

  /** Call it at the node's first sign of life: until then a node may have to take the first flight for a replay. */
  prove(): void {
    if (this.#hasProven || this.early === "none" || this.early === "rejected") return;
    this.#hasProven = true;
    this.proveFreshness().catch((error: unknown) => this.#fail(error));
  }

  #onHandshake({ earlyDataAccepted }: HandshakeInfo): void {
    if (!earlyDataAccepted) this.earlyRefused();
    else if (this.early === "pending") {
      this.early = "accepted";
      this.earlyTaken();
      this.prove();
    }
    this.#admit();
  }

  #admit(): void {
    if (this.#isOpened) return;
    const certificate = this.#raw.peerCertificate;
    const remote = this.#raw.path?.remote;
    if (certificate === undefined || remote === undefined) return this.#fail(new SallyError("CONNECT_FAILED"));
    this.#isOpened = true;
    this.remote = toAddress(remote);
    this.#resolveOpened(undefined);
    this.open(new Uint8Array(certificate.raw));
  }

  /** After the node was authenticated, the end of the session says more. */
  #fail(error: unknown): void {
    const reason = reasonOf(error, "CONNECT_FAILED") ?? new SallyError("CONNECT_FAILED");
    if (!this.#isOpened) this.#resolveOpened(reason);
    this.close(reason);
  }
}
