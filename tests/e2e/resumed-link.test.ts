/** Coming back over QUIC: how many round trips a link costs, and that a recorded first flight makes none. */

import { expect, test } from "bun:test";
import { systemClock } from "../../src/core/clock.ts";
import { SallyError } from "../../src/core/errors.ts";
import type { LinkAuth } from "../../src/core/identity.ts";
import { limits, type Limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import type { Connector, Session } from "../../src/ports/session.ts";
import { createQuicConnector, QuicEndpoints, type QuicConnector } from "../../src/transport/quic/connector.ts";
import { connectLink, type Link } from "../../src/wire/link.ts";
import type { ControlMessage } from "../../src/wire/messages.ts";
import { WindowBudget } from "../../src/wire/window-budget.ts";
import { LinkRig, type RigIdentity } from "../support/link-rig.ts";
import { firstFlight, UdpPath } from "../support/udp-path.ts";
import { until } from "../support/until.ts";

const never = new AbortController().signal;

interface Linked {
  readonly link: Link;
  readonly early: string;
  readonly tookMs: number;
  readonly messages: ControlMessage[];
}

/** A node, a path to it that takes its time, and one agent's identity. */
class World implements AsyncDisposable {
  readonly rig: LinkRig;
  readonly path: UdpPath;
  readonly #identity: RigIdentity;
  readonly #endpoints = new QuicEndpoints();

  private constructor(rig: LinkRig, path: UdpPath, identity: RigIdentity) {
    this.rig = rig;
    this.path = path;
    this.#identity = identity;
  }

  static async create(overrides: Partial<Limits> = {}): Promise<World> {
    const rig = await LinkRig.create("quic", overrides);
    const path = await UdpPath.to({ host: "127.0.0.1", port: rig.port });
    return new World(rig, path, await rig.issue("agent", "ann", "laptop"));
  }

  get auth(): LinkAuth {
    return this.#identity.auth;
  }

  connector(): QuicConnector {
    const { keyPem, certPem } = this.#identity;
    const tls = { keyPem, certPem, caPem: this.rig.caPem };
    return createQuicConnector({ address: this.path.address, tls, endpoints: this.#endpoints, clock: systemClock });
  }

  /** As the agent does; `isPatient`: HELLO waits for the end of the handshake. */
  async link(connector: QuicConnector, isPatient = false, signal = never): Promise<Linked> {
    const messages: ControlMessage[] = [];
    const shake = (session: Session): Promise<Link> => {
      const link = connectLink(
        session,
        this.#identity.auth,
        {
          clock: systemClock,
          log: silentLogger,
          limits,
          budget: new WindowBudget(limits.processWindowBudgetBytes),
          lanes: 1,
          agentVersion: "test",
          onStream: (stream) => stream.refuse(new SallyError("FORBIDDEN")),
          onMessage: (message) => void messages.push(message),
          onClose() {},
        },
        signal,
      );
      link.catch(() => {});
      return link;
    };
    const begun = new Map<Session, Promise<Link>>();
    const startedMs = performance.now();
    const session = await connector.connect(
      signal,
      isPatient ? undefined : (candidate) => void begun.set(candidate, shake(candidate)),
    );
    const link = await (begun.get(session) ?? shake(session));
    return { link, early: session.early, tookMs: performance.now() - startedMs, messages };
  }

  async close(link: Link): Promise<void> {
    link.close(new SallyError("CANCELLED"));
    await until("the node to see the end", () => this.rig.exit.links().every(({ id }) => id !== link.id));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rig.close();
    await this.#endpoints.close();
    await this.path[Symbol.asyncDispose]();
  }
}

test("a new link costs three round trips, one that comes back two", async () => {
  await using world = await World.create();
  world.path.delayMs = 50;
  const best = { patient: Infinity, cold: Infinity, resumed: Infinity };
  const isShown = (): boolean => best.cold / best.resumed >= 1.3 && best.patient / best.cold >= 1.15;
  // The least of some attempts: a busy machine makes single ones late.
  for (let round = 1; round <= 8 && !isShown(); round++) {
    const connector = world.connector();
    const patient = await world.link(world.connector(), true);
    const cold = await world.link(connector);
    await world.close(cold.link);
    const resumed = await world.link(connector);
    expect([patient.early, cold.early, resumed.early]).toEqual(["none", "none", "accepted"]);
    best.patient = Math.min(best.patient, patient.tookMs);
    best.cold = Math.min(best.cold, cold.tookMs);
    best.resumed = Math.min(best.resumed, resumed.tookMs);
    await world.close(resumed.link);
    await world.close(patient.link);
  }
  expect(best.cold / best.resumed).toBeGreaterThanOrEqual(1.3);
  expect(best.patient / best.cold).toBeGreaterThanOrEqual(1.15);
}, 60_000);

test("a link that comes back to a node that restarted costs no more round trips than a new one", async () => {
  await using world = await World.create();
  const connector = world.connector();
  await world.close((await world.link(connector)).link);
  let least = Infinity;
  let leastCold = Infinity;
  for (let round = 1; round <= 8 && !(least < 1.2 * leastCold); round++) {
    world.path.delayMs = 0;
    await world.rig.stopNode();
    await world.rig.startNode(world.rig.port);
    world.path.delayMs = 50;
    const cold = await world.link(world.connector());
    const refused = await world.link(connector);
    const resumed = await world.link(connector); // with the ticket of the connection that was refused early data
    expect([cold.early, refused.early, resumed.early]).toEqual(["none", "rejected", "accepted"]);
    expect(world.rig.exit.links()).toHaveLength(3);
    least = Math.min(least, refused.tookMs);
    leastCold = Math.min(leastCold, cold.tookMs);
  }
  expect(least / leastCold).toBeLessThan(1.2); // one round trip more: 1.33
  expect(world.rig.exitEvents.filter(({ event }) => event === "handshake-failed")).toEqual([]);
}, 60_000);

test("an agent whose network was gone comes back with early data", async () => {
  await using world = await World.create({ pingAfterMs: 200, linkDeadAfterMs: 600, reconnectBackoffMinMs: 50 });
  const { rig, path } = world;
  const connector = world.connector();
  const fates: string[] = [];
  const noting: Connector = {
    async connect(signal, greet) {
      const session = await connector.connect(signal, greet);
      fates.push(session.early);
      return session;
    },
  };
  const laptop = await rig.connect({
    target: "1",
    options: { nodes: [{ label: "node", connector: noting }], auth: () => world.auth },
  });
  await laptop.until("link", ({ state }) => state === "up");
  path.isCut = true;
  await laptop.until("link", ({ state }) => state === "down");
  path.isCut = false;
  const isUpAgain = (): boolean => laptop.events.filter((event) => event.event === "link").at(-1)?.state === "up";
  await until("the link", isUpAgain);
  expect([fates[0], fates.at(-1)]).toEqual(["none", "accepted"]);
}, 60_000);

test("recorded first flights make no link, and nothing changes for the one that lives", async () => {
  await using world = await World.create({ handshakeMs: 2_000 });
  const { rig, path } = world;
  const connector = world.connector();
  await world.close((await world.link(connector)).link);

  path.isCut = true;
  path.recording = [];
  const stop = new AbortController();
  const attempt = world.link(connector, false, stop.signal).catch(() => {});
  const unheard = await until("a first flight that never arrives", () => firstFlight(path.recording ?? []));
  stop.abort();
  await attempt;

  path.isCut = false;
  path.recording = [];
  const { link, early, messages } = await world.link(connector);
  expect(early).toBe("accepted");
  const heard = firstFlight(path.recording)!; // the node has answered it
  const tunnel = { name: "demo", originLabel: "3000", hostHeader: { kind: "preserve" } as const, pathPrefix: "" };
  link.send({ type: "claim", requestId: 1, process: "p", tunnels: [{ ...tunnel, shared: false }] });
  await until("the claim", () => messages.some(({ type }) => type === "claimed"));

  const links = rig.exit.links().map(({ id, names }) => ({ id, names }));
  expect(links).toEqual([{ id: link.id, names: ["demo"] }]);
  rig.exitEvents.length = 0;
  using replayed = await path.replay(unheard);
  using _again = await path.replay(heard);
  await until("the node to give the replay up", () => rig.exitEvents.some(({ event }) => event === "handshake-failed"));
  expect(replayed.answeredBytes).toBeGreaterThan(1_000); // a handshake and CHALLENGE, to nobody
  expect(rig.exitEvents.every(({ event }) => event === "handshake-failed")).toBe(true);
  expect(rig.exit.links().map(({ id, names }) => ({ id, names }))).toEqual(links);
  expect(link.isClosed).toBe(false);
  expect(messages.map(({ type }) => type)).toEqual(["claimed"]);
  link.send({ type: "claim", requestId: 2, process: "p", tunnels: [{ ...tunnel, shared: false }] });
  await until("an answer on the same link", () => messages.length === 2);
}, 30_000);
