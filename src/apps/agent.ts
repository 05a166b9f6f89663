/**
 * An agent process: credentials, transports and the tunnel daemon, introduced to each other. It enrols on first use,
 * keeps its certificate fresh, and links to the nodes it was given.
 */

import { randomBytes } from "node:crypto";
import { loadavg, availableParallelism } from "node:os";
import { type Agent, createAgent } from "../agent/agent.ts";
import type { AgentEvent } from "../agent/events.ts";
import type { AgentNode } from "../agent/link-keeper.ts";
import type { AgentTunnel } from "../agent/tunnel-set.ts";
import type { Clock } from "../core/clock.ts";
import type { LinkAuth } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { createDialler, type TransportMode } from "../transport/dialler.ts";
import { createQuicConnector, QuicEndpoints } from "../transport/quic/connector.ts";
import { createWebsocketConnector } from "../transport/websocket/connector.ts";
import { certificateTimes, loadCaCertificate, nodeServerName } from "../trust/certificates.ts";
import { importKeyPair } from "../trust/key-pair.ts";
import { createLinkAuth } from "../trust/link-auth.ts";
import { decodePem } from "../trust/pem.ts";
import { WindowBudget } from "../wire/window-budget.ts";
import type { AgentState } from "./agent-state.ts";
import type { EdgeAddress } from "./edge-address.ts";
import { type EnrolOptions, type HeldCredential, obtainCredential, renew } from "./enrol.ts";
import { version } from "./version.ts";

export interface AgentDeps {
  readonly edges: readonly EdgeAddress[];
  readonly state: AgentState;
  /** The join token's text; undefined to use what `sally login` left. */
  readonly token: string | undefined;
  readonly mode: TransportMode;
  readonly lanes: number;
  readonly tunnels: readonly AgentTunnel[];
  readonly clock: Clock;
  readonly log: Logger;
  readonly onEvent: (event: AgentEvent) => void;
  readonly signal: AbortSignal;
}

/** Enrols if needed and starts linking. @throws SallyError as `obtainCredential` */
export async function startAgent(deps: AgentDeps): Promise<Agent> {
  const { edges, state, token, clock, log, signal } = deps;
  const [first] = edges;
  if (first === undefined) throw new Error("an agent has at least one edge");
  const enrolment: EnrolOptions = { edge: first, state, signal };
  const keyring = new Keyring(enrolment, clock, await obtainCredential(enrolment, token));
  await keyring.load();
  const agent = createAgent({
    nodes: createNodes(deps, keyring),
    tunnels: deps.tunnels,
    auth: () => keyring.auth,
    certificate: { validity: () => keyring.validity, renew: (renewSignal) => keyring.renew(renewSignal) },
    agentVersion: version,
    lanes: deps.lanes,
    readLoad: () => ({ loadAverage: loadavg()[0] ?? 0, processors: availableParallelism() }),
    clock,
    log,
    limits,
    budget: new WindowBudget(limits.processWindowBudgetBytes, limits.openWaitersMax),
    onEvent: deps.onEvent,
    schedule: (task) => void setImmediate(task),
  });
  agent.start();
  return agent;
}

/** The credential in use and what is derived from it. */
class Keyring {
  readonly #enrolment: EnrolOptions;
  readonly #clock: Clock;
  /** One for the life of the process: a reconnect is known by it. */
  readonly #process = randomBytes(16).toString("hex");
  #held: HeldCredential;
  #auth: LinkAuth | undefined;

  constructor(enrolment: EnrolOptions, clock: Clock, held: HeldCredential) {
    this.#enrolment = enrolment;
    this.#clock = clock;
    this.#held = held;
  }

  get auth(): LinkAuth {
    if (this.#auth === undefined) throw new Error("the keyring was not loaded");
    return this.#auth;
  }

  get tls(): { keyPem: string; certPem: string; caPem: string } {
    const { keyPem, certificatePem, caPem } = this.#held.credential;
    return { keyPem, certPem: certificatePem, caPem };
  }

  get validity(): { notBeforeMs: number; notAfterMs: number } {
    return certificateTimes(decodePem("CERTIFICATE", this.#held.credential.certificatePem));
  }

  async load(): Promise<void> {
    const { keyPem, certificatePem, caPem } = this.#held.credential;
    this.#auth = createLinkAuth({
      role: "agent",
      key: (await importKeyPair(keyPem)).privateKey,
      certificate: decodePem("CERTIFICATE", certificatePem),
      caCertificate: await loadCaCertificate(decodePem("CERTIFICATE", caPem)),
      process: this.#process,
      clock: this.#clock,
      allowsProxiedTls: true,
    });
  }

  async renew(signal: AbortSignal): Promise<void> {
    this.#held = await renew({ ...this.#enrolment, signal }, this.#held);
    await this.load();
  }
}

function createNodes({ edges, mode, clock, log }: AgentDeps, keyring: Keyring): AgentNode[] {
  const endpoints = new QuicEndpoints();
  return edges.map((edge) => {
    const websocket = createWebsocketConnector({
      url: `wss://${edge.authority}`,
      tls: () => ({ serverName: nodeServerName, ...keyring.tls }),
      clock,
      ...(edge.proxyUrl === undefined ? {} : { proxyUrl: edge.proxyUrl }),
    });
    const quic = createQuicConnector({ address: edge, tls: () => keyring.tls, endpoints, clock });
    const dialler = createDialler({ quic, websocket, mode, clock, log, limits });
    return { label: edge.url, connector: dialler, ...(mode === "auto" ? { quicConnector: quic } : {}) };
  });
}
