/** Servers that accept and say nothing: whoever asks one of them gives up in time. The waits are real ones. */

import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { systemClock } from "../../src/core/clock.ts";
import { toSallyError } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import { openAdmin } from "../../src/apps/admin.ts";
import { nodeRequest } from "../../src/apps/node-access.ts";
import { createProber } from "../../src/apps/prober.ts";
import { ProbeBoard } from "../../src/edge/probe-board.ts";
import { RawOrigin } from "../support/raw-origin.ts";
import { Scratch } from "../support/sally.ts";

/** That it is a time-out, after about this time. */
async function expectGivenUp(work: Promise<object>, afterMs: number): Promise<void> {
  const startedMs = performance.now();
  expect(await work.catch((thrown: unknown) => toSallyError(thrown))).toMatchObject({ code: "CONNECT_TIMEOUT" });
  const tookMs = performance.now() - startedMs;
  expect(tookMs).toBeGreaterThan(afterMs - 50);
}

test("a probe, the admin API and an enrolment give up on a server that says nothing", async () => {
  await using silent = await RawOrigin.listen();
  using scratch = new Scratch();
  writeFileSync(scratch.join("admin.token"), "t\n");
  const { port } = silent;
  const address = { host: "127.0.0.1", port };
  const admin = await openAdmin({ admin: `http://127.0.0.1:${port}`, data: scratch.path, needsToken: true });
  const board = new ProbeBoard({ clock: systemClock, limits });
  const probe = createProber({ board, listener: () => address, domain: "localhost", clock: systemClock });
  const authority = `127.0.0.1:${port}`;
  const edge = { ...address, url: `https://${authority}`, authority, proxyUrl: undefined };
  const ask = nodeRequest(edge, undefined, new AbortController().signal);
  const unanswered = (): Promise<never> => Promise.reject(new Error("it was answered"));
  await Promise.all([
    expectGivenUp(probe("demo"), limits.probeMs),
    expectGivenUp(admin.status().then(unanswered), limits.connectMs),
    expectGivenUp(ask("GET", "/_sally/ca", {}).then(unanswered), limits.connectMs),
  ]);
}, 30_000);
