import { expect, test } from "bun:test";
import { limits } from "../core/limits.ts";
import { MemoryRegistry } from "./memory.ts";

test("the audit is bounded, and forgets the oldest", () => {
  const registry = new MemoryRegistry();
  for (let atMs = 0; atMs < limits.auditRecordsMax; atMs++) {
    registry.audit({ atMs, actor: "a", action: "act", subject: "s" });
  }
  const all = 2 * limits.auditRecordsMax;
  expect(registry.listAudit(all).at(-1)?.atMs).toBe(0);
  registry.audit({ atMs: -1, actor: "a", action: "act", subject: "s" });
  const kept = registry.listAudit(all);
  expect(kept).toHaveLength(limits.auditRecordsMax);
  expect([kept[0]?.atMs, kept.at(-1)?.atMs]).toEqual([-1, 1]);
});
