/**
 * The end of a turn of the event loop: the moment when everything that the system had ready has been looked at. Whatever
 * waits for it runs in one task, so that a thousand waiting streams cost one.
 */

export interface Waiting {
  letGo(): void;
}

export class TurnEnd {
  readonly #schedule: (task: () => void) => void;
  readonly #run = (): void => this.#letAllGo();
  #waiting: Waiting[] = [];

  constructor(schedule: (task: () => void) => void) {
    this.#schedule = schedule;
  }

  /** Calls `letGo` once, at the end of this turn. */
  wait(waiting: Waiting): void {
    if (this.#waiting.push(waiting) === 1) this.#schedule(this.#run);
  }

  #letAllGo(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const one of waiting) one.letGo();
  }
}
