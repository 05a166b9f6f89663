/** Requests that find a link full, or no memory: whose idle stream goes, who takes what becomes free, and in which order. */

import { describe, expect, test } from "bun:test";
import { utf8Encode } from "../../core/bytes.ts";
import { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import { FakeExchange } from "../fake-exchange.ts";
import { deadlineTickMs } from "./deadlines.ts";
import type { OriginSide } from "../fake-origin.ts";
import { codeOf, demoTunnel, settle, TestRig } from "../test-rig.ts";

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const other = { ...demoTunnel, name: "other" };
const third = { ...demoTunnel, name: "third" };

/** Answers nothing by itself: `answer` does, in the order of the streams. */
function heldRig(room: { places?: number; windows?: number }): TestRig {
  const rig = new TestRig({ onRequest() {} });
  Object.assign(rig.origin, room);
  return rig;
}

const isOpen = (side: OriginSide): boolean => !side.isGone && !side.hasEdgeEnded;
const targets = (rig: TestRig): string[] =>
  rig.origin.requests.map(({ head, stream }) => `${head.target} on ${stream}`);
const get = (target: string): FakeExchange => new FakeExchange({ target });

describe("a request that finds its link full", () => {
  test("gets the place of the idle stream that is oldest, of whatever tunnel, once the far side has closed it", async () => {
    const rig = new TestRig();
    rig.origin.places = 2;
    await rig.ask();
    rig.clock.advance(1);
    await rig.ask({}, other);
    const [oldest, newer] = rig.origin.streams;
    oldest!.isHeld = true; // its end is on the way
    const asked = rig.ask({}, third);
    await settle();
    expect([isOpen(oldest!), isOpen(newer!)]).toEqual([false, true]);
    expect(rig.origin.requests.length).toBe(2);
    oldest!.isHeld = false;
    expect((await asked).text).toBe("ok");
    expect(rig.client.idleCount("other")).toBe(1);
  });

  test("waits a second for an origin that does not end its side, no longer", async () => {
    const rig = new TestRig();
    rig.origin.places = 1;
    await rig.ask();
    rig.origin.last.isHeld = true;
    const asked = rig.ask({}, other);
    await settle();
    rig.clock.advance(limits.givenUpLingerMs - 1);
    await settle();
    expect(rig.origin.streams).toHaveLength(2);
    expect(rig.origin.requests).toHaveLength(1);
    rig.clock.advance(deadlineTickMs + 1);
    await settle();
    rig.origin.streams[0]!.isHeld = false; // the reset arrives
    expect((await asked).text).toBe("ok");
    expect(rig.origin.streams[0]!.closeError).toBeDefined();
  });

  test("is too much load while all streams are busy, and each idle one makes room for one", async () => {
    const rig = heldRig({ places: 2 });
    const running = [rig.send(get("/a")), rig.send(get("/b"))];
    expect(await codeOf(rig.send(get("/c"), other))).toBe("OVERLOADED");
    await settle();
    rig.origin.streams[0]!.say(ok);
    await running[0];
    const next = rig.send(get("/d"), other);
    expect(await codeOf(rig.send(get("/e"), other))).toBe("OVERLOADED");
    await settle();
    rig.origin.last.say(ok);
    expect((await next).kind).toBe("message");
    expect(targets(rig)).toEqual(["/a on 1", "/b on 2", "/d on 3"]);
  });

  test("takes the place of one that retires at that moment", async () => {
    const rig = new TestRig();
    rig.origin.places = 1;
    await rig.ask();
    rig.origin.last.isHeld = true;
    rig.origin.reclaim();
    rig.client.retireTunnel("demo");
    expect(rig.client.idleCount("demo")).toBe(0);
    const asked = rig.ask({}, other);
    await settle();
    rig.origin.streams[0]!.isHeld = false;
    expect((await asked).text).toBe("ok");
  });

  test("leaves idle streams that authenticated their visitor to that visitor", async () => {
    const rig = new TestRig();
    rig.origin.places = 1;
    await rig.ask({ fields: [["Authorization", "NTLM abc"]] });
    expect(await codeOf(rig.send(get("/"), other))).toBe("OVERLOADED");
    expect(isOpen(rig.origin.last)).toBe(true);
  });

  test("does not look for a place on another link", async () => {
    const rig = heldRig({ places: 1 });
    const first = rig.send(get("/first"));
    await settle();
    rig.origin.last.say(ok);
    await first;
    rig.origin.links = ["link-2"];
    void rig.send(get("/second"), other);
    expect(await codeOf(rig.send(get("/third"), third))).toBe("OVERLOADED");
    expect(rig.client.idleCount("demo")).toBe(1);
  });
});

describe("a request that waits", () => {
  test("for memory makes an idle stream of its owner's go, not one of another's", async () => {
    const rig = new TestRig();
    rig.origin.windows = 2;
    rig.origin.owner = "bob";
    await rig.ask({}, other);
    rig.origin.owner = "ann";
    await rig.ask();
    expect((await rig.ask({}, third)).text).toBe("ok");
    expect([rig.client.idleCount("other"), rig.client.idleCount("demo")]).toEqual([1, 0]);
  });

  test("goes on over a stream of its tunnel that becomes free, body and all, and its own is never opened", async () => {
    const rig = heldRig({ windows: 1 });
    const first = rig.send(get("/first"));
    const second = rig.send(new FakeExchange({ method: "POST", target: "/second", body: utf8Encode("body") }));
    await settle();
    rig.origin.streams[0]!.say(ok);
    await first;
    await settle();
    expect(rig.origin.requests.map(({ body }) => body)).toEqual(["", "body"]);
    expect(targets(rig)).toEqual(["/first on 1", "/second on 1"]);
    rig.origin.streams[0]!.say(ok);
    expect((await second).kind).toBe("message");
    await settle();
    expect([rig.origin.streams[1]!.isGone, rig.origin.streams[1]!.receivedBytes]).toEqual([true, 0]);
    expect(rig.client.idleCount("demo")).toBe(1);
  });

  test("has its turn: what becomes free serves the first of its tunnel, or makes room if another tunnel's came before", async () => {
    const rig = heldRig({ windows: 1 });
    const sent = [rig.send(get("/1")), rig.send(get("/2")), rig.send(get("/3"), other), rig.send(get("/4"))];
    for (let n = 0; n < sent.length; n++) {
      await settle();
      rig.origin.streams.find((side) => isOpen(side) && !side.edge.isWaiting)!.say(ok);
    }
    await Promise.all(sent);
    expect(targets(rig)).toEqual(["/1 on 1", "/2 on 1", "/3 on 3", "/4 on 4"]);
  });

  test("waits for what it dialled where the visitor left too much of its body to send it again", async () => {
    const rig = heldRig({ windows: 1 });
    const first = rig.send(get("/first"));
    const large = rig.send(new FakeExchange({ method: "POST", target: "/large", body: new Uint8Array(100_000) }));
    await settle();
    rig.origin.streams[0]!.say(ok);
    await first;
    await settle();
    expect(targets(rig)).toEqual(["/first on 1", "/large on 2"]);
    rig.origin.last.say(ok);
    await large;
  });

  test("and whose visitor leaves takes nothing", async () => {
    const rig = heldRig({ windows: 1 });
    const first = rig.send(get("/first"));
    const exchange = get("/gone");
    const gone = rig.send(exchange);
    exchange.abort(new SallyError("VISITOR_GONE"));
    expect(await codeOf(gone)).toBe("VISITOR_GONE");
    await settle();
    rig.origin.streams[0]!.say(ok);
    await first;
    await settle();
    expect(rig.client.idleCount("demo")).toBe(1);
    expect(targets(rig)).toEqual(["/first on 1"]);
  });

  test("gets no stream from before its name changed hands", async () => {
    const rig = heldRig({ windows: 1 });
    const first = rig.send(get("/first"));
    void rig.send(get("/second"));
    await settle();
    rig.origin.reclaim();
    rig.origin.streams[0]!.say(ok);
    await first;
    await settle();
    expect(targets(rig)).toEqual(["/first on 1", "/second on 2"]);
  });

  test("gets no stream that was pinned to a visitor", async () => {
    const rig = heldRig({ windows: 1 });
    const first = rig.send(get("/first"));
    void rig.send(get("/second"));
    await settle();
    rig.origin.streams[0]!.say("HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n");
    await first;
    await settle();
    expect(targets(rig)).toEqual(["/first on 1"]);
    rig.origin.streams[0]!.end();
    await settle();
    expect(targets(rig)).toEqual(["/first on 1", "/second on 2"]);
  });
});
