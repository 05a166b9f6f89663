/**
 * A bounded number of places for work under way, shared by groups such as addresses. When all are taken and one more
 * comes, the group that has most of them gives one up, so that a group has all of them only while nobody else wants any.
 * Of peers that may come for nothing the oldest place goes: what is fast survives what stays. Of those that mean it the
 * newest goes, which may be the one that came: what was begun gets finished, however many come at once.
 */

interface Place {
  readonly giveUp: () => void;
}

export class FairSlots {
  readonly #max: number;
  readonly #goes: "oldest" | "newest";
  /** The places of each group, oldest first; the group that came first is first. */
  readonly #groups = new Map<string, Set<Place>>();
  #taken = 0;

  constructor(max: number, goes: "oldest" | "newest") {
    this.#max = max;
    this.#goes = goes;
  }

  get taken(): number {
    return this.#taken;
  }

  /**
   * Takes a place; `giveUp` is called, once at most and perhaps at once, when it is taken away again. Returns the way to
   * leave it, which may be called more than once.
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

  #evict(): void {
    const goesOldest = this.#goes === "oldest";
    let group = "";
    let size = 0;
    for (const [one, places] of this.#groups) {
      if (places.size < size || (places.size === size && goesOldest)) continue;
      group = one;
      size = places.size;
    }
    let loser: Place | undefined;
    for (const place of this.#groups.get(group) ?? []) {
      loser = place;
      if (goesOldest) break;
    }
    if (loser === undefined) return;
    this.#leave(group, loser);
    loser.giveUp();
  }
}
