/**
 * Places for links whose handshake runs. Peers that have shown a certificate of the node's CA in TLS have places of
 * their own, so that strangers, who may be many and come in for nothing, never keep them out.
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
    this.#known = new FairSlots(max);
    this.#strangers = new FairSlots(max);
  }

  /** Another session of its kind may be closed for it, as it may be later. Returns the way to leave the place. */
  take(session: Session): () => void {
    const slots = session.peerCertificate === undefined ? this.#strangers : this.#known;
    return slots.take(addressGroup(session.remote.host), () => {
      session.close(new SallyError("OVERLOADED", "Too many links are being set up: try again."));
    });
  }
}
