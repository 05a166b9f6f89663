import { describe, expect, test } from "bun:test";
import { SallyError } from "../core/errors.ts";
import { linkPair, record, settle } from "./testing/link-pair.ts";
import { type WindowAccount, WindowBudget } from "./window-budget.ts";

/** Takes one byte after the other, as long as there are any. */
function fill(account: WindowAccount, how: "tryReserve" | "tryGrow" = "tryReserve"): number {
  while (account[how](1));
  return account.usedBytes;
}

function codeOf(work: () => unknown): string {
  try {
    work();
    return "none";
  } catch (error) {
    return error instanceof SallyError ? error.code : String(error);
  }
}

describe("an owner", () => {
  test("alone gets four fifths, of which growth leaves a part to new streams", () => {
    const budget = new WindowBudget(1_000);
    const account = budget.join("ann");
    expect(fill(account, "tryGrow")).toBe(750);
    expect(fill(account)).toBe(800);
    expect(account.tryReserve(1)).toBe(false);
  });

  test("finds some left, however many others have taken what they could", () => {
    const budget = new WindowBudget(100_000);
    const shares = ["a", "b", "c", "d"].map((owner) => fill(budget.join(owner)));
    expect(shares).toEqual([80_000, 16_000, 3_200, 640]);
    expect(fill(budget.join("bob"))).toBe(128);
  });

  test("shares equally with those that take at the same time", () => {
    const budget = new WindowBudget(90_000);
    const accounts = ["ann", "bob"].map((owner) => budget.join(owner));
    while (accounts.filter((account) => account.tryReserve(1)).length > 0);
    expect(accounts.map(({ usedBytes }) => usedBytes)).toEqual([40_000, 40_000]);
  });

  test("that holds nothing may have whatever is left", () => {
    const account = new WindowBudget(10).join("ann");
    expect([account.tryReserve(11), account.tryReserve(10)]).toEqual([false, true]);
  });
});

describe("those who wait", () => {
  /** Waits for a byte and notes what came of it. */
  function line(max: number) {
    const budget = new WindowBudget(100, max);
    const heard: string[] = [];
    const wait = (account: WindowAccount, name: string): (() => void) =>
      account.wait(
        1,
        () => void heard.push(`${name} granted`),
        () => void heard.push(`${name} refused`),
      );
    return { budget, heard, wait };
  }

  test("are served in turn, those of the owner that holds least first", () => {
    const { budget, heard, wait } = line(10);
    const [ann, bob] = [budget.join("ann"), budget.join("bob")];
    expect([fill(ann), fill(bob)]).toEqual([80, 16]);
    for (const name of ["ann1", "ann2"]) wait(ann, name);
    for (const name of ["bob1", "bob2"]) wait(bob, name);
    ann.release(4);
    expect(heard).toEqual(["bob1 granted", "bob2 granted"]);
    expect(ann.tryReserve(1)).toBe(false); // others of hers wait
    for (let i = 0; i < 20; i++) ann.release(1);
    expect(heard.slice(2)).toEqual(["ann1 granted", "ann2 granted"]);
  });

  test("go before those of their owner that come later, and leave when they like", () => {
    const { budget, heard, wait } = line(10);
    const ann = budget.join("ann");
    fill(ann);
    const leave = wait(ann, "first");
    wait(ann, "second");
    leave();
    leave();
    expect(budget.waiters).toBe(1);
    ann.release(1);
    expect([heard, budget.waiters]).toEqual([["second granted"], 0]);
  });

  test("are bounded, and one owner's cost nobody else the place", async () => {
    const { budget, heard, wait } = line(3);
    const [ann, bob] = [budget.join("ann"), budget.join("bob")];
    expect([fill(ann), fill(bob)]).toEqual([80, 16]);
    for (const name of ["ann1", "ann2", "ann3"]) wait(ann, name);
    expect(codeOf(() => wait(ann, "ann4"))).toBe("OVERLOADED");
    wait(bob, "bob1");
    await settle();
    expect(heard).toEqual(["ann1 refused"]);
    expect(codeOf(() => wait(ann, "ann5"))).toBe("OVERLOADED");
    expect(budget.waiters).toBe(3);
    wait(bob, "bob2");
    expect(codeOf(() => wait(bob, "bob3"))).toBe("OVERLOADED");
    await settle();
    expect(heard).toEqual(["ann1 refused", "ann2 refused"]);
  });
});

test("the links of one owner share an account, which is forgotten when nothing of it is left", async () => {
  const budget = new WindowBudget(1 << 20);
  const pairs = [await linkPair({ node: { budget } }), await linkPair({ node: { budget } })];
  const [first] = pairs;
  record(first!.node.open({ tunnel: "demo", protocol: "http" }));
  expect(budget.accounts).toBe(1);
  first!.node.close();
  await settle();
  expect([budget.accounts, budget.usedBytes]).toEqual([1, 0]);
  pairs[1]!.node.close();
  await settle();
  expect(budget.accounts).toBe(0);
  const held = budget.join("ann");
  held.tryReserve(5);
  const rest = held.retire({}, 5, 2);
  held.leave();
  expect(budget.accounts).toBe(1);
  rest?.release();
  expect([budget.accounts, budget.usedBytes]).toEqual([0, 0]);
});
