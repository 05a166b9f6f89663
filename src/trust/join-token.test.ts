import { describe, expect, test } from "bun:test";
import { SallyError } from "../core/errors.ts";
import { createSecret, formatJoinToken, hashSecret, parseJoinToken } from "./join-token.ts";

describe("join tokens", () => {
  test("are one line and come back", () => {
    const token = { secret: createSecret(), caFingerprint: "ab".repeat(32) };
    const text = formatJoinToken(token);
    expect(text).toMatch(/^sally_\S+$/);
    expect(parseJoinToken(` ${text}\n`)).toEqual(token);
  });

  test("that are damaged are refused without quoting them", () => {
    const text = formatJoinToken({ secret: createSecret(), caFingerprint: "ab".repeat(32) });
    for (const wrong of [
      "",
      "x",
      text.slice(1),
      text.slice(0, -1),
      `${text}0`,
      text.toUpperCase(),
      text.replace(".", ""),
    ]) {
      try {
        parseJoinToken(wrong);
        throw new Error("accepted");
      } catch (error) {
        expect(error).toBeInstanceOf(SallyError);
        expect((error as SallyError).code).toBe("TOKEN_INVALID");
        if (wrong.length > 5) expect(String(error)).not.toContain(wrong.slice(6, 20));
      }
    }
  });

  test("are stored as a hash", async () => {
    expect(await hashSecret(new Uint8Array(32))).toBe(
      "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925",
    );
  });
});
