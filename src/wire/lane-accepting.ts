/** The accepting side's lanes: the first shakes hands, every further one has to show that it belongs to the link. */

import type { Duplex } from "../core/duplex.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import type { Session } from "../ports/session.ts";
import type { HandshakeResult } from "./handshake.ts";
import { joinedPayload, JoinGuard } from "./lane-join.ts";
import { Lane } from "./lane.ts";
import type { LinkCore } from "./link-core.ts";

export interface AcceptedLanes {
  /** From now on further lanes may join. */
  start(result: HandshakeResult): void;
  /** A HANDSHAKE frame on a further lane. @throws SallyError PROTOCOL_VIOLATION */
  onHandshake(lane: Lane, payload: Uint8Array): void;
}

export function acceptLanes(core: LinkCore, session: Session, onFirst: (lane: Lane) => void): AcceptedLanes {
  let guard: JoinGuard | undefined;
  let hasFirst = false;
  const asked = new Set<Lane>();

  const accept = (carrier: Duplex): void => {
    if (!hasFirst) {
      hasFirst = true;
      const lane = new Lane(core, carrier, 0);
      core.watch(lane);
      return onFirst(lane);
    }
    const { lanesPerLinkMax } = core.limits;
    if (guard === undefined || core.isClosed) return carrier.reset(new SallyError("PROTOCOL_VIOLATION"));
    if (core.laneCount + core.joiningCount >= lanesPerLinkMax) return carrier.reset(new SallyError("STREAM_LIMIT"));
    core.watch(new Lane(core, carrier, -1), true);
  };

  const join = async (lane: Lane, payload: Uint8Array): Promise<void> => {
    try {
      const index = await guard!.check(payload); // lanes are accepted only once it is set
      if (lane.isClosed) return;
      lane.index = index;
      lane.sender.handshake(joinedPayload);
      core.addLane(lane);
    } catch (thrown) {
      lane.abort(toSallyError(thrown));
    } finally {
      asked.delete(lane);
    }
  };

  session.onLane = accept;
  return {
    start(result) {
      guard = new JoinGuard(result.linkId, result.laneSecret);
    },
    onHandshake(lane, payload) {
      if (lane.isJoined || asked.has(lane)) throw new SallyError("PROTOCOL_VIOLATION", "a HANDSHAKE frame out of turn");
      asked.add(lane);
      void join(lane, payload);
    },
  };
}
