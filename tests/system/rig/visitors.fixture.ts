/**
 * Visitors as a program of its own: PORT HOST SEED KEPT FRESH, and `safe` for GET only. Each answer is an event; a line on
 * stdin stops them, and the last event is the summary.
 */

import { Seeded } from "../../support/seeded.ts";
import { VisitorLoad, type Outcome } from "../../support/visitor-load.ts";

const [port, host = "", seed, kept, fresh, safety] = process.argv.slice(2);
const say = (event: object): void => void process.stdout.write(`${JSON.stringify(event)}\n`);

const load = new VisitorLoad({
  port: Number(port),
  host,
  seeded: new Seeded(Number(seed)),
  kept: Number(kept),
  fresh: Number(fresh),
  isSafe: safety === "safe",
  onOutcome: (outcome: Outcome) => say({ event: "outcome", ...outcome, endedAtMs: Date.now() }),
});
for await (const _stop of process.stdin) break;
await load.stop();
say({ event: "stopped", summary: load.summary });
process.exit(0);
