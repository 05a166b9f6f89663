/** What the fault tests share: both transports at once, one verdict for all loads, and figures for whoever reads the log. */

import { expect } from "bun:test";
import { limits } from "../../src/core/limits.ts";
import type { VisitorLoad } from "./visitor-load.ts";

const transports = ["websocket", "quic"] as const;
export type Transport = (typeof transports)[number];

/** So long after a dead agent or node should have been noticed, it has not been. */
export const noticedMs = 2 * limits.linkDeadAfterMs;

/** The same story over both transports at the same time: most of it is waiting. */
export function overBoth(story: (transport: Transport) => Promise<void>): () => Promise<void> {
  return async () => {
    await Promise.all(transports.map((transport) => story(transport)));
  };
}

/** A figure for the log; nothing depends on it. */
export function note(what: string): void {
  process.stderr.write(`  ${what}\n`);
}

/**
 * Ends a load: nothing but right answers, clear refusals and visible breaks, and nobody waited longer than it takes to
 * notice that somebody is dead.
 */
export async function judge(load: VisitorLoad, label: string): Promise<void> {
  const outcomes = await load.stop();
  note(`${label}: ${load.summary}`);
  expect(outcomes.filter(({ kind, tookMs }) => kind === "wrong" || tookMs > noticedMs)).toEqual([]);
}
