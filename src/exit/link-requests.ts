/**
 * What agents ask of the node over their links: names, the end of names, probes. It costs tokens of the link, more for
 * what makes the node write or call, so that no link keeps the node from the others. Claims wait for their tokens; what
 * has to be answered at once is refused without them; and a link that goes on all the same is closed.
 */

import { sleep, type Clock } from "../core/clock.ts";
import { type ErrorCode, SallyError, toSallyError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import type { Scope } from "../core/scope.ts";
import { TokenBucket } from "../core/token-bucket.ts";
import type { Link } from "../wire/link.ts";
import type { ControlMessage } from "../wire/messages.ts";
import { answerClaim, type ClaimsOptions } from "./claims.ts";
import type { LinkState } from "./tunnel-table.ts";

export type ProbeResult =
  | { readonly ok: true; readonly rttMs: number }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

export interface LinkRequestsOptions {
  readonly claims: ClaimsOptions;
  /** Sends one request for the tunnel through the public listener. */
  readonly probe: (name: string) => Promise<ProbeResult>;
  readonly onReleased: (state: LinkState, name: string) => void;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly scope: Scope;
  /** Runs a task after the events at hand. */
  readonly schedule: (task: () => void) => void;
}

/** Tokens. */
export const requestCost = { message: 1, name: 10, probe: 10, stream: 100 } as const;

/** What one link has under way. */
interface Work {
  readonly bucket: TokenBucket;
  claims: number;
  probes: number;
  /** Claims and releases, in order. */
  tail: Promise<void>;
}

type Message<T extends ControlMessage["type"]> = Extract<ControlMessage, { readonly type: T }>;

export class LinkRequests {
  readonly #options: LinkRequestsOptions;
  readonly #work = new WeakMap<Link, Work>();

  constructor(options: LinkRequestsOptions) {
    this.#options = options;
  }

  /** False when the link has no tokens left; when it is far beyond that, it is closed. */
  charge(link: Link, cost: number): boolean {
    const left = this.#workOf(link).bucket.spend(cost);
    if (left < -this.#options.limits.linkRequestBurst) {
      link.close(new SallyError("OVERLOADED", "This agent asks for more than a node does for one link."));
    }
    return left >= 0;
  }

  claim(state: LinkState, message: Message<"claim">): void {
    const { link } = state;
    const work = this.#workOf(link);
    if (work.claims >= this.#options.limits.claimsWaiting) {
      return link.close(new SallyError("PROTOCOL_VIOLATION", "Too many claims wait for an answer."));
    }
    work.claims++;
    this.#queue(link, async (signal) => {
      try {
        await answerClaim(this.#options.claims, state, message, (names) => this.#pace(link, names, signal));
      } finally {
        work.claims--;
      }
    });
  }

  /** The names are let go at once; that the policy hears of it, in its turn among the claims, may take its time. */
  release(state: LinkState, names: readonly string[]): void {
    const { table } = this.#options.claims;
    const released = names.filter((name) => {
      if (!table.release(state, name)) return false;
      this.#options.onReleased(state, name);
      if (table.members(name)?.length !== 0) return false;
      table.forget(name);
      return true;
    });
    if (released.length > 0) this.#queue(state.link, (signal) => this.#tellReleased(state, released, signal));
  }

  probe({ link, memberships }: LinkState, { requestId, name }: Message<"probe">): void {
    const work = this.#workOf(link);
    const answer = (result: ProbeResult): void => link.send({ type: "probed", requestId, name, ...result });
    // One that is refused costs next to nothing, and the agent asks again: it must not pay for it.
    const isTooMany = work.probes >= this.#options.limits.tunnelsPerLink || work.bucket.waitMs(requestCost.probe) > 0;
    if (isTooMany || !this.charge(link, requestCost.probe)) {
      return answer({ ok: false, code: "OVERLOADED", message: new SallyError("OVERLOADED").message });
    }
    if (!memberships.has(name)) {
      return answer({ ok: false, code: "TUNNEL_UNKNOWN", message: `This link does not serve "${name}".` });
    }
    work.probes++;
    this.#options.scope.run("a probe", async () => {
      const result = await this.#probeResult(name);
      work.probes--;
      answer(result);
    });
  }

  async #probeResult(name: string): Promise<ProbeResult> {
    try {
      return await this.#options.probe(name);
    } catch (thrown) {
      const { code, message } = toSallyError(thrown);
      return { ok: false, code, message };
    }
  }

  async #tellReleased(state: LinkState, names: readonly string[], signal: AbortSignal): Promise<void> {
    const { policy, table } = this.#options.claims;
    for (const name of names) {
      await this.#pace(state.link, 1, signal);
      // Somebody else of the owner's may serve it by now.
      if ((table.members(name)?.length ?? 0) === 0) await policy.release(state.link.peer, name);
    }
  }

  /** Waits until the link may have so many names looked at, and lets others have their turn. */
  async #pace(link: Link, names: number, signal: AbortSignal): Promise<void> {
    const { clock, schedule } = this.#options;
    const { bucket } = this.#workOf(link);
    const cost = names * requestCost.name;
    const waitMs = bucket.waitMs(cost);
    bucket.spend(cost);
    if (waitMs > 0) await sleep(clock, waitMs, signal);
    else await new Promise<void>((resolve) => schedule(resolve));
  }

  #queue(link: Link, task: (signal: AbortSignal) => Promise<void>): void {
    const work = this.#workOf(link);
    const before = work.tail;
    this.#options.scope.run("answering an agent", async (signal) => {
      const done = before.then(() => task(signal));
      work.tail = done.catch(() => {}); // the next one has its turn whatever becomes of this one
      try {
        await done;
      } catch (thrown) {
        if (!signal.aborted) link.close(toSallyError(thrown));
        throw thrown;
      }
    });
  }

  #workOf(link: Link): Work {
    const known = this.#work.get(link);
    if (known !== undefined) return known;
    const { clock, limits } = this.#options;
    const bucket = new TokenBucket({ clock, burst: limits.linkRequestBurst, perSecond: limits.linkRequestsPerSecond });
    const work: Work = { bucket, claims: 0, probes: 0, tail: Promise.resolve() };
    this.#work.set(link, work);
    return work;
  }
}
