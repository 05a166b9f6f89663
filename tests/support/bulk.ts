/** Moves one large body through the whole path and checks every byte of it, and the memory of node and agent. */

import { expect } from "bun:test";
import { NodeProgram } from "./node-program.ts";
import { MemoryWatch } from "./process-memory.ts";
import { type Transport, VisitorPath } from "./visitor-path.ts";

export interface BulkCase {
  readonly transport: Transport;
  readonly direction: "up" | "down";
  readonly framing: "length" | "chunked";
  readonly bytes: number;
  readonly timeoutMs: number;
}

/** What node and agent may keep of a body of any size: windows, queues, and what the run-time has not collected yet. */
const growthMaxBytes = 128 * 1024 * 1024;

export async function expectBodyArrives({ transport, direction, framing, bytes, timeoutMs }: BulkCase): Promise<void> {
  await using origin = new NodeProgram("bulk-origin.mjs");
  const { port } = await origin.waitFor("port");
  await using path = await VisitorPath.open({ transport, target: Number(port) });
  using memory = new MemoryWatch([path.node.process.pid, path.agent.process.pid]);
  await using visitor = new NodeProgram("bulk-visitor.mjs", [path.node.port, path.host, direction, bytes, framing]);
  const result = await visitor.waitFor("received", timeoutMs);
  const sent = direction === "up" ? result["sent"] : (await origin.waitFor("sent"))["sent"];
  expect(result).toMatchObject({ status: 200, received: bytes, sha256: sent });
  for (const growth of memory.growthBytes) expect(growth).toBeLessThan(growthMaxBytes);
}
