/**
 * Remembers in which order the processes of a slot were first seen, so that an older process that comes back after a
 * network change cannot take the name from the newer one: two processes would else replace each other for ever.
 */

import { limits } from "../core/limits.ts";

export class ProcessOrder {
  readonly #slots = new Map<string, readonly string[]>();
  readonly #slotsMax: number;

  constructor(max: number = limits.processSlots) {
    this.#slotsMax = max;
  }

  get size(): number {
    return this.#slots.size;
  }

  /** True when a newer process than this one claimed the slot before. */
  isSuperseded(slot: string, process: string): boolean {
    const processes = this.#slots.get(slot);
    if (processes === undefined) return false;
    const index = processes.indexOf(process);
    return index !== -1 && index < processes.length - 1;
  }

  /** The process holds the slot now. */
  note(slot: string, process: string): void {
    const processes = this.#slots.get(slot) ?? [];
    const next = processes.at(-1) === process ? processes : [...processes, process].slice(-limits.processesPerSlot);
    this.#slots.delete(slot);
    this.#slots.set(slot, next);
    if (this.#slots.size <= this.#slotsMax) return;
    for (const oldest of this.#slots.keys()) {
      this.#slots.delete(oldest);
      return;
    }
  }
}
