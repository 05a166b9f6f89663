/**
 * How a further lane shows that it belongs to a link: JOIN carries its index and a MAC of it under the secret that
 * WELCOME gave. Each index is good once, so a JOIN that somebody recorded is worth nothing.
 */

import { z } from "zod";
import { base64UrlDecode, base64UrlEncode, concatBytes, equalConstantTime, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { parse } from "./handshake.ts";

const joinSchema = z.object({
  type: z.literal("join"),
  link: z.string().max(64),
  lane: z.int().min(1).max(0xffff_ffff),
  mac: z.string().length(43),
});
export const joinedSchema = z.object({ type: z.literal("joined") });
export const joinedPayload = utf8Encode('{"type":"joined"}');

export async function encodeJoin(linkId: string, lane: number, secret: Uint8Array): Promise<Uint8Array> {
  const mac = base64UrlEncode(await laneMac(linkId, lane, secret));
  return utf8Encode(JSON.stringify({ type: "join", link: linkId, lane, mac }));
}

/** HMAC-SHA-256 over label, lane index and link id. */
export async function laneMac(linkId: string, lane: number, secret: Uint8Array): Promise<Uint8Array> {
  const index = Uint8Array.of(lane >>> 24, lane >>> 16, lane >>> 8, lane);
  const message = concatBytes([utf8Encode("sallyport lane v1\n"), index, utf8Encode(linkId)]);
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", new Uint8Array(secret), algorithm, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new Uint8Array(message)));
}

/** The accepting side's memory of one link's JOINs. */
export class JoinGuard {
  readonly #linkId: string;
  readonly #secret: Uint8Array;
  readonly #used = new Set<number>();
  #newest = 0;

  constructor(linkId: string, secret: Uint8Array) {
    this.#linkId = linkId;
    this.#secret = secret;
  }

  /** Returns the lane's index. @throws SallyError AUTH_FAILED, PROTOCOL_VIOLATION */
  async check(payload: Uint8Array): Promise<number> {
    const join = parse(joinSchema, payload);
    const expected = await laneMac(this.#linkId, join.lane, this.#secret);
    const isOurs = join.link === this.#linkId && equalConstantTime(base64UrlDecode(join.mac), expected);
    if (!isOurs || this.#used.has(join.lane) || join.lane <= this.#newest - limits.laneIndexWindow) {
      throw new SallyError("AUTH_FAILED", "the lane does not belong to this link");
    }
    this.#used.add(join.lane);
    this.#newest = Math.max(this.#newest, join.lane);
    for (const index of this.#used) if (index <= this.#newest - limits.laneIndexWindow) this.#used.delete(index);
    return join.lane;
  }
}
