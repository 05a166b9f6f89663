/**
 * What happens to each request field on its way to the origin: one table, looked up by the name as the visitor wrote
 * it. Servers that turn names into CGI variables cannot tell `X_Forwarded_For` from `X-Forwarded-For`, so an alias of a
 * name that matters is dropped.
 */

import { limits } from "../../core/limits.ts";

export const keepField = 0;
export const dropField = 1;
export const hostField = 2;
export const lengthField = 3;
export const codingField = 4;
export const connectionField = 5;
export const teField = 6;
export const expectField = 7;
export const upgradeField = 8;
export const authorizationField = 9;
export const probeField = 10;
export const forwardedForField = 11;
export const forwardedHostField = 12;
export const forwardedProtoField = 13;
export const forwardedField = 14;

const kinds: ReadonlyMap<string, number> = new Map([
  ["host", hostField],
  ["content-length", lengthField],
  ["transfer-encoding", codingField],
  ["connection", connectionField],
  ["te", teField],
  ["expect", expectField],
  ["upgrade", upgradeField],
  ["authorization", authorizationField],
  ["sally-probe", probeField],
  ["x-forwarded-for", forwardedForField],
  ["x-forwarded-host", forwardedHostField],
  ["x-forwarded-proto", forwardedProtoField],
  ["forwarded", forwardedField],
  ["keep-alive", dropField],
  ["proxy-connection", dropField],
  ["http2-settings", dropField],
  ["x-real-ip", dropField],
]);

/** Remembers the kind of each spelling it has seen, up to a bound. */
export class FieldKinds {
  readonly #seen = new Map<string, number>();

  /** Spellings that are kept. */
  get size(): number {
    return this.#seen.size;
  }

  of(name: string): number {
    const known = this.#seen.get(name);
    if (known !== undefined) return known;
    const kind = classifyField(name);
    const { fieldNames, fieldNameChars } = limits;
    if (name.length <= fieldNameChars && this.#seen.size < fieldNames) this.#seen.set(name, kind);
    return kind;
  }
}

/** The kind of a field, by the table and the two families `X-Forwarded-*` and `Sally-*`. */
export function classifyField(name: string): number {
  const plain = name.toLowerCase();
  const dashed = plain.includes("_") ? plain.replaceAll("_", "-") : plain;
  const kind = kinds.get(dashed) ?? (/^(?:x-forwarded|sally)-/.test(dashed) ? dropField : keepField);
  return dashed === plain || kind === keepField || kind === authorizationField ? kind : dropField;
}
