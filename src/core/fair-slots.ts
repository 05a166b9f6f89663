/**
 * A bounded number of places for peers that have proved nothing yet, shared by groups such as addresses. Whoever comes
 * always gets one: when all are taken, the group that has most of them gives up its oldest. So one group has all of
 * them only while nobody else wants any, and what is fast survives what stays.
 */

interface Place {
  readonly giveUp: () => void;
}

export class FairSlots {
  readonly #max: number;
  /** The places of each group, oldest first; the group that came first is first. */
  readonly #groups = new Map<string, Set<Place>>();
  #taken = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get taken(): number {
    return this.#taken;
  }

  /**
   * Takes a place; `giveUp` is called, once at most, when it is taken away again. Returns the way to leave it, which
   * may be called more than once.
   */
  take(group: string, giveUp: () => void): () => void {
    const place: Place = { giveUp };
    const places = this.#groups.get(group);
    if (places === undefined) this.#groups.set(group, new Set([place]));
    else places.add(place);
    this.#taken++;
    if (this.#taken > this.#max) this.#evict();
    return () => this.#leave(group, place);
  }

  #leave(group: string, place: Place): void {
    const places = this.#groups.get(group);
    if (places?.delete(place) !== true) return;
    this.#taken--;
    if (places.size === 0) this.#groups.delete(group);
  }

  /** Not the newcomer: its group is either not the largest, or has an older place. */
  #evict(): void {
    let largest: [string, Set<Place>] | undefined;
    for (const entry of this.#groups) if (largest === undefined || entry[1].size > largest[1].size) largest = entry;
    if (largest === undefined) return;
    const [group, places] = largest;
    for (const place of places) {
      this.#leave(group, place);
      return place.giveUp();
    }
  }
}
