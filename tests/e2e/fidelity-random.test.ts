/** Conversations drawn by chance, many at a time, each message compared with what was planned. */

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { answerAsPlanned, drawPlan, encodeRequest, readPlanned } from "../support/conversation.ts";
import { drawSeed } from "../support/seeded.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(120_000);

const visitors = 12;
const rounds = Number(process.env["SALLY_ROUNDS"] ?? 12);

describe.each([...transports])("over %s", (transport) => {
  test("every request arrives as it was sent and gets its own reply, once", async () => {
    const seed = drawSeed("fidelity-random");
    await using path = await VisitorPath.open({ transport });
    const executed = new Map<string, number>();
    const troubles: unknown[] = [];
    path.origin.onConnection = (connection) => {
      const answering = answerAsPlanned(connection, ({ id }) => executed.set(id, (executed.get(id) ?? 0) + 1));
      answering.catch((thrown: unknown) => troubles.push(thrown));
    };
    let sent = 0;
    const talk = async (name: string): Promise<void> => {
      const chance = seed.fork();
      const visitor = await path.visit();
      for (let round = 0; round < rounds; round++) {
        const plans = Array.from({ length: chance.between(1, 6) }, (_, n) => drawPlan(chance, `${name}-${round}-${n}`));
        const bytes = plans.map((plan) => encodeRequest(plan, path.host, chance)).join("");
        const cuts = chance.pick([1, 1, 3, 10]);
        const step = Math.ceil(bytes.length / cuts);
        for (let at = 0; at < bytes.length; at += step) {
          if (at > 0) await Bun.sleep(0); // a piece by itself
          visitor.write(bytes.slice(at, at + step));
        }
        for (const plan of plans) await readPlanned(visitor, plan);
        sent += plans.length;
      }
      expect(visitor.unread).toBe("");
    };
    const over = new AbortController();
    /** Breaks off anywhere, again and again: nobody else may notice. */
    const disturb = async (name: string): Promise<void> => {
      const chance = seed.fork();
      for (let n = 0; !over.signal.aborted; n++) {
        const visitor = await path.visit();
        const plans = Array.from({ length: chance.between(1, 3) }, (_, k) => drawPlan(chance, `${name}-${n}-${k}`));
        const bytes = plans.map((plan) => encodeRequest(plan, path.host, chance)).join("");
        visitor.write(bytes.slice(0, chance.between(1, bytes.length)));
        await Bun.sleep(chance.between(0, 20)); // the random moment
        if (chance.next() < 0.5) visitor.reset();
        else visitor.close();
      }
    };
    const disturbing = Promise.all(["rude", "ruder"].map(disturb));
    await Promise.all(Array.from({ length: visitors }, (_, n) => talk(`v${n}`)));
    over.abort();
    await disturbing;
    for (const id of executed.keys()) if (id.startsWith("rude")) executed.delete(id);
    expect(troubles).toEqual([]);
    expect(executed.size).toBe(sent);
    expect([...executed.values()].filter((count) => count !== 1)).toEqual([]);
  });
});
