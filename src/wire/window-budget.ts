/**
 * The receive windows of all streams of a process are drawn from one budget, so what peers may make us hold is bounded
 * whatever they do. Each owner has an account, and may hold so many times what is free (Choudhury and Hahne, "Dynamic
 * queue length thresholds", 1998): alone it gets most of the budget, and however many owners take what they can, some is
 * left for the next. A new stream that finds too little waits its turn; growth stops earlier than new streams do.
 */

import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";

interface Waiter {
  readonly bytes: number;
  readonly onGranted: () => void;
  readonly onRefused: () => void;
}

/** Bytes of a stream that is over and whose owner has not consumed them: they still take memory. */
export class HeldBytes {
  readonly #account: WindowAccount;
  #bytes: number;

  constructor(account: WindowAccount, bytes: number) {
    this.#account = account;
    this.#bytes = bytes;
  }

  release(byteCount = this.#bytes): void {
    const bytes = Math.min(byteCount, this.#bytes);
    if (bytes === 0) return;
    this.#bytes -= bytes;
    this.#account.release(bytes);
  }
}

/** What the links of one owner hold together. The fields belong to the budget. */
export class WindowAccount {
  readonly owner: string;
  usedBytes = 0;
  links = 0;
  /** Those who wait, first come first. */
  readonly waiters = new Set<Waiter>();
  readonly #budget: WindowBudget;

  constructor(owner: string, budget: WindowBudget) {
    this.owner = owner;
    this.#budget = budget;
  }

  /** Takes `bytes` at once, or nothing: those who wait go first. */
  tryReserve(bytes: number): boolean {
    return this.waiters.size === 0 && this.#budget.take(this, bytes, limits.windowBytesPerFreeByte);
  }

  /** As `tryReserve`, but leaves more to new streams. */
  tryGrow(bytes: number): boolean {
    return this.waiters.size === 0 && this.#budget.take(this, bytes, limits.grownWindowBytesPerFreeByte);
  }

  /**
   * Waits in line for `bytes`. Either `onGranted` is called, once they are taken, or `onRefused`, when others have more
   * right to the place in line. Returns the way to leave the line.
   * @throws SallyError OVERLOADED when the line is full
   */
  wait(bytes: number, onGranted: () => void, onRefused: () => void): () => void {
    return this.#budget.wait(this, { bytes, onGranted, onRefused });
  }

  release(bytes: number): void {
    this.#budget.release(this, bytes);
  }

  /** `stream` gives up its window but for `heldBytes`, which come back as they are released, or with its collection. */
  retire(stream: object, windowBytes: number, heldBytes: number): HeldBytes | undefined {
    this.release(windowBytes - heldBytes);
    if (heldBytes === 0) return undefined;
    const held = new HeldBytes(this, heldBytes);
    this.#budget.watch(stream, held);
    return held;
  }

  /** One link fewer. */
  leave(): void {
    this.links--;
    this.#budget.forget(this);
  }
}

export class WindowBudget {
  readonly maxBytes: number;
  readonly waitersMax: number;
  #usedBytes = 0;
  #waiters = 0;
  readonly #accounts = new Map<string, WindowAccount>();
  readonly #waiting = new Set<WindowAccount>();
  /** An owner that drops its stream without a word holds nothing more. */
  readonly #forgotten = new FinalizationRegistry<HeldBytes>((held) => held.release());

  constructor(maxBytes: number, waitersMax: number = limits.openWaitersMax) {
    this.maxBytes = maxBytes;
    this.waitersMax = waitersMax;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get waiters(): number {
    return this.#waiters;
  }

  get accounts(): number {
    return this.#accounts.size;
  }

  /** The owner's account, for one more link. */
  join(owner: string): WindowAccount {
    let account = this.#accounts.get(owner);
    if (account === undefined) {
      account = new WindowAccount(owner, this);
      this.#accounts.set(owner, account);
    }
    account.links++;
    return account;
  }

  // What accounts ask for.

  take(account: WindowAccount, bytes: number, perFreeByte: number): boolean {
    if (!this.#fits(account, bytes, perFreeByte)) return false;
    account.usedBytes += bytes;
    this.#usedBytes += bytes;
    return true;
  }

  wait(account: WindowAccount, waiter: Waiter): () => void {
    const refused = this.#waiters >= this.waitersMax ? this.#makeRoom(account) : undefined;
    account.waiters.add(waiter);
    this.#waiting.add(account);
    this.#waiters++;
    if (refused !== undefined) queueMicrotask(() => refused.onRefused()); // not before the newcomer has its way out
    return () => {
      if (this.#unqueue(account, waiter)) this.#serve();
    };
  }

  release(account: WindowAccount, bytes: number): void {
    account.usedBytes -= bytes;
    this.#usedBytes -= bytes;
    if (account.usedBytes < 0) throw new Error("assertion failed: released more window than was reserved");
    if (this.#waiters > 0) this.#serve();
    if (account.links === 0) this.forget(account);
  }

  watch(stream: object, held: HeldBytes): void {
    this.#forgotten.register(stream, held);
  }

  forget(account: WindowAccount): void {
    if (account.links > 0 || account.usedBytes > 0 || account.waiters.size > 0) return;
    if (this.#accounts.get(account.owner) === account) this.#accounts.delete(account.owner);
  }

  /** Who holds nothing may have whatever is left. */
  #fits(account: WindowAccount, bytes: number, perFreeByte: number): boolean {
    const freeBytes = this.maxBytes - this.#usedBytes - bytes;
    if (freeBytes < 0) return false;
    return account.usedBytes === 0 || account.usedBytes + bytes <= perFreeByte * freeBytes;
  }

  /** Those of the account that holds least go first; when it may have nothing, nobody may. */
  #serve(): void {
    for (;;) {
      let account: WindowAccount | undefined;
      for (const one of this.#waiting) if (account === undefined || one.usedBytes < account.usedBytes) account = one;
      const waiter = account === undefined ? undefined : firstOf(account.waiters);
      if (account === undefined || waiter === undefined) return;
      if (!this.take(account, waiter.bytes, limits.windowBytesPerFreeByte)) return;
      this.#unqueue(account, waiter);
      waiter.onGranted();
    }
  }

  /** Takes the place of the one that waits longest in the longest line, if that is not the asking account's own. */
  #makeRoom(asking: WindowAccount): Waiter | undefined {
    let longest = asking;
    for (const one of this.#waiting) if (one.waiters.size > longest.waiters.size) longest = one;
    const waiter = firstOf(longest.waiters);
    if (longest === asking || waiter === undefined) throw new SallyError("OVERLOADED");
    this.#unqueue(longest, waiter);
    return waiter;
  }

  #unqueue(account: WindowAccount, waiter: Waiter): boolean {
    if (!account.waiters.delete(waiter)) return false;
    this.#waiters--;
    if (account.waiters.size === 0) this.#waiting.delete(account);
    return true;
  }
}

function firstOf(waiters: ReadonlySet<Waiter>): Waiter | undefined {
  for (const waiter of waiters) return waiter;
  return undefined;
}
