/**
 * Which links serve which name, and who gives way to whom. A slot is identity + installation + name: the
 * newer process of a slot replaces the older, a newer link of the same process takes over silently, and another
 * installation is let in only when both share. Pure state: nothing here sends, closes or waits.
 */

import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { TunnelClaim } from "../ports/dialer.ts";
import type { HostHeaderPolicy, TunnelEntry } from "../ports/tunnel-directory.ts";
import type { Link } from "../wire/link.ts";
import { ProcessOrder } from "./process-order.ts";

/** What one link says about one tunnel that it serves: one claim that was granted, and never granted again. */
export interface Membership extends TunnelClaim {
  readonly name: string;
  readonly state: LinkState;
  readonly hostHeader: HostHeaderPolicy;
  readonly pathPrefix: string;
  readonly originLabel: string;
  readonly isShared: boolean;
  isOriginUp: boolean;
  /** False for ever once the link lost or gave up the name, or claimed it anew. */
  isCurrent: boolean;
}

/** What the exit knows about one live link. */
export interface LinkState {
  readonly link: Link;
  /** Order of arrival on this node: the higher one is the newer link. */
  readonly sequence: number;
  /** Monotonic. */
  readonly connectedMs: number;
  /** 0..1; 1 until the agent reports. */
  headroom: number;
  /** It gets no new streams: it gave way, said GOAWAY, or is being closed. */
  isDraining: boolean;
  /** Its last name went to a newer link of the same process. */
  isSuperseded: boolean;
  readonly memberships: Map<string, Membership>;
  /** Leaves its place among the links of the node. */
  leavePlace: () => void;
}

export interface PlaceRequest {
  readonly name: string;
  readonly hostHeader: HostHeaderPolicy;
  readonly pathPrefix: string;
  readonly originLabel: string;
  readonly isShared: boolean;
}

/** Who gave way: `replaced` are other processes, which must be told; `superseded` the same process's older links. */
export interface PlaceResult {
  readonly replaced: readonly Membership[];
  readonly superseded: readonly Membership[];
}

export class TunnelTable {
  readonly #tunnels = new Map<string, Membership[]>();
  readonly #order = new ProcessOrder();
  #liveCount = 0;

  /** Names with at least one link. */
  get liveCount(): number {
    return this.#liveCount;
  }

  /** The links of a tunnel; empty when it had some lately; undefined when the name is not known here. */
  members(name: string): readonly Membership[] | undefined {
    return this.#tunnels.get(name);
  }

  *liveNames(): IterableIterator<string> {
    for (const [name, members] of this.#tunnels) if (members.length > 0) yield name;
  }

  /** What the newest link says about the tunnel. */
  entry(name: string): TunnelEntry | undefined {
    const newest = this.#tunnels.get(name)?.at(-1);
    if (newest === undefined) return undefined;
    const { hostHeader, pathPrefix, originLabel } = newest;
    return { name, state: "live", hostHeader, pathPrefix, originLabel };
  }

  /**
   * Lets a link serve a name, after the policy gave it to the link's identity.
   * @throws SallyError NAME_IN_USE, REPLACED
   */
  place(state: LinkState, request: PlaceRequest): PlaceResult {
    const members = this.#tunnels.get(request.name) ?? [];
    const slot = slotKey(state, request);
    const process = state.link.peerProcess;
    if (this.#order.isSuperseded(slot, process)) {
      throw new SallyError("REPLACED", `A newer process serves "${request.name}" from this machine.`);
    }
    const replaced: Membership[] = [];
    const superseded: Membership[] = [];
    for (const member of members) {
      switch (standing(member, state, request)) {
        case "same-link":
          break;
        case "same-process":
          superseded.push(member);
          break;
        case "gives-way":
          replaced.push(member);
          break;
        case "shares":
          break;
        case "refuses":
          throw new SallyError(
            "NAME_IN_USE",
            `Another installation serves "${request.name}": use --shared on both to share it, or pass another --name.`,
          );
      }
    }
    for (const member of [...replaced, ...superseded]) this.#remove(member);
    const previous = state.memberships.get(request.name);
    if (previous !== undefined) this.#remove(previous);
    this.#add({ ...request, state, isOriginUp: true, isCurrent: true });
    this.#order.note(slot, process);
    return { replaced, superseded };
  }

  /** The link no longer serves the name. False when it did not. */
  release(state: LinkState, name: string): boolean {
    const member = state.memberships.get(name);
    if (member === undefined) return false;
    this.#remove(member);
    return true;
  }

  /** Forgets a name that nobody serves, so that it is unknown rather than offline. */
  forget(name: string): void {
    if (this.#tunnels.get(name)?.length === 0) this.#tunnels.delete(name);
  }

  /** The link is gone. */
  removeLink(state: LinkState): void {
    for (const member of state.memberships.values()) this.#remove(member);
  }

  #add(member: Membership): void {
    const members = this.#tunnels.get(member.name) ?? [];
    if (members.length === 0) this.#liveCount++;
    // A new array, so that whoever iterates over the old one is not disturbed; the map keeps the latest used last.
    this.#tunnels.delete(member.name);
    this.#tunnels.set(member.name, [...members, member]);
    member.state.memberships.set(member.name, member);
    this.#trim();
  }

  #remove(member: Membership): void {
    const { name, state } = member;
    member.isCurrent = false;
    if (state.memberships.get(name) === member) state.memberships.delete(name);
    const members = this.#tunnels.get(name);
    if (members === undefined || !members.includes(member)) return;
    const rest = members.filter((other) => other !== member);
    this.#tunnels.set(name, rest);
    if (rest.length === 0) this.#liveCount--;
  }

  #trim(): void {
    if (this.#tunnels.size - this.#liveCount <= limits.offlineNames) return;
    for (const [name, members] of this.#tunnels) {
      if (members.length > 0) continue;
      this.#tunnels.delete(name);
      return;
    }
  }
}

type Standing = "same-link" | "same-process" | "gives-way" | "shares" | "refuses";

/** What an existing member does when `state` asks for its name. */
function standing(member: Membership, state: LinkState, request: PlaceRequest): Standing {
  if (member.state === state) return "same-link";
  const held = member.state.link;
  const asking = state.link;
  // The policy gave the name to another identity: the old owner's right has lapsed.
  if (held.peer.identity !== asking.peer.identity) return "gives-way";
  const isSameInstallation = held.peer.installation === asking.peer.installation;
  if (isSameInstallation && held.peerProcess === asking.peerProcess) {
    // The claim of an older link that was overtaken while the policy was asked.
    if (member.state.sequence > state.sequence) throw new SallyError("REPLACED", "A newer link serves this name.");
    return "same-process";
  }
  const bothShare = member.isShared && request.isShared;
  // One machine may share a name between two of its own services; the same service twice is a restart.
  if (bothShare && (!isSameInstallation || member.originLabel !== request.originLabel)) return "shares";
  if (isSameInstallation || member.state.isDraining || held.isDraining) return "gives-way";
  return "refuses";
}

function slotKey(state: LinkState, request: PlaceRequest): string {
  const { identity, installation } = state.link.peer;
  return JSON.stringify([identity, installation, request.name, request.isShared ? request.originLabel : ""]);
}
