/** What every transport promises to the multiplexer, on each of them. */

import { describe, expect, test } from "bun:test";
import { Ear, pattern, send, sendFromOneBuffer, sha256 } from "./duplex.fixture.ts";
import { memoryTransport, quicTransport, websocketTransport, type TransportUnderTest } from "./transports.fixture.ts";
import type { Duplex } from "../../src/core/duplex.ts";
import { SallyError } from "../../src/core/errors.ts";
import type { Session } from "../../src/ports/session.ts";

const transports: TransportUnderTest[] = [memoryTransport, websocketTransport, quicTransport];
const never = new AbortController().signal;

/** Lanes of the accepting side in order of arrival, each with an ear from the first moment. */
class Lanes {
  readonly #arrived: Ear[] = [];
  readonly #waiting: ((ear: Ear) => void)[] = [];
  constructor(session: Session, prepare: (ear: Ear) => void = () => {}) {
    session.onLane = (lane: Duplex) => {
      const ear = new Ear(lane);
      prepare(ear);
      const next = this.#waiting.shift();
      if (next === undefined) this.#arrived.push(ear);
      else next(ear);
    };
  }
  next(): Promise<Ear> {
    const first = this.#arrived.shift();
    return first === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(first);
  }
}

async function openPair(session: Session, lanes: Lanes): Promise<{ near: Ear; far: Ear }> {
  const near = new Ear(await session.openLane(never));
  near.duplex.write(pattern(1, 1)); // Some transports show a lane only with its first byte.
  const far = await lanes.next();
  await far.when(() => far.receivedBytes === 1);
  return { near, far };
}

describe.each(transports)("$name", ({ name, holdsWriterBack, open }) => {
  test("both sides say the same about the session", async () => {
    const { agent, node, close } = await open();
    expect([agent.transport, node.transport] as string[]).toEqual([name, name]);
    expect([agent.host, ""]).toContain(node.host); // empty: TLS did not say, so HELLO alone does
    expect(node.exporter).toEqual(agent.exporter);
    expect(node.remote.port).toBeGreaterThan(0);
    expect(agent.isProxied || node.isProxied).toBe(false);
    await close();
  });

  test("lanes that came before anybody listened are delivered when somebody does", async () => {
    const { agent, node, close } = await open();
    const near = new Ear(await agent.openLane(never));
    near.duplex.write(pattern(5, 1));
    await Bun.sleep(30); // so long nobody listens
    const far = await new Lanes(node).next();
    await far.when(() => far.receivedBytes === 5);
    await close();
  });

  test("a buffer that the lane is done with may be filled anew, in both directions", async () => {
    const { agent, node, close } = await open();
    const { near, far } = await openPair(agent, new Lanes(node));
    const up = pattern(3_000_000, 4);
    const down = pattern(3_000_000, 5);
    const [reusedUp, reusedDown] = await Promise.all([sendFromOneBuffer(near, up), sendFromOneBuffer(far, down)]);
    await far.when(() => far.receivedBytes === 1 + up.length);
    await near.when(() => near.receivedBytes === down.length);
    expect(far.sha256()).toBe(sha256(Buffer.concat([pattern(1, 1), up])));
    expect(near.sha256()).toBe(sha256(down));
    expect(reusedUp > 0 && reusedDown > 0).toBe(name !== "memory");
    await close();
  });

  test("several lanes carry megabytes both ways at once, whole and in order", async () => {
    const { agent, node, close } = await open();
    const lanes = new Lanes(node);
    const up = pattern(3_000_000, 2);
    const down = pattern(2_000_000, 3);
    const pairs = [];
    for (let i = 0; i < 4; i++) {
      const near = new Ear(await agent.openLane(never));
      near.duplex.write(up.subarray(0, 1));
      pairs.push({ near, far: await lanes.next() });
    }
    await Promise.all(pairs.flatMap(({ near, far }) => [send(near, up.subarray(1), false), send(far, down, false)]));
    for (const { near, far } of pairs) {
      await far.when(() => far.receivedBytes === up.length);
      await near.when(() => near.receivedBytes === down.length);
      expect(far.sha256()).toBe(sha256(up));
      expect(near.sha256()).toBe(sha256(down));
    }
    await close();
  });

  // QUIC has no flow control on the receiving side here (docs/runtime-facts.md): credit above it does this.
  if (holdsWriterBack) {
    test("a reader that stops holds its writer back on that lane only", async () => {
      const { agent, node, close } = await open();
      let isFirst = true;
      const lanes = new Lanes(node, (ear) => {
        ear.holds = isFirst;
        isFirst = false;
      });
      const slow = await openPair(agent, lanes);
      const quick = await openPair(agent, lanes);
      const bytes = pattern(24 * 1024 * 1024, 4);
      const sending = send(slow.near, bytes, false);
      await send(quick.near, pattern(100_000, 5), false);
      await quick.far.when(() => quick.far.receivedBytes === 100_001);
      expect(slow.far.receivedBytes).toBeLessThan(bytes.length);
      expect(slow.near.duplex.queuedBytes).toBeGreaterThan(0);
      slow.far.release();
      await sending;
      await slow.far.when(() => slow.far.receivedBytes === bytes.length + 1);
      await close();
    });
  }

  test("a reset lane is an error with its code at the peer, silence here, and the other lanes stay", async () => {
    const { agent, node, close } = await open();
    const lanes = new Lanes(node);
    const lost = await openPair(agent, lanes);
    const kept = await openPair(agent, lanes);
    lost.near.duplex.reset(new SallyError("CREDIT_EXCEEDED"));
    await lost.far.when(() => lost.far.isClosed);
    expect(lost.far.closes[0]?.code).toBe("CREDIT_EXCEEDED");
    expect(lost.far.ended).toBe(false);
    kept.far.duplex.write(pattern(10, 1));
    await kept.near.when(() => kept.near.receivedBytes === 10);
    expect(lost.near.closes).toEqual([]);
    await close();
  });

  test("a lane that both sides end closes cleanly on both", async () => {
    const { agent, node, close } = await open();
    const { near, far } = await openPair(agent, new Lanes(node));
    const onEnd = far.onEnd.bind(far);
    far.onEnd = () => {
      onEnd();
      far.duplex.end();
    };
    await send(near, pattern(500_000, 6));
    await far.when(() => far.isClosed);
    await near.when(() => near.isClosed);
    expect(far.receivedBytes).toBe(500_001);
    expect([near.closes, far.closes]).toEqual([[undefined], [undefined]]);
    await close();
  });

  test("a clean close delivers what was queued, and both sides know that it was clean", async () => {
    const { agent, node, close } = await open();
    const { near, far } = await openPair(agent, new Lanes(node));
    near.duplex.write(pattern(200_000, 7));
    agent.close();
    await far.when(() => far.receivedBytes === 200_001);
    expect(await agent.closed).toBeUndefined();
    expect(await node.closed).toBeUndefined();
    await far.when(() => far.isClosed);
    expect(near.closes).toEqual([undefined]);
    expect(far.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
    expect(near.duplex.write(pattern(1, 1))).toBe(true);
    await close();
  });

  test("a close with an error reaches every lane and the other session with its code", async () => {
    const { agent, node, close } = await open();
    const lanes = new Lanes(node);
    const first = await openPair(agent, lanes);
    const second = await openPair(agent, lanes);
    node.close(new SallyError("REPLACED"));
    expect((await node.closed)?.code).toBe("REPLACED");
    expect((await agent.closed)?.code).toBe("REPLACED");
    for (const ear of [first.near, first.far, second.near, second.far]) {
      await ear.when(() => ear.isClosed);
      expect(ear.closes.map((error) => error?.code)).toEqual(["REPLACED"]);
    }
    await close();
  });

  test("after close no lane opens, and an aborted opening rejects", async () => {
    const { agent, close } = await open();
    const aborted = AbortSignal.abort(new SallyError("CANCELLED"));
    const reason = await agent.openLane(aborted).catch((error: unknown) => (error as SallyError).code);
    expect(reason).toBe("CANCELLED");
    agent.close();
    const code = await agent.openLane(never).catch((error: unknown) => (error as SallyError).code);
    expect(code).toBe("LINK_LOST");
    await close();
  });
});
