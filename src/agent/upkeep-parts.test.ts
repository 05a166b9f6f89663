import { describe, expect, test } from "bun:test";
import { settle, StubLink } from "../wire/testing/stub-link.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { Backoff } from "./backoff.ts";
import { CertificateUpkeep } from "./certificate-upkeep.ts";
import { watchClock } from "./clock-watch.ts";
import { classifyFailure } from "./failures.ts";
import { headroomOf, reportHeadroom, smooth } from "./headroom.ts";
import type { GiveUp } from "./link-keeper.ts";
import { PendingRequests } from "./pending-requests.ts";
import { StreamTap, type TappedRequest } from "./tap.ts";
import { Wakeup } from "./wakeup.ts";

const never = new AbortController().signal;

describe("backoff", () => {
  test("doubles up to the cap, with half of it random", () => {
    let random = 0;
    const backoff = new Backoff({ minMs: 200, maxMs: 1_000, random: () => random });
    expect([backoff.nextMs(), backoff.nextMs(), backoff.nextMs(), backoff.nextMs()]).toEqual([100, 200, 400, 500]);
    random = 1;
    expect(backoff.nextMs()).toBe(1_000);
    expect(backoff.nextMs(300)).toBe(300);
    backoff.reset();
    expect(backoff.nextMs()).toBe(200);
  });

  test("is whole milliseconds", () => {
    const backoff = new Backoff({ minMs: 200, maxMs: 1_000, random: () => 0.2202244735891185 });
    expect([backoff.nextMs(), backoff.nextMs()]).toEqual([122, 244]);
  });

  test("never overflows", () => {
    const backoff = new Backoff({ minMs: 200, maxMs: 15_000, random: () => 1 });
    for (let i = 0; i < 2_000; i++) backoff.nextMs();
    expect(backoff.nextMs()).toBe(15_000);
  });
});

describe("a wake-up", () => {
  test("ends a wait early, and is kept when nobody waits yet", async () => {
    const clock = new FakeClock();
    const wakeup = new Wakeup(clock);
    const first = wakeup.wait(1_000, never);
    wakeup.wake();
    expect(await first).toBe("woken");
    wakeup.wake();
    expect(await wakeup.wait(1_000, never)).toBe("woken");
    wakeup.wake();
    wakeup.clear();
    const last = wakeup.wait(1_000, never);
    clock.advance(1_000);
    expect(await last).toBe("elapsed");
    expect(clock.pending).toBe(0);
  });

  test("an abort ends the wait", async () => {
    const controller = new AbortController();
    const waiting = new Wakeup(new FakeClock()).wait(Infinity, controller.signal);
    controller.abort();
    expect(await waiting).toBe("woken");
  });
});

describe("the watch over the clock", () => {
  test("sees a wall clock that ran on while the process stood still, and nothing else", () => {
    const clock = new FakeClock();
    let offsetMs = 0;
    const slept: number[] = [];
    const jumping = {
      wallMs: () => clock.wallMs() + offsetMs,
      nowMs: () => clock.nowMs(),
      after: (delayMs: number, callback: () => void) => clock.after(delayMs, callback),
    };
    const stop = watchClock(jumping, (ms) => void slept.push(ms));
    clock.advance(30_000);
    expect(slept).toEqual([]);
    offsetMs = 9_000;
    clock.advance(1_000);
    expect(slept).toEqual([]);
    offsetMs += 3_600_000;
    clock.advance(1_000);
    expect(slept).toEqual([3_600_000]);
    clock.advance(5_000);
    expect(slept).toHaveLength(1);
    stop();
    expect(clock.pending).toBe(0);
  });
});

describe("headroom", () => {
  test("is the scarcer of processor time and promptness", () => {
    expect(headroomOf({ loadAverage: 0, processors: 2 }, 0)).toBe(1);
    expect(headroomOf({ loadAverage: 1, processors: 2 }, 0)).toBe(0.5);
    expect(headroomOf({ loadAverage: 9, processors: 2 }, 0)).toBe(0);
    expect(headroomOf({ loadAverage: 9, cpuShare: 0.25, processors: 2 }, 0)).toBe(0.75);
    expect(headroomOf({ loadAverage: 0, processors: 2 }, 50)).toBe(0.5);
    expect(headroomOf({ loadAverage: 0, processors: 0 }, -5)).toBe(1);
  });

  test("one busy second is smoothed", () => {
    expect(smooth(undefined, 0.3)).toBe(0.3);
    expect(smooth(1, 0)).toBeCloseTo(0.6);
  });

  test("is sent when it changes, and every five seconds", () => {
    const clock = new FakeClock();
    const sent: number[] = [];
    let cpuShare = 0;
    const stop = reportHeadroom({
      clock,
      readLoad: () => ({ loadAverage: 0, processors: 1, cpuShare }),
      send: (value) => void sent.push(value),
    });
    clock.advance(6_000);
    expect(sent).toEqual([1, 1]);
    cpuShare = 1;
    clock.advance(1_000);
    expect(sent).toEqual([1, 1, 0.6]);
    stop();
    expect(clock.pending).toBe(0);
  });
});

describe("failures", () => {
  test("what a user must change is fatal, what passes by itself is not", () => {
    const kind = (code: SallyError["code"], wasLinked = false): string =>
      classifyFailure(new SallyError(code), wasLinked);
    for (const code of ["AUTH_FAILED", "TOKEN_INVALID", "CERTIFICATE_REVOKED", "NAME_TAKEN", "REPLACED"] as const) {
      expect(kind(code, true)).toBe("fatal");
    }
    for (const code of ["CONNECT_FAILED", "LINK_LOST", "DRAINING", "VERSION_MISMATCH", "INTERNAL"] as const) {
      expect(kind(code)).toBe("retry");
    }
    expect(kind("CERTIFICATE_INVALID")).toBe("renew");
    expect([kind("CA_MISMATCH"), kind("CA_MISMATCH", true)]).toEqual(["fatal", "retry"]);
  });
});

describe("pending requests", () => {
  test("are answered by id on their own link, and end with the link or the time-out", async () => {
    const clock = new FakeClock();
    const pending = new PendingRequests<{ readonly n: number }>(clock);
    const [link, other] = [new StubLink(), new StubLink()];
    const ids: number[] = [];
    const ask = () => pending.ask(link, 1_000, (id) => void ids.push(id)).catch((error: SallyError) => error.code);
    const answers = [ask(), ask(), ask()];
    pending.answer(other, ids[0]!, { n: 9 });
    pending.answer(link, ids[0]!, { n: 1 });
    expect(await answers[0]).toEqual({ n: 1 });
    clock.advance(1_000);
    expect(await answers[1]).toBe("CONNECT_TIMEOUT");
    const last = ask();
    pending.linkClosed(link, new SallyError("LINK_IDLE"));
    expect(await last).toBe("LINK_IDLE");
    link.close();
    expect(await ask()).toBe("LINK_LOST");
    expect(pending.size).toBe(0);
    expect(clock.pending).toBe(0);
  });
});

describe("certificate upkeep", () => {
  function setUp(renew: () => Promise<void>, lifeMs = 1_000_000) {
    const clock = new FakeClock();
    const startMs = clock.wallMs();
    let validity = { notBeforeMs: startMs, notAfterMs: startMs + lifeMs };
    let renewals = 0;
    let news = 0;
    const upkeep = new CertificateUpkeep({
      clock,
      log: silentLogger,
      validity: () => validity,
      renew: async () => {
        renewals++;
        await renew();
        validity = { notBeforeMs: clock.wallMs(), notAfterMs: clock.wallMs() + lifeMs };
      },
      onRenewed: () => news++,
    });
    return { clock, upkeep, count: () => ({ renewals, news }) };
  }

  async function advance(clock: FakeClock, ms: number, stepMs = 30_000): Promise<void> {
    for (let done = 0; done < ms; done += stepMs) {
      clock.advance(stepMs);
      await settle();
    }
  }

  test("renews at half of the life, and says so", async () => {
    const { clock, upkeep, count } = setUp(async () => {});
    const controller = new AbortController();
    const running = upkeep.run(controller.signal).catch(() => "stopped");
    await advance(clock, 480_000);
    expect(count()).toEqual({ renewals: 0, news: 0 });
    await advance(clock, 60_000);
    expect(count()).toEqual({ renewals: 1, news: 1 });
    await advance(clock, 400_000);
    expect(count().renewals).toBe(1);
    controller.abort();
    expect(await running).toBe("stopped");
  });

  test("a certificate that lives for seconds is renewed in time, too", async () => {
    const { clock, upkeep, count } = setUp(async () => {}, 4_000);
    const controller = new AbortController();
    const running = upkeep.run(controller.signal).catch(() => "stopped");
    await advance(clock, 1_500, 100);
    expect(count().renewals).toBe(0);
    await advance(clock, 1_500, 100);
    expect(count().renewals).toBe(1);
    await advance(clock, 6_000, 100);
    expect(count().renewals).toBe(4);
    controller.abort();
    await running;
  });

  test("a life of nothing is no tight loop", async () => {
    const { clock, upkeep, count } = setUp(async () => {}, 0);
    const controller = new AbortController();
    const running = upkeep.run(controller.signal).catch(() => "stopped");
    await advance(clock, 1_000, 10);
    expect(count().renewals).toBeLessThanOrEqual(4);
    controller.abort();
    await running;
  });

  test("asks again when the node cannot be reached, and gives up when it refuses", async () => {
    let code: SallyError["code"] = "CONNECT_FAILED";
    const { clock, upkeep, count } = setUp(() => Promise.reject(new SallyError(code)));
    const running = upkeep.run(never).catch((error: GiveUp) => error.reason.code);
    await advance(clock, 600_000);
    expect(count().renewals).toBeGreaterThan(2);
    code = "TOKEN_INVALID";
    await advance(clock, 60_000);
    expect(await running).toBe("TOKEN_INVALID");
  });

  test("an expired certificate is renewed before the link; a current one is left alone", async () => {
    const { clock, upkeep, count } = setUp(async () => {});
    await upkeep.prepare(never);
    expect(count().renewals).toBe(0);
    clock.advance(1_000_000);
    await upkeep.prepare(never);
    expect(count().renewals).toBe(1);
  });

  test("a node that still says invalid is asked for another only after a while", async () => {
    const { clock, upkeep } = setUp(async () => {});
    expect(await upkeep.replace(never)).toBe(true);
    clock.advance(limits.renewAgainAfterMs - 1);
    expect(await upkeep.replace(never)).toBe(false);
    clock.advance(1);
    expect(await upkeep.replace(never)).toBe(true);
  });
});

describe("a tap", () => {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

  function setUp() {
    const clock = new FakeClock();
    const seen: TappedRequest[] = [];
    return { clock, seen, tap: new StreamTap("demo", clock, (request) => void seen.push(request)) };
  }

  test("sees each request of a kept stream once, with its status and time", () => {
    const { clock, seen, tap } = setUp();
    for (const [method, target, status] of [
      ["GET", "/a?b=1", 200],
      ["POST", "/c", 404],
    ] as const) {
      tap.toOrigin(bytes(`${method} ${target} HTTP/1.1\r\nHost: x\r\n\r\n`));
      tap.toOrigin(bytes("GET /not-a-head HTTP/1.1\r\n"));
      clock.advance(5);
      tap.fromOrigin(bytes(`HTTP/1.1 ${status} Text\r\n\r\nbody`));
      tap.fromOrigin(bytes("HTTP/1.1 500 in a body\r\n"));
    }
    expect(seen).toEqual([
      { tunnel: "demo", method: "GET", target: "/a?b=1", status: 200, durationMs: 5 },
      { tunnel: "demo", method: "POST", target: "/c", status: 404, durationMs: 5 },
    ]);
  });

  test("passes over interim replies, and is deaf after an upgrade", () => {
    const { seen, tap } = setUp();
    tap.toOrigin(bytes("GET / HTTP/1.1\r\n\r\n"));
    tap.fromOrigin(bytes("HTTP/1.1 103 Early Hints\r\n\r\n"));
    tap.fromOrigin(bytes("HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    tap.toOrigin(bytes("GET /smuggled HTTP/1.1\r\n\r\n"));
    tap.fromOrigin(bytes("HTTP/1.1 200 OK\r\n\r\n"));
    expect(seen).toMatchObject([{ target: "/", status: 101 }]);
  });

  test("keeps no more of a long line than its bound", () => {
    const { seen, tap } = setUp();
    tap.toOrigin(bytes(`GET /${"a".repeat(2 * limits.tappedLineBytes)} HTTP/1.1\r\n\r\n`));
    tap.fromOrigin(bytes("HTTP/1.1 200 OK\r\n\r\n"));
    expect(seen[0]?.target.length).toBe(limits.tappedLineBytes - "GET ".length);
  });

  test("bytes that are not HTTP are let pass", () => {
    const { seen, tap } = setUp();
    tap.toOrigin(new Uint8Array([22, 3, 1, 0]));
    tap.fromOrigin(new Uint8Array([22, 3, 3, 0]));
    tap.toOrigin(new Uint8Array(0));
    expect(seen).toEqual([]);
  });
});
