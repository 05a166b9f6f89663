/** A session over WebSocket: lanes that are connections of their own, held together by a random id. */

import { WebsocketDuplex, type WebsocketOptions } from "./websocket-duplex.ts";
import type { Address } from "../../core/address.ts";
import type { Duplex } from "../../core/duplex.ts";
import { SallyError } from "../../core/errors.ts";
import type { Session } from "../../ports/session.ts";

export interface WebsocketSessionFacts {
  readonly remote: Address;
  readonly host: string;
  readonly peerCertificate: Uint8Array | undefined;
  readonly exporter: Uint8Array | undefined;
  readonly isProxied: boolean;
  /** Dials one more lane; the accepting side has none. */
  readonly dialLane?: (signal: AbortSignal) => Promise<WebsocketDuplex>;
}

export class WebsocketSession implements Session {
  readonly transport = "websocket";
  readonly remote: Address;
  readonly host: string;
  readonly peerCertificate: Uint8Array | undefined;
  readonly exporter: Uint8Array | undefined;
  readonly isProxied: boolean;
  readonly closed: Promise<SallyError | undefined>;
  readonly #dialLane: ((signal: AbortSignal) => Promise<WebsocketDuplex>) | undefined;
  readonly #lanes = new Set<WebsocketDuplex>();
  #unclaimed: WebsocketDuplex[] = [];
  #onLane: ((lane: Duplex) => void) | undefined;
  #dialling = 0;
  #isClosing = false;
  #reason: SallyError | undefined;
  #resolveClosed!: (reason: SallyError | undefined) => void;

  constructor(facts: WebsocketSessionFacts) {
    this.remote = facts.remote;
    this.host = facts.host;
    this.peerCertificate = facts.peerCertificate;
    this.exporter = facts.exporter;
    this.isProxied = facts.isProxied;
    this.#dialLane = facts.dialLane;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  get laneCount(): number {
    return this.#lanes.size;
  }

  get isClosing(): boolean {
    return this.#isClosing;
  }

  get onLane(): (lane: Duplex) => void {
    return this.#onLane ?? (() => {});
  }

  set onLane(receive: (lane: Duplex) => void) {
    this.#onLane = receive;
    for (const lane of this.#unclaimed.splice(0)) receive(lane);
  }

  /** Dialling side: the lane that proved the connection is the first that `openLane` hands out. */
  keepFirst(lane: WebsocketDuplex): void {
    this.#unclaimed.push(lane);
  }

  /** Makes a lane of a carrier; it counts until it is over. */
  addLane(carrier: Duplex, options: Omit<WebsocketOptions, "onOver">): WebsocketDuplex {
    const lane = new WebsocketDuplex(carrier, { ...options, onOver: (reason) => this.#laneOver(lane, reason) });
    this.#lanes.add(lane);
    return lane;
  }

  /** Accepting side: tells the session's owner, now or when it sets `onLane`. */
  handUp(lane: WebsocketDuplex): void {
    if (this.#onLane === undefined) this.#unclaimed.push(lane);
    else this.#onLane(lane);
  }

  async openLane(signal: AbortSignal): Promise<Duplex> {
    signal.throwIfAborted();
    if (this.#isClosing) throw this.#reason ?? new SallyError("LINK_LOST", "the session is closed");
    const first = this.#unclaimed.shift();
    if (first !== undefined) return first;
    if (this.#dialLane === undefined) throw new SallyError("LINK_LOST", "the accepting side opens no lanes");
    this.#dialling++;
    try {
      const lane = await this.#dialLane(signal);
      if (!this.#isClosing) return lane;
      lane.close(this.#reason);
      throw this.#reason ?? new SallyError("LINK_LOST", "the session was closed meanwhile");
    } finally {
      this.#dialling--;
      this.#settle();
    }
  }

  close(error?: SallyError): void {
    if (this.#isClosing && error === undefined) return;
    this.#isClosing = true;
    this.#reason ??= error;
    for (const lane of this.#lanes) lane.close(error);
    this.#unclaimed = [];
    this.#settle();
  }

  #laneOver(lane: WebsocketDuplex, reason: SallyError | undefined): void {
    this.#lanes.delete(lane);
    this.#unclaimed = this.#unclaimed.filter((waiting) => waiting !== lane);
    if (this.#lanes.size === 0 && !this.#isClosing) {
      if (this.#dialling > 0) return;
      this.#isClosing = true;
      this.#reason = reason;
    }
    this.#settle();
  }

  /** The session is gone with its last lane. */
  #settle(): void {
    if (this.#lanes.size > 0 || this.#dialling > 0) return;
    this.#isClosing = true;
    this.#resolveClosed(this.#reason);
  }
}
