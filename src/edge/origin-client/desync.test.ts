import { expect, test } from "bun:test";
import fc from "fast-check";
import { utf8Encode } from "../../core/bytes.ts";
import { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import { FakeConnection, FakeExchange, FedBody } from "../fake-exchange.ts";
import type { OriginSide, SeenRequest } from "../fake-origin.ts";
import { settle, TestRig } from "../test-rig.ts";

/** What the origin does with one request. */
const acts = [
  "length",
  "chunked",
  "until-close",
  "close",
  "interim",
  "empty",
  "late",
  "cut",
  "reset",
  "lose",
  "stray",
  "garbage",
] as const;

const stepArbitrary = fc.record({
  method: fc.constantFrom("GET", "POST", "HEAD", "PUT"),
  bodyKind: fc.constantFrom("none", "length", "chunked"),
  act: fc.constantFrom(...acts),
  isEarly: fc.boolean(),
  abortAfter: fc.option(fc.integer({ min: 0, max: 3 }), { nil: undefined }),
  pauseMs: fc.constantFrom(0, 0, 0, 300, 4_500),
  visitor: fc.integer({ min: 0, max: 2 }),
});

function answer(request: { id: string; method: string; act: string }, side: OriginSide): void {
  const text = `reply to ${request.id}`;
  const isHead = request.method === "HEAD";
  const mark = `X-Id: ${request.id}\r\n`;
  const whole = `HTTP/1.1 200 OK\r\n${mark}Content-Length: ${text.length}\r\n\r\n${isHead ? "" : text}`;
  switch (request.act) {
    case "chunked":
      side.say(`HTTP/1.1 200 OK\r\n${mark}Transfer-Encoding: chunked\r\n\r\n`);
      if (!isHead)
        side.say(`5\r\n${text.slice(0, 5)}\r\n${(text.length - 5).toString(16)}\r\n${text.slice(5)}\r\n0\r\n\r\n`);
      break;
    case "until-close":
      side.say(`HTTP/1.1 200 OK\r\n${mark}\r\n${isHead ? "" : text}`);
      side.end();
      break;
    case "close":
      side.say(whole.replace("OK\r\n", "OK\r\nConnection: close\r\n"));
      side.end();
      break;
    case "interim":
      side.say(`HTTP/1.1 103 Early Hints\r\n${mark}\r\n${whole}`);
      break;
    case "empty":
      side.say(`HTTP/1.1 204 No Content\r\n${mark}\r\n`);
      break;
    case "late":
      setTimeout(() => side.say(whole), 0);
      break;
    case "cut":
      side.say(whole.slice(0, whole.length - 3));
      side.end();
      break;
    case "reset":
      side.break();
      break;
    case "lose":
      side.lose();
      break;
    case "stray":
      side.say(`${whole}HTTP/1.1 200 OK\r\nX-Id: nobody\r\nContent-Length: 4\r\n\r\nevil`);
      break;
    case "garbage":
      side.say("220 mail.test ESMTP\r\n");
      break;
    default:
      side.say(whole);
  }
}

test("property: whatever the origin does, no visitor gets the reply to another request", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(stepArbitrary, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 60 }),
      async (steps, chunkBytes) => {
        const executed = new Map<string, number>();
        const planOf = (head: SeenRequest["head"]) => {
          const id = head.headers.get("x-id") ?? "";
          const step = steps[Number(id)];
          return { id, method: head.method, act: step?.act ?? "length", isEarly: step?.isEarly === true };
        };
        const rig = new TestRig(
          {
            onHead(head, side) {
              const plan = planOf(head);
              if (plan.isEarly) answer(plan, side);
            },
            onRequest(request, side) {
              const plan = planOf(request.head);
              executed.set(plan.id, (executed.get(plan.id) ?? 0) + 1);
              if (!plan.isEarly) answer(plan, side);
            },
          },
          { nextChunkBytes: () => chunkBytes },
        );
        const visitors = [new FakeConnection("192.0.2.1"), new FakeConnection("192.0.2.2"), new FakeConnection("::1")];
        const running: Promise<void>[] = [];
        for (const [i, step] of steps.entries()) {
          const exchange = new FakeExchange({
            method: step.method,
            fields: [["X-Id", String(i)]],
            connection: visitors[step.visitor]!, // 0 to 2
            ...bodyOf(step.bodyKind),
          });
          running.push(check(rig, exchange, String(i)));
          for (let turn = 0; turn < (step.abortAfter ?? 0); turn++) await Promise.resolve();
          if (step.abortAfter !== undefined) exchange.abort(new SallyError("VISITOR_GONE"));
          else await settle();
          rig.clock.advance(step.pauseMs);
        }
        await settle();
        await settle();
        rig.clock.advance(limits.replyHeadMs + 1_000);
        await Promise.all(running);
        for (const [id, count] of executed) {
          const step = steps[Number(id)];
          if (step?.method === "POST" || step?.method === "PUT") expect(count).toBe(1);
          else expect(count).toBeLessThanOrEqual(2);
        }
        await settle();
        rig.clock.advance(limits.socketLingerMs + 5_000);
        await settle();
        rig.clock.advance(250);
        expect(rig.client.idleCount("demo")).toBe(0);
        expect(rig.clock.pending).toBe(0);
      },
    ),
    { numRuns: 300 },
  );
}, 120_000);

function bodyOf(kind: "none" | "length" | "chunked"): { body?: Uint8Array | FedBody } {
  if (kind === "none") return {};
  if (kind === "length") return { body: utf8Encode("announced") };
  const body = new FedBody([utf8Encode("piece"), utf8Encode("by piece")]);
  body.feed(null);
  return { body };
}

/** A reply is this request's, or the request fails with an error of the table; a body is never a shorter one. */
async function check(rig: TestRig, exchange: FakeExchange, id: string): Promise<void> {
  try {
    const { reply, text } = await rig.ask(exchange);
    expect(reply.head.headers.get("x-id")).toBe(id);
    const hasBody = exchange.request.method !== "HEAD" && reply.head.status !== 204;
    expect(text).toBe(hasBody ? `reply to ${id}` : "");
    for (const head of exchange.informed) expect(head.headers.get("x-id")).toBe(id);
  } catch (thrown) {
    if (!(thrown instanceof SallyError)) throw thrown;
    expect([
      "ORIGIN_CLOSED",
      "ORIGIN_RESET",
      "ORIGIN_BAD_REPLY",
      "LINK_LOST",
      "VISITOR_GONE",
      "ORIGIN_TIMEOUT",
    ]).toContain(thrown.code);
  }
}
