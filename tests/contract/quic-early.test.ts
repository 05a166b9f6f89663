/** What leaves before the QUIC handshake is over: on resumed connections, on new ones, refused, replayed, unanswered. */

import { expect, test } from "bun:test";
import { codeOf, der, never, quicWorld, Recorder, splitPackets, until, type QuicWorld } from "./quic.fixture.ts";
import { websocketWorld } from "./transports.fixture.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Duplex } from "../../src/core/duplex.ts";
import { SallyError } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import type { Session } from "../../src/ports/session.ts";
import { createDialler } from "../../src/transport/dialler.ts";
import type { QuicConnector } from "../../src/transport/quic/connector.ts";
import { createWebsocketConnector } from "../../src/transport/websocket/connector.ts";
import { firstFlight, UdpPath } from "../support/udp-path.ts";

/** What an agent says on lanes that it opens before the node has answered, and what comes back on them. */
class Greeting {
  readonly sessions: Session[] = [];
  readonly heard: Recorder[] = [];
  readonly #texts: readonly string[];
  readonly #lanes: number;
  #begun: Promise<unknown> = Promise.resolve();

  constructor(texts: readonly string[], lanes = 1) {
    this.#texts = texts;
    this.#lanes = lanes;
  }

  readonly greet = (session: Session): void => {
    this.sessions.push(session);
    for (let i = 0; i < this.#lanes; i++) {
      const opened = session.openLane(never).then((lane: Duplex) => {
        this.heard.push(new Recorder(lane));
        for (const text of this.#texts) lane.write(Buffer.from(text));
        return lane;
      });
      opened.catch(() => {});
      this.#begun = opened;
    }
  };

  /** The last lane. */
  get lane(): Promise<Duplex> {
    return this.#begun as Promise<Duplex>; // set by greet
  }
}

/** Leaves a ticket with the connector: what the node says later than that has arrived too. */
async function visit(world: QuicWorld, connector: QuicConnector): Promise<void> {
  const { agent, node } = await world.pair(connector);
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  await node.lane(0);
  node.pipes[0]!.write(Buffer.from("!")); // its lane is here
  await heard.until("the answer", () => heard.text.startsWith("!"));
  agent.close();
  await agent.closed;
}

test("who comes back is answered before the handshake is over, each time", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  await visit(world, world.connector);
  for (let time = 1; time <= 3; time++) {
    const greeting = new Greeting(["early "]);
    const agent = await world.connector.connect(never, greeting.greet);
    expect(greeting.sessions as unknown[]).toEqual([agent]);
    expect(agent.early).toBe("accepted");
    expect(agent.peerCertificate).toEqual(der(world.nodeTls.certPem));
    (await greeting.lane).write(Buffer.from("late"));
    const heard = greeting.heard[0]!;
    await heard.until("the echo", () => heard.text === "early late");
    expect(world.sessions[time]!.session.peerCertificate).toEqual(der(world.agentTls.certPem));
    await until("the proof", () => world.listener.earlyCount === 0, 5_000);
    agent.close();
    await agent.closed;
  }
});

test("a first connection may be written to at once too, and says nothing before the node is authenticated", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  const greeting = new Greeting(["at once"]);
  let whenHeard: Uint8Array | undefined;
  const agent = await world.connector.connect(never, (session) => {
    greeting.greet(session);
    void greeting.lane.then(() => {
      const heard = greeting.heard[0]!;
      const onData = heard.onData.bind(heard);
      heard.onData = (chunk) => {
        whenHeard = session.peerCertificate;
        onData(chunk);
      };
    });
  });
  expect(agent.early).toBe("none");
  await greeting.heard[0]!.until("the echo", () => greeting.heard[0]!.text === "at once");
  expect(whenHeard).toEqual(der(world.nodeTls.certPem));
  expect(world.listener.earlyCount).toBe(0);
});

test("without a greeting nothing leaves early", async () => {
  await using world = await quicWorld();
  await visit(world, world.connector);
  const { agent } = await world.pair();
  expect(agent.early).toBe("none");
});

test("a ticket is not used with another certificate than the one it was given to", async () => {
  await using world = await quicWorld();
  let tls = world.agentTls;
  const connector = world.connectorWith({ tls: () => tls });
  await visit(world, connector);
  tls = { ...(await world.authority.issue({ role: "agent" })), caPem: tls.caPem };
  const agent = await connector.connect(never, new Greeting(["hello"]).greet);
  expect(agent.early).toBe("none");
  await until("the session", () => world.sessions.length === 2, 5_000);
  expect(world.sessions[1]!.session.peerCertificate).toEqual(der(tls.certPem));
});

test("a ticket that is too old is not used: with an expired one node:quic does not even connect", async () => {
  await using world = await quicWorld();
  let laterMs = 0;
  const clock = { ...systemClock, wallMs: () => Date.now() + laterMs };
  const connector = world.connectorWith({ clock });
  await visit(world, connector);
  laterMs = 25 * 60 * 60 * 1_000;
  const agent = await connector.connect(never, new Greeting(["hello"]).greet);
  expect(agent.early).toBe("none");
});

test.each([true, false])(
  "early data that is not taken (allowed: %p) is sent again, once and in order",
  async (earlyData) => {
    await using world = await quicWorld({ recorder: { echoes: true } });
    await visit(world, world.connector);
    await world.listener.close();
    // A new listener does not know the old tickets.
    const { port } = world.listener.address;
    await using successor = await quicWorld({
      listen: { earlyData, port, tls: world.nodeTls },
      recorder: { echoes: true },
    });
    const big = "x".repeat(60 * 1024); // more than may go early
    const greeting = new Greeting(["early ", big, " end"], 2);
    const agent = await world.connector.connect(never, greeting.greet);
    expect(agent.early).toBe("rejected");
    await until("the lanes", () => greeting.heard.length === 2, 5_000);
    for (const record of greeting.heard) {
      await record.until("the echo", () => record.text.endsWith(" end"));
      expect(record.text).toBe(`early ${big} end`);
      expect(record.closes).toEqual([]);
    }
    expect(successor.sessions).toHaveLength(1);
    expect(successor.sessions[0]!.lanes).toHaveLength(2);
    expect(successor.listener.earlyCount).toBe(0);
  },
);

test("a node that does not answer is a time-out, also for what left early", async () => {
  await using world = await quicWorld();
  await using path = await UdpPath.to(world.listener.address);
  const connector = world.connectorWith({ address: path.address, connectMs: 1_000 });
  await visit(world, connector);
  path.isCut = true;
  const greeting = new Greeting(["early"]);
  expect(await codeOf(connector.connect(never, greeting.greet))).toBe("CONNECT_TIMEOUT");
  await greeting.lane;
  const heard = greeting.heard[0]!;
  await heard.until("the end", () => heard.closes.length === 1);
});

test("a ticket that nobody answered is good for another attempt, but not for ever", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  await using path = await UdpPath.to(world.listener.address);
  const connector = world.connectorWith({ address: path.address });
  await visit(world, connector);
  for (let time = 1; time <= 4; time++) await giveUp(path, connector);
  const fifth = await connector.connect(never, new Greeting(["early"]).greet);
  expect(fifth.early).toBe("accepted");
  fifth.close();
  await fifth.closed;
  for (let time = 1; time <= 5; time++) await giveUp(path, connector);
  const sixth = await connector.connect(never, new Greeting(["early"]).greet);
  expect(sixth.early).toBe("none");
});

test("QUIC that nobody answers does not hold back WebSocket, whatever left early", async () => {
  await using world = await quicWorld();
  await using path = await UdpPath.to(world.listener.address);
  const quic = world.connectorWith({ address: path.address });
  await visit(world, quic);
  const socket = await websocketWorld();
  const websocket = createWebsocketConnector({ url: socket.url, tls: socket.clientTls });
  const dialler = createDialler({ quic, websocket, mode: "auto", clock: systemClock, log: silentLogger, limits });
  path.isCut = true;
  const greeting = new Greeting(["early"]);
  const startedMs = performance.now();
  const session = await dialler.connect(never, greeting.greet);
  expect(session.transport).toBe("websocket");
  expect(performance.now() - startedMs).toBeLessThan(limits.connectMs / 2);
  expect(greeting.sessions.map(({ transport }) => transport)).toEqual(["quic"]);
  expect((await greeting.sessions[0]!.closed)?.code).toBe("CANCELLED");
  session.close();
  await socket.close();
});

/** Opens a resumed connection that nobody answers, gives it up, and returns its first flight. */
async function giveUp(path: UdpPath, connector: QuicConnector): Promise<Uint8Array[]> {
  path.isCut = true;
  path.recording = [];
  const stop = new AbortController();
  const greeting = new Greeting(["early ".repeat(200)]); // does not fit into the packet that opens the connection
  const attempt = codeOf(connector.connect(stop.signal, greeting.greet));
  await until("the first flight", () => firstFlight(path.recording ?? []) !== undefined, 5_000);
  stop.abort(new SallyError("CANCELLED"));
  expect(await attempt).toBe("CANCELLED");
  path.isCut = false;
  return firstFlight(path.recording)!; // waited for above
}

test.each(["as it was", "one packet at a time"])(
  "a replayed first flight, %s, takes a place and is given up at the time limit",
  async (how) => {
    await using world = await quicWorld({ listen: { handshakeMs: 1_500 }, recorder: { echoes: true } });
    await using path = await UdpPath.to(world.listener.address);
    const connector = world.connectorWith({ address: path.address });
    await visit(world, connector);
    const flight = await giveUp(path, connector);
    using replay = await path.replay(how === "as it was" ? flight : flight.flatMap(splitPackets));
    await until("the node to take it for a connection", () => world.listener.earlyCount === 1, 5_000);
    expect(world.listener.sessionCount).toBe(1);
    const [, replayed] = world.sessions;
    // Our time limit, or that of node:quic, whichever is looked at first.
    expect(["REQUEST_TIMEOUT", "LINK_LOST"]).toContain((await replayed!.session.closed)?.code ?? "none");
    await until("room", () => world.listener.earlyCount === 0 && world.listener.sessionCount === 0, 5_000);
    // Little goes to somebody whose address was forged, and it is over soon.
    expect(replay.answeredBytes).toBeLessThan(16 * 1024);
    expect(world.sessions).toHaveLength(2);
  },
);

test("beyond the places for early data it waits for proof that it is no replay", async () => {
  await using world = await quicWorld({ listen: { earlyMax: 1 }, recorder: { echoes: true } });
  await using path = await UdpPath.to(world.listener.address);
  const connector = world.connectorWith({ address: path.address });
  await visit(world, connector);
  const flight = await giveUp(path, connector);
  using _replay = await path.replay(flight);
  await until("the replay to take the place", () => world.listener.earlyCount === 1, 5_000);
  const greeting = new Greeting(["early"]);
  const agent = await connector.connect(never, greeting.greet);
  expect(agent.early).toBe("accepted");
  await greeting.heard[0]!.until("the echo", () => greeting.heard[0]!.text === "early");
  expect(world.listener.earlyCount).toBe(1);
  expect(world.sessions[2]!.lanes).toHaveLength(1);
});

test("a replay beyond the places is not even handed up", async () => {
  await using world = await quicWorld({ listen: { earlyMax: 0, handshakeMs: 1_500 } });
  await using path = await UdpPath.to(world.listener.address);
  const connector = world.connectorWith({ address: path.address });
  await visit(world, connector);
  const flight = await giveUp(path, connector);
  using _replay = await path.replay(flight);
  await until("the node to take it for a connection", () => world.listener.pendingCount === 1, 5_000);
  await until("the time limit", () => world.listener.pendingCount === 0, 5_000);
  expect(world.sessions).toHaveLength(1);
});
