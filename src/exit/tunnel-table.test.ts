import { expect, test } from "bun:test";
import { limits } from "../core/limits.ts";
import { StubLink } from "../wire/testing/stub-link.ts";
import { TunnelTable, type LinkState, type PlaceRequest } from "./tunnel-table.ts";

const request: Omit<PlaceRequest, "name"> = {
  hostHeader: { kind: "preserve" },
  pathPrefix: "",
  originLabel: "localhost:3000",
  isShared: false,
};

function stateOf(link: StubLink, sequence = 1): LinkState {
  return {
    link,
    sequence,
    connectedMs: 0,
    headroom: 1,
    isDraining: false,
    isSuperseded: false,
    memberships: new Map(),
    leavePlace: () => {},
  };
}

test("names without an agent are remembered, but not without bound", () => {
  const table = new TunnelTable();
  const served = stateOf(new StubLink());
  table.place(served, { ...request, name: "served" });
  for (let i = 0; i < limits.offlineNames + 2; i++) {
    const state = stateOf(new StubLink());
    table.place(state, { ...request, name: `gone-${i}` });
    table.removeLink(state);
  }
  expect(table.members("gone-0")).toBeUndefined();
  expect(table.members(`gone-${limits.offlineNames + 1}`)).toEqual([]);
  expect(table.members("served")).toHaveLength(1);
  expect(table.liveCount).toBe(1);
  expect([...table.liveNames()]).toEqual(["served"]);
});

test("a late claim of an overtaken link of the same process does not take the name back", () => {
  const table = new TunnelTable();
  const [older, newer] = [stateOf(new StubLink(), 1), stateOf(new StubLink(), 2)];
  table.place(newer, { ...request, name: "demo" });
  expect(() => table.place(older, { ...request, name: "demo" })).toThrow(expect.objectContaining({ code: "REPLACED" }));
  expect(table.members("demo")?.[0]?.state).toBe(newer);
});

test("claiming again on the same link changes what is said about the tunnel, and keeps its place", () => {
  const table = new TunnelTable();
  const state = stateOf(new StubLink());
  table.place(state, { ...request, name: "demo" });
  table.place(state, { ...request, name: "demo", originLabel: "localhost:4000" });
  expect(table.members("demo")).toHaveLength(1);
  expect(table.entry("demo")?.originLabel).toBe("localhost:4000");
  expect(table.liveCount).toBe(1);
});

test("a name whose owner changed is taken from the old owner's link", () => {
  const table = new TunnelTable();
  const [ann, bob] = [stateOf(new StubLink({ identity: "ann" })), stateOf(new StubLink({ identity: "bob" }), 2)];
  table.place(ann, { ...request, name: "demo" });
  expect(table.place(bob, { ...request, name: "demo" }).replaced[0]?.state).toBe(ann);
  expect(ann.memberships.size).toBe(0);
});
