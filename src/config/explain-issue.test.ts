import { expect, test } from "bun:test";
import type { z } from "zod";
import { agentConfigSchema } from "./agent-config.ts";
import { explainIssue } from "./explain-issue.ts";
import { nodeConfigSchema } from "./node-config.ts";

function explain(schema: z.ZodType, value: unknown): string[] {
  const { error } = schema.safeParse(value, { error: explainIssue });
  return (error?.issues ?? []).map(({ path, message }) => `${path.join(".")}: ${message}`);
}

const tunnels = [{ target: 1 }];

test.each<[object, string]>([
  [{}, "tunnels: missing: give a list"],
  [{ tunnels: [] }, "tunnels: a list of 0 is too short: give at least 1 of them"],
  [{ tunnels: "x" }, 'tunnels: must be a list, not "x"'],
  [{ tunnels: [{}] }, "tunnels.0.target: missing"],
  [{ tunnels: [{ target: true }] }, "tunnels.0.target: true does not fit: docs/config.md says what does"],
  [{ tunnels: [{ target: 1, host: "" }] }, "tunnels.0.host: use preserve, rewrite or a host name"],
  [{ tunnels, transport: "tcp" }, 'transport: must be one of auto, quic, websocket, not "tcp"'],
  [{ tunnels, lanes: 0 }, "lanes: 0 is too small: give at least 1"],
  [{ tunnels, lanes: 1.5 }, "lanes: must be a whole number, not 1.5"],
  [{ tunnels, edge: [] }, "edge: a list of 0 is too short"],
  [{ tunnels, foo: 1, bar: 2 }, ": unknown: foo, bar; docs/config.md lists what there is"],
])("an agent's settings %j", (value, complaint) => {
  const [first = "", ...others] = explain(agentConfigSchema, value);
  expect(first).toStartWith(complaint);
  expect(others).toEqual([]);
});

test.each<[object, string]>([
  [{ limits: 3 }, "limits: must be settings of its own, each as NAME: VALUE, not 3"],
  [{ limits: { headBytes: 1e12 } }, "limits.headBytes: 1000000000000 is too large: give at most 1048576"],
  [{ domain: "x".repeat(254) }, `domain: "${"x".repeat(59)}… is too long: give at most 253 characters`],
  [{ tls: { certFile: "a" } }, "tls.keyFile: missing: give text"],
])("a node's settings %j", (value, complaint) => {
  expect(explain(nodeConfigSchema, value)[0]).toBe(complaint);
});
