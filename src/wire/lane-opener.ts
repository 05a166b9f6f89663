/** The dialling side's further lanes: opened once the link stands, and opened again, with a growing pause, when lost. */

import type { Timer } from "../core/clock.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Session } from "../ports/session.ts";
import { parse, type HandshakeResult } from "./handshake.ts";
import { encodeJoin, joinedSchema } from "./lane-join.ts";
import { Lane } from "./lane.ts";
import type { LinkCore } from "./link-core.ts";

export class LaneOpener {
  readonly #session: Session;
  readonly #wanted: number;
  readonly #stop = new AbortController();
  #core: LinkCore | undefined;
  #result: HandshakeResult | undefined;
  #lastIndex = 0;
  #failures = 0;
  readonly #pauses = new Set<Timer>();

  constructor(session: Session, lanes: number) {
    this.#session = session;
    this.#wanted = lanes;
  }

  start(core: LinkCore, result: HandshakeResult): void {
    this.#core = core;
    this.#result = result;
    const wanted = Math.min(this.#wanted, result.lanesMax);
    for (let i = 1; i < wanted; i++) void this.#open();
  }

  stop(): void {
    this.#stop.abort(new SallyError("LINK_LOST"));
    for (const pause of this.#pauses) pause.cancel();
    this.#pauses.clear();
  }

  /** The answer to a JOIN. @throws SallyError PROTOCOL_VIOLATION */
  onHandshake(lane: Lane, payload: Uint8Array): void {
    if (lane.isJoined) throw new SallyError("PROTOCOL_VIOLATION", "a HANDSHAKE frame out of turn");
    parse(joinedSchema, payload);
    this.#failures = 0;
    this.#core?.addLane(lane);
  }

  /** A lane is gone, or did not come up. */
  replace(): void {
    const core = this.#core;
    if (core === undefined || core.isDraining || this.#stop.signal.aborted) return;
    const { reconnectBackoffMinMs: min, reconnectBackoffMaxMs: max } = core.limits;
    const pauseMs = Math.min(max, min * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.#failures = Math.min(this.#failures + 1, 16);
    const pause = core.clock.after(pauseMs, () => {
      this.#pauses.delete(pause);
      void this.#open();
    });
    this.#pauses.add(pause);
  }

  async #open(): Promise<void> {
    const core = this.#core!; // set by start
    const { linkId, laneSecret } = this.#result!; // as above
    try {
      const carrier = await this.#session.openLane(this.#stop.signal);
      if (core.isClosed) return carrier.reset(new SallyError("LINK_LOST"));
      const index = ++this.#lastIndex; // counted in the order in which their carriers were opened
      const lane = new Lane(core, carrier, index);
      core.watch(lane, true);
      const join = await encodeJoin(linkId, index, laneSecret);
      if (!lane.isClosed) lane.sender.handshake(join);
    } catch (thrown) {
      if (core.isClosed) return;
      core.log.warn("a lane could not be opened", { error: toSallyError(thrown, "LINK_LOST").message });
      this.replace();
    }
  }
}
