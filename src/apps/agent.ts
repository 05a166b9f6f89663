/**
 * An agent process: credentials, transports and the tunnel daemon, introduced to each other. It enrols on first use,
 * keeps its certificate fresh, and links to the nodes it was given.
 */

import { randomBytes } from "node:crypto";
import { loadavg, availableParallelism } from "node:os";
import { type Agent, createAgent } from "../agent/agent.ts";
import { Backoff } from "../agent/backoff.ts";
import type { AgentEvent } from "../agent/events.ts";
import { classifyFailure } from "../agent/failures.ts";
import type { AgentNode } from "../agent/link-keeper.ts";
import type { AgentTunnel } from "../agent/tunnel-set.ts";
import { sleep, type Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import type { LinkAuth } from "../core/identity.ts";
import { limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { createDialler, type TransportMode } from "../transport/dialler.ts";
import { createQuicConnector, QuicEndpoints } from "../transport/quic/connector.ts";
import { loadCaCertificate } from "../trust/certificates.ts";
import { importKeyPair } from "../trust/key-pair.ts";
import { createLinkAuth } from "../trust/link-auth.ts";
import { decodePem } from "../trust/pem.ts";
import { WindowBudget } from "../wire/window-budget.ts";
import type { AgentState } from "./agent-state.ts";
import type { EdgeAddress } from "./edge-address.ts";
import { enrol, type EnrolOptions, type HeldCredential, obtainCredential, renew, validityOf } from "./enrol.ts";
import { createNodeWebsocket } from "./node-access.ts";
import { version } from "./version.ts";

export interface AgentDeps {
  readonly edges: readonly EdgeAddress[];
  readonly state: AgentState;
  /** The join token's text; undefined to use what `sally login` or an earlier token left. */
  readonly token: string | undefined;
  /** Keeps what the token gave for later runs without it; not for a node that lives only as long as we do. */
  readonly remembersToken: boolean;
  readonly mode: TransportMode;
  readonly lanes: number;
  readonly tunnels: readonly AgentTunnel[];
  readonly clock: Clock;
  readonly log: Logger;
  readonly onEvent: (event: AgentEvent) => void;
  readonly signal: AbortSignal;
}

/** Enrols if needed, trying for ever while no node can be asked, and starts linking. @throws SallyError as `obtainCredential` */
export async function startAgent(deps: AgentDeps): Promise<Agent> {
  const { clock, log } = deps;
  if (deps.edges.length === 0) throw new Error("an agent has at least one edge");
  const held = await obtainPatiently(deps);
  if (deps.token !== undefined && deps.remembersToken) {
    for (const { authority } of deps.edges) await deps.state.rememberToken(authority, held.key);
  }
  const keyring = new Keyring(deps, held);
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

/** A node that is not there yet is no reason to give up, on the first start no more than later. */
async function obtainPatiently(deps: AgentDeps): Promise<HeldCredential> {
  const { edges, token, clock, signal, onEvent } = deps;
  const { reconnectBackoffMinMs: minMs, reconnectBackoffMaxMs: maxMs } = limits;
  const backoff = new Backoff({ minMs, maxMs, random: Math.random });
  for (;;) {
    try {
      return await obtainCredential(deps, token);
    } catch (error) {
      const mayPass = error instanceof SallyError && classifyFailure(error, false) === "retry";
      if (!mayPass || error.code === "STORE_FAILED" || signal.aborted) throw error;
      const delayMs = backoff.nextMs();
      onEvent({ event: "retry", node: edges[0]?.url ?? "", error, delayMs });
      await sleep(clock, delayMs, signal);
    }
  }
}

/** The credential in use and what is derived from it. */
class Keyring {
  readonly #deps: AgentDeps;
  /** One for the life of the process: a reconnect is known by it. */
  readonly #process = randomBytes(16).toString("hex");
  #held: HeldCredential;
  #auth: LinkAuth | undefined;

  constructor(deps: AgentDeps, held: HeldCredential) {
    this.#deps = deps;
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
    return validityOf(this.#held.credential);
  }

  async load(): Promise<void> {
    const { keyPem, certificatePem, caPem } = this.#held.credential;
    this.#auth = createLinkAuth({
      role: "agent",
      key: (await importKeyPair(keyPem)).privateKey,
      certificate: decodePem("CERTIFICATE", certificatePem),
      caCertificate: await loadCaCertificate(decodePem("CERTIFICATE", caPem)),
      process: this.#process,
      clock: this.#deps.clock,
      allowsProxiedTls: true,
    });
  }

  async renew(signal: AbortSignal): Promise<void> {
    this.#held = await this.#renewed(signal);
    await this.load();
  }

  async #renewed(signal: AbortSignal): Promise<HeldCredential> {
    const { edges, state, token } = this.#deps;
    const options: EnrolOptions = { edges, state, signal };
    try {
      return await renew(options, this.#held);
    } catch (error) {
      // Asleep for longer than a certificate can be renewed: who still has the token needs nobody's help.
      const isTooOld = error instanceof SallyError && error.code === "CERTIFICATE_INVALID";
      if (!isTooOld || token === undefined) throw error;
      return await enrol(options, token);
    }
  }
}

function createNodes({ edges, mode, clock, log }: AgentDeps, keyring: Keyring): AgentNode[] {
  const endpoints = new QuicEndpoints();
  return edges.map((edge) => {
    const websocket = createNodeWebsocket({ edge, tls: () => keyring.tls, clock });
    const quic = createQuicConnector({ address: edge, tls: () => keyring.tls, endpoints, clock });
    const dialler = createDialler({ quic, websocket, mode, clock, log, limits });
    return {
      label: edge.url,
      connector: dialler,
      ...(mode === "auto" ? { quicConnector: quic } : {}),
    };
  });
}
