/**
 * Places for links whose handshake runs. Peers that have shown a certificate of the node's CA in TLS have places of
 * their own, so that strangers, who may be many and come for nothing, never keep them out. When all agents of a node
 * come back at once, the handshakes that run are finished first.
 */

import { addressGroup } from "../core/address-group.ts";
import { SallyError } from "../core/errors.ts";
import { FairSlots } from "../core/fair-slots.ts";
import type { Session } from "../ports/session.ts";

export class PendingLinks {
  readonly #known: FairSlots;
  readonly #strangers: FairSlots;

  /** So many of each kind. */
  constructor(max: number) {
    this.#known = new FairSlots(max, "newest");
    this.#strangers = new FairSlots(max, "oldest");
  }

  /**
   * Another session of its kind may be closed for it, or it for another. Returns the way to leave the place; undefined
   * when it got none and is closed.
   */
  take(session: Session): (() => void) | undefined {
    const slots = session.peerCertificate === undefined ? this.#strangers : this.#known;
    let isIn = true;
    const leave = slots.take(addressGroup(session.remote.host), () => {
      isIn = false;
      session.close(new SallyError("OVERLOADED", "Too many links are being set up: try again."));
    });
    return isIn ? leave : undefined;
  }
}
