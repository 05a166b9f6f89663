import { expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { linkPair, record, settle } from "./testing/link-pair.ts";

const http = { tunnel: "demo", protocol: "http" } as const;

test("a stream carries bytes both ways, data before OPENED, and ends cleanly once on both sides", async () => {
  const { node, agent, agentSeen } = await linkPair({ agent: { onStream: (stream) => void record(stream) } });
  const stream = node.open({ tunnel: "demo", protocol: "raw", visitor: { host: "2001:db8::1", port: 55 } });
  const seen = record(stream);
  stream.write(utf8Encode("hello"));
  await settle();
  const incoming = agentSeen.streams[0]!;
  expect(incoming.preamble).toEqual({ tunnel: "demo", protocol: "raw", visitor: { host: "2001:db8::1", port: 55 } });
  const seenByAgent = record(incoming);
  expect(stream.isOpened).toBe(false);
  incoming.accept();
  stream.write(utf8Encode(" world"));
  stream.end();
  await settle();
  expect(stream.isOpened).toBe(true);
  expect(utf8Decode(seenByAgent.bytes())).toBe(" world");
  expect(seenByAgent.ends).toBe(1);
  expect(seenByAgent.closes).toEqual([]);
  incoming.reportDelivered(11);
  incoming.write(utf8Encode("bye"));
  incoming.end();
  expect(seenByAgent.closes).toEqual([]);
  await settle();
  expect(utf8Decode(seen.bytes())).toBe("bye");
  expect(seen.closes).toEqual([undefined]);
  expect(seenByAgent.closes).toEqual([undefined]);
  expect(stream.deliveredBytes).toBe(11);
  expect([node.streamCount, agent.streamCount]).toEqual([0, 0]);
});

test("both sides know each other after the handshake", async () => {
  const { node, agent } = await linkPair({ lanes: 4 });
  expect(agent.id).toBe(node.id);
  expect(agent.peer.role).toBe("node");
  expect(node.peer.role).toBe("agent");
  expect(node.peerProcess).toBe("process-of-agent");
  expect([node.peerVersion, agent.peerVersion]).toEqual(["1.2.3", "3.2.1"]);
  expect([node.laneCount, agent.laneCount]).toEqual([4, 4]);
});

test("a refusal arrives as a close with the code and the message, and nothing was delivered", async () => {
  const { node } = await linkPair({
    agent: {
      onStream: (stream) => stream.refuse(new SallyError("ORIGIN_REFUSED", "nothing listens on localhost:3000")),
    },
  });
  const stream = node.open(http);
  const seen = record(stream);
  stream.write(utf8Encode("GET / HTTP/1.1\r\n\r\n"));
  await settle();
  expect(seen.closes.map((error) => [error?.code, error?.message])).toEqual([
    ["ORIGIN_REFUSED", "nothing listens on localhost:3000"],
  ]);
  expect(stream.deliveredBytes).toBe(0);
  expect(node.streamCount).toBe(0);
});

test("a reset reaches the peer with code and delivered bytes, and the resetting side hears nothing", async () => {
  const { node, agentSeen, agent } = await linkPair({ agent: { onStream: (stream) => void record(stream) } });
  const stream = node.open(http);
  const seen = record(stream);
  stream.write(new Uint8Array(500));
  await settle();
  const incoming = agentSeen.streams[0]!;
  const agentSide = record(incoming);
  incoming.reportDelivered(500);
  incoming.reset(new SallyError("ORIGIN_RESET"));
  await settle();
  expect(seen.closes.map((error) => error?.code)).toEqual(["ORIGIN_RESET"]);
  expect(stream.deliveredBytes).toBe(500);
  expect(agentSide.closes).toEqual([]);
  expect([node.streamCount, agent.streamCount]).toEqual([0, 0]);
});

test("a reason arrives up to its limit, and is cut there between characters", async () => {
  const said = [
    "a".repeat(limits.reasonBytes),
    "a".repeat(limits.reasonBytes + 1),
    "\u20ac".repeat(limits.reasonBytes),
  ];
  const left = [...said];
  const { node, agentSeen } = await linkPair({
    agent: { onStream: (stream) => stream.refuse(new SallyError("ORIGIN_REFUSED", left.shift())) },
  });
  const recordings = said.map(() => record(node.open(http)));
  await settle();
  const whole = "a".repeat(limits.reasonBytes);
  const cut = "\u20ac".repeat(Math.floor(limits.reasonBytes / 3));
  expect(recordings.map(({ closes }) => closes[0]?.message)).toEqual([whole, whole, cut]);
  node.close(new SallyError("CERTIFICATE_REVOKED", said[2]));
  await settle();
  expect(agentSeen.closes.map((error) => error?.message)).toEqual([cut]);
});

test("a control message of 64 KiB arrives; a byte more is the caller's mistake, and the link lives", async () => {
  const { agent, nodeSeen, agentSeen } = await linkPair();
  const release = (bytes: number) => {
    const names = Array.from({ length: 300 }, () => "x".repeat(200));
    const restBytes = bytes - JSON.stringify({ type: "release", names }).length;
    names.push(...Array.from({ length: 20 }, () => "y".repeat(Math.floor(restBytes / 20) - 3)));
    const message = { type: "release" as const, names };
    names[0] += "z".repeat(bytes - JSON.stringify(message).length);
    return message;
  };
  const largest = release(limits.controlMessageBytes);
  expect(JSON.stringify(largest).length).toBe(limits.controlMessageBytes);
  agent.send(largest);
  expect(() => agent.send(release(limits.controlMessageBytes + 1))).toThrow("is too large");
  agent.send({ type: "headroom", value: 1 });
  await settle();
  expect(nodeSeen.messages).toEqual([largest, { type: "headroom", value: 1 }]);
  expect(agentSeen.closes).toEqual([]);
});

test("control messages arrive in order", async () => {
  const { node, agent, agentSeen, nodeSeen } = await linkPair();
  for (let i = 0; i < 20; i++) agent.send({ type: "headroom", value: i / 20 });
  node.send({ type: "drain", graceMs: 5 });
  await settle();
  expect(nodeSeen.messages.map((message) => (message.type === "headroom" ? message.value : -1))).toEqual(
    Array.from({ length: 20 }, (_, i) => i / 20),
  );
  expect(agentSeen.messages).toEqual([{ type: "drain", graceMs: 5 }]);
});

test("closing with an error tells the peer its code, and streams end with it", async () => {
  const { node, agent, agentSeen, nodeSeen } = await linkPair({ agent: { onStream: (stream) => void record(stream) } });
  const seen = record(node.open(http));
  await settle();
  const agentSide = record(agentSeen.streams[0]!);
  node.close(new SallyError("CERTIFICATE_REVOKED", "the token was revoked"));
  await settle();
  expect(seen.closes.map((error) => error?.code)).toEqual(["CERTIFICATE_REVOKED"]);
  expect(nodeSeen.closes.map((error) => error?.code)).toEqual(["CERTIFICATE_REVOKED"]);
  expect(agentSeen.closes.map((error) => [error?.code, error?.message])).toEqual([
    ["CERTIFICATE_REVOKED", "the token was revoked"],
  ]);
  expect(agentSide.closes.map((error) => error?.code)).toEqual(["CERTIFICATE_REVOKED"]);
  expect(agent.isClosed).toBe(true);
  expect(() => node.open(http)).toThrow("link to the agent was lost");
});

test("a drained link opens nothing new and closes cleanly when its last stream is done", async () => {
  const { node, agent, agentSeen, nodeSeen } = await linkPair({ agent: { onStream: (stream) => void record(stream) } });
  const stream = node.open(http);
  record(stream);
  await settle();
  node.drain();
  expect(() => node.open(http)).toThrow(SallyError);
  await settle();
  expect(agent.isDraining).toBe(true);
  expect([agentSeen.drains, nodeSeen.drains]).toEqual([1, 0]);
  expect(node.isClosed).toBe(false);
  stream.end();
  agentSeen.streams[0]!.end();
  await settle();
  expect(nodeSeen.closes).toEqual([undefined]);
  expect(agentSeen.closes).toEqual([undefined]);
});

test("a link that ends does not wait to open lanes that it lost", async () => {
  const clock = new FakeClock();
  const { agent, agentSession } = await linkPair({ lanes: 2, agent: { clock } });
  agentSession.laneError = new SallyError("CONNECT_FAILED");
  agentSession.lanes[1]!.fail(new SallyError("LINK_LOST"));
  await settle();
  expect(agent.laneCount).toBe(1);
  agent.close();
  await settle();
  expect(clock.pending).toBe(0);
});
