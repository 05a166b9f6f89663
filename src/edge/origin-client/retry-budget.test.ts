import { expect, test } from "bun:test";
import { RetryBudgets } from "./retry-budget.ts";

/** How many retries a tunnel gets now. */
function spendAll(budgets: RetryBudgets, tunnel: string): number {
  let count = 0;
  while (count < 100 && budgets.spend(tunnel)) count++;
  return count;
}

test("ten retries are free, then ten requests earn one", () => {
  const budgets = new RetryBudgets({ freeRetries: 10, retryShare: 0.1, retryBudgetsMax: 10 });
  expect(spendAll(budgets, "demo")).toBe(10);
  for (let n = 0; n < 9; n++) budgets.earn("demo");
  expect(spendAll(budgets, "demo")).toBe(0);
  budgets.earn("demo");
  expect(spendAll(budgets, "demo")).toBe(1);
  for (let n = 0; n < 1_000; n++) budgets.earn("demo");
  expect(spendAll(budgets, "demo")).toBe(10);
});

test("a tunnel that spent all of its retries takes none from others", () => {
  const budgets = new RetryBudgets({ freeRetries: 10, retryShare: 0.1, retryBudgetsMax: 10 });
  spendAll(budgets, "evil");
  expect(spendAll(budgets, "demo")).toBe(10);
});

test("only budgets that are not full are kept, so many at most; the one used least lately goes first", () => {
  const budgets = new RetryBudgets({ freeRetries: 10, retryShare: 0.1, retryBudgetsMax: 2 });
  for (const tunnel of ["a", "b"]) spendAll(budgets, tunnel);
  for (let n = 0; n < 10; n++) budgets.earn("a");
  expect(budgets.spend("a")).toBe(true); // used last
  expect(budgets.size).toBe(2);
  budgets.spend("c");
  expect(budgets.size).toBe(2);
  expect([spendAll(budgets, "a"), spendAll(budgets, "c")]).toEqual([0, 9]);
  expect(spendAll(budgets, "b")).toBe(10);
  for (let n = 0; n < 200; n++) for (const tunnel of ["a", "b", "c"]) budgets.earn(tunnel);
  expect(budgets.size).toBe(0);
});

test("a tunnel that is forgotten begins anew", () => {
  const budgets = new RetryBudgets({ freeRetries: 10, retryShare: 0.1, retryBudgetsMax: 10 });
  spendAll(budgets, "demo");
  budgets.forget("demo");
  expect([budgets.size, spendAll(budgets, "demo")]).toEqual([0, 10]);
});
