import { join } from "node:path";
import { expect, test } from "bun:test";
import { CheckedOrigin } from "../support/checked-origin.ts";
import { note, overBoth } from "../support/fault-rig.ts";
import { JsonProcess, Scratch, startNode } from "../support/sally.ts";
import { until } from "../support/until.ts";
import { Visitor } from "../support/visitor-load.ts";

const warmUps = 20;
const reconnects = 200;
/** Of the heap after the warm-up. A link that stayed behind would be seen: each has some five hundred objects. */
const growthMax = 1.1;

interface Heap {
  readonly objects: number;
  readonly heapMb: number;
  readonly residentMb: number;
}

/** What is left after a collection. */
async function heapOf(program: JsonProcess): Promise<Heap> {
  const report = program.waitForNext(({ event }) => event === "heap");
  program.kill("SIGUSR2");
  return (await report) as unknown as Heap; // as heap-report.fixture.ts writes it
}

test(
  `${reconnects} reconnects leave the memory of agent and node as it was`,
  overBoth(async (transport) => {
    await using origin = await CheckedOrigin.listen();
    await using node = await startNode({
      runtimeArgs: ["--preload", join(import.meta.dir, "heap-report.fixture.ts")],
    });
    using home = new Scratch();
    const fixture = join(import.meta.dir, "fast-agent.fixture.ts");
    const args = [node.tunnel, node.tokenFile, home.path, transport, `127.0.0.1:${origin.port}`];
    await using agent = new JsonProcess([process.execPath, fixture, ...args]);
    await agent.waitFor("tunnel");
    using visitor = new Visitor({ port: node.port, host: `demo.localhost:${node.port}` });
    const reconnect = async (): Promise<void> => {
      const up = agent.waitForNext(({ event, state }) => event === "link" && state === "up");
      agent.writeLine("sleep");
      await up;
      // On a busy machine three tenths of a second of silence are soon over, and that is when its links are dead.
      await until("an answer", async () => (await visitor.get(1_000)).kind === "right");
    };
    for (let i = 0; i < warmUps; i++) await reconnect();
    const programs = { node: node.process, agent };
    const before = { node: await heapOf(programs.node), agent: await heapOf(programs.agent) };
    for (let i = 0; i < reconnects; i++) await reconnect();
    for (const name of ["node", "agent"] as const) {
      let after = await heapOf(programs[name]);
      note(`${transport} ${name}: ${JSON.stringify(before[name])} then ${JSON.stringify(after)}`);
      await until(`${name}'s heap is as it was`, async () => {
        after = await heapOf(programs[name]);
        return after.objects < before[name].objects * growthMax;
      });
      // Buffers are not in that count, and the allocator keeps what it once had; leaked links would be a hundred megabytes.
      expect(after.residentMb).toBeLessThan(before[name].residentMb + 60);
    }
  }),
);
