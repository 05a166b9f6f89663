/** The QUIC transport over real sockets: trust, ends, bounds, and what node:quic does behind our back. */

import { afterAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { createTestAuthority } from "./certificates.fixture.ts";
import {
  blackHole,
  codeOf,
  der,
  descriptors,
  never,
  quicWorld,
  type QuicWorld,
  Recorder,
  udpRelay,
  until,
} from "./quic.fixture.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { Duplex } from "../../src/core/duplex.ts";
import { SallyError } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import { loadQuic } from "../../src/transport/quic/load-quic.ts";

const unhandled: unknown[] = [];
const onUnhandled = (error: unknown): void => void unhandled.push(error);
process.on("unhandledRejection", onUnhandled);
afterAll(async () => {
  // What the others left behind comes before a whole conversation more is over.
  await using world = await quicWorld();
  const { agent } = await world.pair();
  agent.close();
  await agent.closed;
  process.off("unhandledRejection", onUnhandled);
  expect(unhandled).toEqual([]);
});

test("a lane carries bytes both ways, and both sides know the other's certificate", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  const { agent, node } = await world.pair();
  expect(node.session.peerCertificate).toEqual(der(world.agentTls.certPem));
  expect(agent.peerCertificate).toEqual(der(world.nodeTls.certPem));
  expect([agent.host, node.session.host]).toEqual(["node.sally.internal", ""]);
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  lane.write(Buffer.from("hello "));
  lane.write(Buffer.from("lane"));
  await heard.until("the echo", () => heard.text === "hello lane");
  expect((await node.lane(0)).text).toBe("hello lane");
});

test("an end that nothing explains is told once its reason had time to come", async () => {
  await using world = await quicWorld();
  const due: (() => void)[] = [];
  const after: typeof systemClock.after = (delayMs, callback) => {
    if (delayMs !== limits.quicReasonWaitMs) return systemClock.after(delayMs, callback);
    due.push(callback);
    return { cancel() {} };
  };
  const { agent, node } = await world.pair(world.connectorWith({ clock: { ...systemClock, after } }));
  const heard = new Recorder(await agent.openLane(never));
  await node.lane(0);
  node.pipes[0]!.end();
  await until("the end to be seen", () => due.length === 1, 5_000);
  expect([heard.ended, heard.closes]).toEqual([false, []]);
  due[0]!();
  await heard.until("the end", () => heard.ended);
});

test("a lane is seen by the node before anything is written to it", async () => {
  await using world = await quicWorld();
  const { agent, node } = await world.pair();
  await agent.openLane(never);
  expect((await node.lane(0)).receivedBytes).toBe(0);
});

test("a clean close delivers what was queued", async () => {
  await using world = await quicWorld({ recorder: { keeps: false } });
  const { agent, node } = await world.pair();
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  const chunk = new Uint8Array(64 * 1024).fill(7);
  for (let i = 0; i < 64; i++) lane.write(chunk);
  agent.close();
  const record = await node.lane(0);
  await record.until("4 MiB", () => record.receivedBytes === 4 * 1024 * 1024);
  expect(await agent.closed).toBeUndefined();
  expect(await node.session.closed).toBeUndefined();
  expect(heard.closes).toEqual([undefined]);
  expect(record.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
});

test("a close with an error reaches the other side with its code", async () => {
  await using world = await quicWorld();
  const { agent, node } = await world.pair();
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  const record = await node.lane(0);
  node.session.close(new SallyError("REPLACED"));
  await heard.until("the end of the lane", () => heard.closes.length > 0);
  expect((await agent.closed)?.code).toBe("REPLACED");
  expect((await node.session.closed)?.code).toBe("REPLACED");
  expect(heard.closes.map((error) => error?.code)).toEqual(["REPLACED"]);
  await record.until("its own end", () => record.closes.length > 0);
  expect(record.closes.map((error) => error?.code)).toEqual(["REPLACED"]);
});

test("a node that turns a connection away at once says why, also to an agent that is just opening its lane", async () => {
  await using world = await quicWorld({
    listen: { onSession: (session) => session.close(new SallyError("DRAINING")) },
  });
  const reasons: string[] = [];
  for (let i = 0; i < 20; i++) {
    const lane = world.connector.connect(never).then((session) => session.openLane(never));
    reasons.push(
      await lane.then(
        async (opened) => {
          const heard = new Recorder(opened);
          await heard.until("the end of the lane", () => heard.closes.length > 0);
          return heard.closes[0]?.code ?? "clean";
        },
        (error: SallyError) => error.code,
      ),
    );
  }
  expect(new Set(reasons)).toEqual(new Set(["DRAINING"]));
});

test("a reset lane reaches the other side with its code; the other lanes stay", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  const { agent, node } = await world.pair();
  const [lost, kept] = [await agent.openLane(never), await agent.openLane(never)];
  const [lostHeard, keptHeard] = [new Recorder(lost), new Recorder(kept)];
  const record = await node.lane(0);
  lost.reset(new SallyError("PROTOCOL_VIOLATION"));
  await record.until("the reset", () => record.closes.length > 0);
  expect(record.closes.map((error) => error?.code)).toEqual(["PROTOCOL_VIOLATION"]);
  kept.write(Buffer.from("still here"));
  await keptHeard.until("the echo", () => keptHeard.text === "still here");
  expect(lostHeard.closes).toEqual([]);
});

test("an agent without a certificate, or with one of another authority, is not handed up", async () => {
  await using world = await quicWorld();
  const stranger = await createTestAuthority("Another CA");
  const foreign = { ...(await stranger.issue({ role: "agent" })), caPem: world.agentTls.caPem };
  const expired = { ...(await world.authority.issue({ role: "agent", expired: true })), caPem: world.agentTls.caPem };
  for (const tls of [foreign, expired]) {
    const attempt = world.connectorWith({ tls }).connect(never);
    // TLS 1.3 lets the agent finish first: the refusal comes as an error of connect, or as the end of the session.
    const reason = await attempt.then(
      (session) => session.closed,
      (error: unknown) => error,
    );
    expect((reason as SallyError).code).toBe("CERTIFICATE_INVALID");
  }
  const anonymous = await loadQuic().connect(`127.0.0.1:${world.listener.address.port}`, {
    servername: "node.sally.internal",
    alpn: "sallyport/1",
    ca: [Buffer.from(world.agentTls.caPem)],
    reuseEndpoint: false,
    onerror: () => {},
  });
  const endpoint = anonymous.endpoint;
  await anonymous.closed.catch(() => {});
  void endpoint?.destroy();
  expect(world.sessions).toHaveLength(0);
  expect(world.listener.pendingCount).toBe(0);
});

test("a node of another authority is refused with CA_MISMATCH", async () => {
  await using world = await quicWorld();
  const stranger = await createTestAuthority("Another CA");
  const tls = { ...(await stranger.issue({ role: "agent" })), caPem: stranger.caPem };
  expect(await codeOf(world.connectorWith({ tls }).connect(never))).toBe("CA_MISMATCH");
  expect(world.sessions).toHaveLength(0);
});

test("the addresses of a name are tried one after the other, and only so many", async () => {
  await using world = await quicWorld();
  const { port } = world.listener.address;
  const heard = new Set<string>();
  const silent = await Promise.all(
    Array.from({ length: limits.quicAddressesMax }, async (_, n) => {
      const hostname = `127.0.0.${11 + n}`;
      const socket = await Bun.udpSocket({ hostname, port, socket: { data: () => void heard.add(hostname) } });
      return { hostname, [Symbol.dispose]: () => socket.close() };
    }),
  );
  using sockets = new DisposableStack();
  for (const socket of silent) sockets.use(socket);
  const addresses = [...silent.map(({ hostname }) => hostname), "127.0.0.1"];
  const connectorTo = (found: readonly string[], connectMs: number) =>
    world.connectorWith({ address: { host: "node.test", port }, findAddresses: async () => found, connectMs });

  const startMs = performance.now();
  const last = connectorTo(addresses.slice(1), 20_000);
  expect((await world.pair(last)).agent.peerCertificate).toBeDefined();
  expect(performance.now() - startMs).toBeGreaterThan((limits.quicAddressesMax - 1) * limits.nextAddressAfterMs - 50);
  expect([...heard]).toEqual(addresses.slice(1, -1));

  const tooMany = connectorTo(addresses, (limits.quicAddressesMax + 2) * limits.nextAddressAfterMs);
  expect(await codeOf(tooMany.connect(never))).toBe("CONNECT_TIMEOUT"); // the node is behind the last that is tried
  expect(heard.size).toBe(limits.quicAddressesMax);
});

test("an agent's certificate does not serve as a node's", async () => {
  await using world = await quicWorld();
  const agent = { ...(await world.authority.issue({ role: "agent" })), caPem: world.agentTls.caPem };
  await using impostor = await quicWorld({ listen: { tls: agent } });
  const attempt = world.connectorWith({ address: impostor.listener.address }).connect(never);
  expect(await codeOf(attempt)).toBe("CA_MISMATCH");
});

test("connections without a complete handshake are bounded in number, and keep nobody else out", async () => {
  await using world = await quicWorld({ listen: { pendingMax: 5, handshakeMs: 2_000 } });
  await using relay = await udpRelay(world.listener.address);
  relay.deafen(); // the node hears these agents, and they hear nothing
  const giveUp = new AbortController();
  const deaf = world.connectorWith({ address: relay.address, connectMs: 60_000 });
  const attempts = Array.from({ length: 20 }, () => codeOf(deaf.connect(giveUp.signal)));
  await until("all places taken", () => world.listener.pendingCount >= 5, 5_000);
  expect((await world.pair()).agent.peerCertificate).toBeDefined();
  expect(world.listener.pendingCount).toBeLessThanOrEqual(5);
  giveUp.abort(new SallyError("CANCELLED"));
  expect(new Set(await Promise.all(attempts))).toEqual(new Set(["CANCELLED"]));
  await until("room", () => world.listener.pendingCount === 0, 15_000);
  expect((await world.pair()).agent.peerCertificate).toBeDefined();
}, 20_000);

test("a busy lane starves none of those that were opened later", async () => {
  await using world = await quicWorld({ recorder: { keeps: false } });
  const { agent, node } = await world.pair();
  const piece = new Uint8Array(64 * 1024);
  for (let i = 0; i < 3; i++) {
    const lane = await agent.openLane(never);
    const heard = new Recorder(lane);
    heard.onDrain = () => {
      while (lane.write(piece));
    };
    heard.onDrain();
  }
  const small = await agent.openLane(never);
  for (let i = 0; i < 3; i++) await (await node.lane(i)).until("bulk", () => node.lanes[i]!.receivedBytes > 0, 10_000);
  const record = await node.lane(3);
  for (let round = 1; round <= 20; round++) {
    small.write(new Uint8Array(100));
    await record.until("a small message", () => record.receivedBytes === round * 100, 10_000);
  }
  const before = node.lanes.map((lane) => lane.receivedBytes);
  await until("32 MiB more", () => node.lanes[0]!.receivedBytes > before[0]! + 32 * 1024 * 1024, 30_000);
  const shares = [0, 1, 2].map((at) => node.lanes[at]!.receivedBytes - before[at]!);
  expect(Math.min(...shares)).toBeGreaterThan(0.25 * Math.max(...shares));
}, 60_000);

test("a session whose peer ignores the credit is closed", async () => {
  const unreadMaxBytes = 1024 * 1024;
  await using world = await quicWorld({ listen: { unreadMaxBytes }, recorder: { keeps: false, consumes: false } });
  const { agent, node } = await world.pair();
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  for (let i = 0; i < 100; i++) lane.write(new Uint8Array(64 * 1024));
  expect((await node.session.closed)?.code).toBe("CREDIT_EXCEEDED");
  expect((await agent.closed)?.code).toBe("CREDIT_EXCEEDED");
  expect(node.lanes[0]!.receivedBytes).toBeLessThanOrEqual(unreadMaxBytes);
  await heard.until("the end", () => heard.closes.length === 1);
  expect(lane.write(new Uint8Array(1))).toBe(true);
});

test("a slow consumer that does consume is never cut off", async () => {
  const unreadMaxBytes = 256 * 1024;
  await using world = await quicWorld({ listen: { unreadMaxBytes }, recorder: { keeps: false } });
  const { agent, node } = await world.pair();
  const lane = await agent.openLane(never);
  for (let i = 0; i < 64; i++) lane.write(new Uint8Array(64 * 1024));
  const record = await node.lane(0);
  await record.until("4 MiB", () => record.receivedBytes === 4 * 1024 * 1024);
});

test("lanes beyond the limit are held back, and closed ones make room", async () => {
  await using world = await quicWorld();
  const { agent, node } = await world.pair();
  const lanes: Duplex[] = [];
  for (let i = 0; i < limits.lanesPerLinkMax; i++) lanes.push(await agent.openLane(never));
  await node.lane(limits.lanesPerLinkMax - 1);
  const heard = new Recorder(await agent.openLane(never));
  lanes[0]!.write(Buffer.from("later")); // it would have brought the lane along
  const first = await node.lane(0);
  await first.until("what was said later", () => first.text === "later");
  expect(node.lanes).toHaveLength(limits.lanesPerLinkMax);
  expect(heard.closes).toEqual([]);
  for (const lane of lanes) lane.reset(new SallyError("CANCELLED"));
  await node.lane(limits.lanesPerLinkMax);
  for (let i = 0; i < 100; i++) {
    const lane = await agent.openLane(never);
    await node.lane(limits.lanesPerLinkMax + 1 + i);
    lane.reset(new SallyError("CANCELLED"));
  }
});

test("a connection that falls silent ends with LINK_LOST on both sides, never cleanly", async () => {
  await using world = await quicWorld({ listen: { idleSeconds: 1 } });
  await using relay = await udpRelay(world.listener.address);
  const { agent, node } = await world.pair(world.connectorWith({ address: relay.address }));
  const heard = new Recorder(await agent.openLane(never));
  const record = await node.lane(0);
  relay.silence();
  expect((await agent.closed)?.code).toBe("LINK_LOST");
  expect((await node.session.closed)?.code).toBe("LINK_LOST");
  for (const lane of [heard, record]) {
    await lane.until("the end", () => lane.closes.length > 0);
    expect(lane.closes.map((error) => error?.code)).toEqual(["LINK_LOST"]);
    expect(lane.ended).toBe(false);
  }
});

test("a writer is told to wait, and then to go on", async () => {
  await using world = await quicWorld({ recorder: { keeps: false } });
  const { agent, node } = await world.pair();
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  const chunk = new Uint8Array(128 * 1024);
  let sent = 0;
  while (lane.write(chunk)) sent += chunk.length;
  sent += chunk.length;
  expect(sent).toBeLessThan(16 * 1024 * 1024);
  await heard.until("the drain", () => heard.drains === 1);
  expect(lane.queuedBytes).toBe(0);
  const record = await node.lane(0);
  await record.until("everything", () => record.receivedBytes === sent);
});

test("a new certificate is served to new connections, which are still asked for theirs", async () => {
  await using world = await quicWorld();
  const { agent } = await world.pair();
  const port = world.listener.address.port;
  const next = { ...(await world.authority.issue({ role: "node" })), caPem: world.nodeTls.caPem };
  await world.listener.replaceTls(next);
  expect((await agent.closed)?.code).toBe("DRAINING");
  expect(world.listener.address.port).toBe(port);
  const { agent: again, node } = await world.pair();
  expect(again.peerCertificate).toEqual(der(next.certPem));
  expect(node.session.peerCertificate).toEqual(der(world.agentTls.certPem));
});

/** Agents that break off while their handshake runs, each a little later than the one before. */
async function breakOffHandshakes(world: QuicWorld): Promise<void> {
  for (let i = 0; i < 12; i++) {
    const controller = new AbortController();
    const attempt = codeOf(world.connectorWith({}).connect(controller.signal));
    await Bun.sleep(i / 4); // the moment
    controller.abort(new SallyError("CANCELLED"));
    await attempt;
  }
}

test("closing does not wait for handshakes that agents broke off", async () => {
  const handshakeMs = 15_000;
  await using world = await quicWorld({ listen: { handshakeMs } });
  const { agent } = await world.pair();
  await breakOffHandshakes(world);
  const startMs = performance.now();
  await world.listener.close(new SallyError("DRAINING"));
  expect(performance.now() - startMs).toBeLessThan(handshakeMs / 2);
  expect((await agent.closed)?.code).toBe("DRAINING");
});

test("a new certificate waits for handshakes that agents broke off, not for their idle time", async () => {
  const idleSeconds = 60;
  await using world = await quicWorld({ listen: { handshakeMs: 500, idleSeconds } });
  await breakOffHandshakes(world);
  const startMs = performance.now();
  await world.listener.replaceTls(world.nodeTls);
  expect(performance.now() - startMs).toBeLessThan((idleSeconds * 1_000) / 2);
  expect((await world.pair()).agent.peerCertificate).toBeDefined();
});

test("a second listener on a port in use fails with ADDRESS_IN_USE", async () => {
  await using world = await quicWorld();
  expect(await codeOf(quicWorld({ listen: { port: world.listener.address.port } }))).toBe("ADDRESS_IN_USE");
});

test("an agent that is cancelled while it connects stops at once", async () => {
  await using world = await quicWorld();
  using hole = await blackHole();
  const controller = new AbortController();
  const attempt = world.connectorWith({ address: hole.address }).connect(controller.signal);
  await hole.reached;
  controller.abort(new SallyError("CANCELLED"));
  const startMs = performance.now();
  expect(await codeOf(attempt)).toBe("CANCELLED");
  expect(performance.now() - startMs).toBeLessThan(limits.connectMs / 2);
});

test("200 failed connects, silent or refused, leak no descriptor", async () => {
  await using world = await quicWorld();
  using hole = await blackHole();
  const silent = world.connectorWith({ address: hole.address, connectMs: 100 });
  const refused = world.connectorWith({ address: { host: "127.0.0.1", port: 1 }, connectMs: 100 });
  await codeOf(silent.connect(never));
  const before = descriptors();
  for (let round = 0; round < 10; round++) {
    const codes = await Promise.all(
      Array.from({ length: 20 }, (_, i) => codeOf((i % 2 === 0 ? silent : refused).connect(never))),
    );
    for (const code of codes) expect(["CONNECT_TIMEOUT", "CONNECT_FAILED"]).toContain(code);
  }
  expect(descriptors()).toBeLessThanOrEqual(before + 2);
  expect((await world.pair()).agent.peerCertificate).toBeDefined(); // the shared endpoint still works
});

test("500 connections, opened and closed, leak no descriptor and no session", async () => {
  await using world = await quicWorld();
  await world.pair();
  const before = descriptors();
  for (let round = 0; round < 50; round++) {
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        const session = await world.connector.connect(never);
        const lane = await session.openLane(never);
        lane.write(new Uint8Array(10));
        session.close();
        await session.closed;
      }),
    );
  }
  await until("the node's end of them", () => world.listener.sessionCount === 1, 5_000);
  expect(descriptors()).toBeLessThanOrEqual(before + 2);
}, 60_000);

test("a host name with addresses of both families reaches a node on one of them", async () => {
  await using world = await quicWorld();
  const { port } = world.listener.address;
  const { agent } = await world.pair(world.connectorWith({ address: { host: "localhost", port } }));
  expect(agent.remote).toEqual({ host: "127.0.0.1", port });
  const unknown = world.connectorWith({ address: { host: "no-such-host.invalid", port } });
  expect(await codeOf(unknown.connect(never))).toBe("CONNECT_FAILED");
});

test("a download survives three changes of the agent's address", async () => {
  await using world = await quicWorld({ recorder: { keeps: false } });
  await using relay = await udpRelay(world.listener.address);
  const { agent, node } = await world.pair(world.connectorWith({ address: relay.address }));
  const lane = await agent.openLane(never);
  const record = new Recorder(lane, { keeps: false });
  const heard = createHash("sha256");
  const onData = record.onData.bind(record);
  record.onData = (chunk) => {
    heard.update(chunk);
    onData(chunk);
  };
  await node.lane(0);
  const total = 20 * 1024 * 1024;
  const sent = createHash("sha256");
  const pipe = node.pipes[0]!;
  const source = async (): Promise<void> => {
    for (let at = 0; at < total; at += 64 * 1024) {
      const chunk = crypto.getRandomValues(new Uint8Array(64 * 1024));
      sent.update(chunk);
      const drains = node.lanes[0]!.drains;
      if (!pipe.write(chunk)) await node.lanes[0]!.until("room", () => node.lanes[0]!.drains > drains, 10_000);
    }
  };
  const sending = source();
  for (let change = 1; change <= 3; change++) {
    await record.until("a quarter", () => record.receivedBytes >= (total / 4) * change, 15_000);
    const at = record.receivedBytes;
    await relay.changePort();
    await record.until("more", () => record.receivedBytes > at + 1024 * 1024, 5_000);
  }
  await sending;
  await record.until("all", () => record.receivedBytes === total, 15_000);
  expect(heard.digest("hex")).toBe(sent.digest("hex"));
  expect(record.closes).toEqual([]);
  expect(relay.portsSeen).toBe(4);
  await until("the node to know the new address", () => node.session.remote.port === relay.outerPort, 2_000);
  node.session.close(new SallyError("CANCELLED"));
  await agent.closed;
}, 60_000);

test("nobody is told that node:quic is experimental, and other warnings still come through", async () => {
  const program = `
    import { loadQuic } from ${JSON.stringify(new URL("../../src/transport/quic/load-quic.ts", import.meta.url).pathname)};
    loadQuic();
    loadQuic();
    process.emitWarning("something else", "ExperimentalWarning");
  `;
  const child = Bun.spawn([process.execPath, "-e", program], { stderr: "pipe" });
  const text = await new Response(child.stderr).text();
  expect(text).not.toContain("quic is an experimental");
  expect(text).toContain("something else");
});

test("agents that vanish do not silence the node towards the others", async () => {
  await using world = await quicWorld({ recorder: { echoes: true } });
  const { agent } = await world.pair();
  const lane = await agent.openLane(never);
  const heard = new Recorder(lane);
  const ghosts: Duplex[] = [];
  for (let i = 0; i < 4; i++) {
    const relay = await udpRelay(world.listener.address);
    const { agent: ghost, node } = await world.pair(world.connectorWith({ address: relay.address }));
    await ghost.openLane(never);
    await node.lane(0);
    ghosts.push(node.pipes[0]!); // its lane is here
    await relay[Symbol.asyncDispose](); // from now on the system answers for the port: nobody is here (ICMP)
  }
  let pauses = 0;
  for (let i = 1; i <= 100; i++) {
    const startedMs = performance.now();
    for (const ghost of ghosts) ghost.write(new Uint8Array(16));
    lane.write(new Uint8Array(16));
    await heard.until("the echo", () => heard.receivedBytes === 16 * i, 20_000);
    if (performance.now() - startedMs > 900) pauses++;
  }
  expect(pauses).toBeLessThan(3); // of a second each; there were five
  for (const { session } of world.sessions) session.close(new SallyError("CANCELLED"));
}, 60_000);
