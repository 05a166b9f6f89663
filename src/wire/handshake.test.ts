import { describe, expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { SallyError, toSallyError, type ErrorCode } from "../core/errors.ts";
import { FakeClock } from "../core/fake-clock.ts";
import type { LinkAuth } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import { encodeTranscript, type Transcript } from "./handshake.ts";
import { acceptLink, connectLink } from "./link.ts";
import { frameType } from "./frames.ts";
import { linkOptions, newSeen, settle } from "./testing/link-pair.ts";
import { memorySessionPair, testAuth, type MemorySessionOptions } from "./testing/memory-session.ts";
import { RawPeer } from "./testing/raw-peer.ts";

interface Attempt {
  readonly dialler?: MemorySessionOptions;
  readonly acceptor?: MemorySessionOptions;
  readonly agentAuth?: LinkAuth;
  readonly nodeAuth?: LinkAuth;
}

/** The codes with which each side's attempt ended; "linked" when it did not fail. */
async function attempt({ dialler = {}, acceptor = dialler, agentAuth, nodeAuth }: Attempt): Promise<[string, string]> {
  const [agentSession, nodeSession] = memorySessionPair({}, dialler, acceptor);
  const [agentSeen, nodeSeen] = [newSeen(), newSeen()];
  const signal = new AbortController().signal;
  const outcome = (link: Promise<unknown>): Promise<string> =>
    link.then(
      () => "linked",
      (thrown: unknown) => toSallyError(thrown).code,
    );
  const agentOptions = { ...linkOptions(agentSeen), lanes: 1, agentVersion: "1" };
  const result = await Promise.all([
    outcome(connectLink(agentSession, agentAuth ?? testAuth("agent"), agentOptions, signal)),
    outcome(acceptLink(nodeSession, nodeAuth ?? testAuth("node"), linkOptions(nodeSeen), signal)),
  ]);
  await settle();
  if (!result.includes("linked")) {
    expect([agentSession.isClosed, nodeSession.isClosed]).toEqual([true, true]);
    expect([agentSeen.closes, nodeSeen.closes]).toEqual([[], []]);
  }
  return result;
}

const exporter = utf8Encode("exporter of this connection");
const nodeCertificate = testAuth("node").certificate;
const agentCertificate = testAuth("agent").certificate;

describe("what binds the link to its connection", () => {
  const cases: readonly { name: string; attempt: Attempt; outcome: [ErrorCode | "linked", ErrorCode | "linked"] }[] = [
    {
      name: "a WebSocket with equal exporters links",
      attempt: { dialler: { transport: "websocket", exporter } },
      outcome: ["linked", "linked"],
    },
    {
      name: "different exporters mean that somebody sits between",
      attempt: {
        dialler: { transport: "websocket", exporter },
        acceptor: { transport: "websocket", exporter: utf8Encode("another connection") },
      },
      outcome: ["CERTIFICATE_INVALID", "CERTIFICATE_INVALID"],
    },
    {
      name: "a WebSocket without an exporter is refused",
      attempt: { dialler: { transport: "websocket", exporter }, acceptor: { transport: "websocket" } },
      outcome: ["AUTH_FAILED", "AUTH_FAILED"],
    },
    {
      name: "a proxy that the node does not allow is refused",
      attempt: { dialler: { transport: "websocket", exporter }, acceptor: { transport: "websocket", isProxied: true } },
      outcome: ["PROXY_UNTRUSTED", "PROXY_UNTRUSTED"],
    },
    {
      name: "a proxy that the node allows links without an exporter",
      attempt: {
        dialler: { transport: "websocket", exporter },
        acceptor: { transport: "websocket", isProxied: true },
        nodeAuth: testAuth("node", { allowsProxiedTls: true }),
      },
      outcome: ["linked", "linked"],
    },
    {
      name: "certificates that equal those of TLS link",
      attempt: {
        dialler: { transport: "quic", peerCertificate: nodeCertificate },
        acceptor: { transport: "quic", peerCertificate: agentCertificate },
      },
      outcome: ["linked", "linked"],
    },
    {
      name: "another certificate in HELLO than in TLS is refused",
      attempt: {
        dialler: { transport: "quic", peerCertificate: nodeCertificate },
        acceptor: { transport: "quic", peerCertificate: utf8Encode("cert:agent:mallory") },
      },
      outcome: ["AUTH_FAILED", "AUTH_FAILED"],
    },
    {
      name: "another certificate in CHALLENGE than in TLS is refused",
      attempt: {
        dialler: { transport: "quic", peerCertificate: utf8Encode("cert:node:mallory") },
        acceptor: { transport: "quic", peerCertificate: agentCertificate },
      },
      outcome: ["AUTH_FAILED", "AUTH_FAILED"],
    },
    {
      name: "QUIC without a client certificate is refused",
      attempt: {
        dialler: { transport: "quic", peerCertificate: nodeCertificate },
        acceptor: { transport: "quic" },
      },
      outcome: ["CERTIFICATE_INVALID", "CERTIFICATE_INVALID"],
    },
    {
      name: "a request for another host is refused",
      attempt: {
        dialler: { transport: "websocket", exporter, host: "good.test" },
        acceptor: { transport: "websocket", exporter, host: "evil.test" },
      },
      outcome: ["AUTH_FAILED", "AUTH_FAILED"],
    },
    {
      name: "an agent's certificate does not act as a node's",
      attempt: { nodeAuth: { ...testAuth("agent", { name: "fake" }), role: "node" } },
      outcome: ["CERTIFICATE_INVALID", "CERTIFICATE_INVALID"],
    },
    {
      name: "two ends with one identity are a reflection",
      attempt: { nodeAuth: testAuth("agent") },
      outcome: ["AUTH_FAILED", "AUTH_FAILED"],
    },
  ];
  for (const { name, attempt: options, outcome } of cases) {
    test(name, async () => expect(await attempt(options)).toEqual(outcome));
  }
});

test("a revoked certificate: both sides learn the code", async () => {
  const nodeAuth: LinkAuth = {
    ...testAuth("node"),
    verify: () => Promise.reject(new SallyError("CERTIFICATE_REVOKED")),
  };
  expect(await attempt({ nodeAuth })).toEqual(["CERTIFICATE_REVOKED", "CERTIFICATE_REVOKED"]);
});

test("a recorded HELLO and PROOF are worth nothing in another session", async () => {
  const recorded: Uint8Array[] = [];
  const signal = new AbortController().signal;
  {
    const [agentSession, nodeSession] = memorySessionPair();
    const tapped: typeof agentSession.openLane = async (given) => {
      const lane = await Object.getPrototypeOf(agentSession).openLane.call(agentSession, given);
      const write = lane.write.bind(lane);
      lane.write = (chunk: Uint8Array) => (recorded.push(chunk.slice()), write(chunk));
      return lane;
    };
    agentSession.openLane = tapped;
    const [agentSeen, nodeSeen] = [newSeen(), newSeen()];
    const accepting = acceptLink(nodeSession, testAuth("node"), linkOptions(nodeSeen), signal);
    await connectLink(
      agentSession,
      testAuth("agent"),
      { ...linkOptions(agentSeen), lanes: 1, agentVersion: "1" },
      signal,
    );
    await accepting;
  }
  expect(recorded.length).toBeGreaterThanOrEqual(2);
  const [attacker, nodeSession] = memorySessionPair();
  const accepting = acceptLink(nodeSession, testAuth("node"), linkOptions(newSeen()), signal);
  const outcome = accepting.then(
    () => "linked",
    (thrown: unknown) => toSallyError(thrown).code,
  );
  const lane = await attacker.openLane(signal);
  const peer = new RawPeer(attacker.lanes[0]!);
  lane.write(recorded[0]!);
  while (peer.frames.length === 0) await settle(1); // CHALLENGE
  lane.write(recorded[1]!);
  expect(await outcome).toBe("CERTIFICATE_INVALID");
  expect(peer.goaway?.wire).toBe(72);
});

test("no common version ends with VERSION_MISMATCH on both sides", async () => {
  const [attacker, nodeSession] = memorySessionPair();
  const signal = new AbortController().signal;
  const accepting = acceptLink(nodeSession, testAuth("node"), linkOptions(newSeen()), signal);
  await attacker.openLane(signal);
  const peer = new RawPeer(attacker.lanes[0]!);
  const nonce = "A".repeat(43);
  const hello = {
    type: "hello",
    versions: [7],
    role: "agent",
    program: "x",
    process: "p",
    host: "h",
    certificate: "AA",
    nonce,
  };
  peer.send(utf8Encode(JSON.stringify(hello)));
  expect(await accepting.catch((thrown: unknown) => toSallyError(thrown).code)).toBe("VERSION_MISMATCH");
  await settle();
  expect(peer.goaway?.wire).toBe(55);
});

test("before the handshake nothing but HANDSHAKE is understood, and no frame may be over 16 KiB", async () => {
  const ofBytes = (bytes: number) => (peer: RawPeer) =>
    peer.frame(frameType.handshake, 0, utf8Encode(JSON.stringify("x".repeat(bytes - 2))));
  const cases: readonly (readonly [ErrorCode, (peer: RawPeer) => void])[] = [
    ["PROTOCOL_VIOLATION", (peer) => peer.open(1).flush()],
    ["PROTOCOL_VIOLATION", (peer) => peer.frame(frameType.data, 1, new Uint8Array(1))],
    ["PROTOCOL_VIOLATION", (peer) => peer.frame(frameType.ping, 0, new Uint8Array(8))],
    ["PROTOCOL_VIOLATION", (peer) => peer.frame(frameType.handshake, 0, utf8Encode("{"))],
    ["PROTOCOL_VIOLATION", ofBytes(limits.handshakeMessageBytes)], // read, but it is no HELLO
    ["FRAME_TOO_LARGE", ofBytes(limits.handshakeMessageBytes + 1)],
  ];
  for (const [expected, say] of cases) {
    const [attacker, nodeSession] = memorySessionPair();
    const signal = new AbortController().signal;
    const accepting = acceptLink(nodeSession, testAuth("node"), linkOptions(newSeen()), signal);
    await attacker.openLane(signal);
    say(new RawPeer(attacker.lanes[0]!));
    const code = await accepting.then(
      () => "linked",
      (thrown: unknown) => toSallyError(thrown).code,
    );
    expect(code).toBe(expected);
    expect(nodeSession.isClosed).toBe(true);
  }
});

test("a silent peer is given up after the handshake time, and an abort ends the attempt at once", async () => {
  const clock = new FakeClock();
  const [, nodeSession] = memorySessionPair();
  const signal = new AbortController().signal;
  const accepting = acceptLink(nodeSession, testAuth("node"), linkOptions(newSeen(), { clock }), signal);
  clock.advance(limits.handshakeMs - 1);
  await settle(1);
  expect(nodeSession.isClosed).toBe(false);
  clock.advance(1);
  expect(await accepting.catch((thrown: unknown) => toSallyError(thrown).code)).toBe("CONNECT_TIMEOUT");
  const controller = new AbortController();
  const [agentSession] = memorySessionPair();
  const options = { ...linkOptions(newSeen()), lanes: 1, agentVersion: "1" };
  const connecting = connectLink(agentSession, testAuth("agent"), options, controller.signal);
  await settle(1);
  controller.abort(new SallyError("CANCELLED"));
  expect(await connecting.catch((thrown: unknown) => toSallyError(thrown).code)).toBe("CANCELLED");
  expect(agentSession.isClosed).toBe(true);
});

test("every field of the transcript changes the signed bytes", () => {
  const base: Transcript = {
    signer: "dialler",
    version: 1,
    helloHash: new Uint8Array(32).fill(1),
    roles: { dialler: "agent", acceptor: "node" },
    nonces: { dialler: new Uint8Array(32).fill(2), acceptor: new Uint8Array(32).fill(3) },
    fingerprints: { dialler: "04".repeat(32), acceptor: "05".repeat(32) },
    processes: { dialler: "a", acceptor: "bc" },
    host: "h",
    isProxied: false,
    exporter: undefined,
  };
  const variants: Transcript[] = [
    base,
    { ...base, signer: "acceptor" },
    { ...base, version: 2 },
    { ...base, helloHash: new Uint8Array(32) },
    { ...base, roles: { dialler: "node", acceptor: "node" } },
    { ...base, nonces: { dialler: base.nonces.acceptor, acceptor: base.nonces.dialler } },
    { ...base, fingerprints: { dialler: "05".repeat(32), acceptor: "04".repeat(32) } },
    { ...base, processes: { dialler: "ab", acceptor: "c" } },
    { ...base, host: "i" },
    { ...base, isProxied: true },
    { ...base, exporter: new Uint8Array(0) },
    { ...base, exporter: new Uint8Array(1) },
  ];
  const encoded = variants.map((variant) => encodeTranscript(variant).toHex());
  expect(new Set(encoded).size).toBe(variants.length);
  expect(utf8Decode(encodeTranscript(base).subarray(0, 18))).toBe("sallyport link v1\n");
});
