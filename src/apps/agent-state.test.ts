import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentState } from "./agent-state.ts";

const [first, second, third] = ["a", "b", "c"].map((digit) => digit.repeat(32)) as [string, string, string];
const edge = { authority: "node.test:7443", url: "https://node.test:7443" };

/** A folder that is removed at the end of the test. */
function makeHome(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "sallyport-test-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

test("the token given last is remembered, and is no login", async () => {
  using home = makeHome();
  const state = new AgentState(home.path);
  expect(await state.credentialKeyFor(edge.authority)).toBeUndefined();
  await state.rememberToken(edge.authority, first);
  await state.rememberToken(edge.authority, second);
  expect(await state.credentialKeyFor(edge.authority)).toBe(second);
  expect(await state.credentialKeyFor("other.test:7443")).toBeUndefined();
  expect(await state.lastEdge()).toBeUndefined();
});

test("what a login chose stays, until the next login", async () => {
  using home = makeHome();
  const state = new AgentState(home.path);
  await state.rememberToken(edge.authority, first);
  await state.rememberEdge(edge, second);
  await state.rememberToken(edge.authority, third);
  expect(await state.credentialKeyFor(edge.authority)).toBe(second);
  expect(await state.lastEdge()).toBe(edge.url);
  await state.rememberEdge(edge, third);
  expect(await state.credentialKeyFor(edge.authority)).toBe(third);
});

test("a choice from before tokens were remembered counts as a login's", async () => {
  using home = makeHome();
  await Bun.write(
    join(home.path, "edges", `${encodeURIComponent(edge.authority)}.json`),
    `{"credential":"${first}"}\n`,
  );
  const state = new AgentState(home.path);
  await state.rememberToken(edge.authority, second);
  expect(await state.credentialKeyFor(edge.authority)).toBe(first);
});
