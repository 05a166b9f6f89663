import { expect, test } from "bun:test";
import { toSallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { encodeJoin, JoinGuard } from "./lane-join.ts";

test("an index is good once; one that is too far behind the newest counts as used", async () => {
  const secret = new Uint8Array(32).fill(7);
  const guard = new JoinGuard("link", secret);
  const join = async (lane: number): Promise<number | string> => {
    const payload = await encodeJoin("link", lane, secret);
    return guard.check(payload).catch((thrown: unknown) => toSallyError(thrown).code);
  };
  const newest = limits.laneIndexWindow + 10;
  expect(await join(newest)).toBe(newest);
  expect(await join(newest)).toBe("AUTH_FAILED");
  expect(await join(10)).toBe("AUTH_FAILED"); // just outside
  expect(await join(11)).toBe(11);
  expect(await join(11)).toBe("AUTH_FAILED");
  expect(await join(newest + 1)).toBe(newest + 1);
  expect(await join(11)).toBe("AUTH_FAILED"); // forgotten by now, and too old
  expect(await join(12)).toBe(12);
});
