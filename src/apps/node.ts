/**
 * A node: edge, exit and control in one process, introduced to each other here and nowhere else. It starts from an
 * empty folder, and ends without losing a request.
 */

import { BlockList } from "node:net";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { NodeConfig } from "../config/node-config.ts";
import { bootstrapNode, type Bootstrapped } from "../control/bootstrap.ts";
import { createControl, type Control } from "../control/control.ts";
import { formatAddress } from "../core/address.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import type { LinkAuth } from "../core/identity.ts";
import { limits as defaultLimits, type Limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import { createEdge, type Edge } from "../edge/edge.ts";
import { ProbeBoard } from "../edge/probe-board.ts";
import { createExit, type Exit } from "../exit/exit.ts";
import type { ExitEvent } from "../exit/link-info.ts";
import type { Exchange, Handler, Reply } from "../http/exchange.ts";
import type { AccessRecord } from "../listeners/http1-options.ts";
import type { Registry } from "../ports/registry.ts";
import type { TunnelEntry } from "../ports/tunnel-directory.ts";
import { type DataLock, lockData } from "../store/data-lock.ts";
import { openSqliteRegistry } from "../store/sqlite.ts";
import { issueCertificate } from "../trust/certificates.ts";
import { exportPrivateKey, generateKeyPair } from "../trust/key-pair.ts";
import { createLinkAuth } from "../trust/link-auth.ts";
import { encodePem } from "../trust/pem.ts";
import { WindowBudget } from "../wire/window-budget.ts";
import { readSecret, writeText } from "./files.ts";
import { localAddressOf, type NodeListeners, openListeners } from "./node-listeners.ts";
import { createNodeView, type NodeCounters } from "./node-metrics.ts";
import { createProber } from "./prober.ts";

export interface RunningNode {
  /** Base URLs with the ports that were really taken. */
  readonly urls: {
    readonly http: string;
    readonly https: string | undefined;
    readonly tunnel: string;
    readonly admin: string;
  };
  /** The join token of DATA/agent.token; undefined once it was revoked. */
  readonly agentToken: string | undefined;
  /** Stops without losing a request: see docs/self-hosting.md. */
  drain(graceMs: number): Promise<void>;
  close(): Promise<void>;
}

export interface NodeDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly onAccess?: (record: AccessRecord) => void;
  /** Refuses a data folder that another node uses; by default that is only warned of. */
  readonly ownsData?: boolean;
}

/** @throws SallyError ADDRESS_IN_USE, STORE_FAILED, USAGE, CERTIFICATE_INVALID */
export async function startNode(config: NodeConfig, deps: NodeDeps): Promise<RunningNode> {
  const { clock, log } = deps;
  const onExposed = (path: string): void =>
    log.warn("others on this machine could read this file: its mode is 0600 from now on", { path });
  const files = {
    read: (name: string) => readSecret(join(config.data, name), onExposed),
    write: (name: string, text: string, mode: number) => writeText(join(config.data, name), text, mode),
  };
  await writeText(join(config.data, ".folder"), "Written by sally: keys and the registry of a node.\n");
  const lock = takeFolder(join(config.data, "node.lock"), deps);
  let registry: Registry | undefined;
  try {
    registry = openSqliteRegistry(join(config.data, "registry.sqlite"));
    const trusted = await bootstrapNode({ files, registry, clock, log });
    const node = new Node(config, deps, { registry, lock, trusted });
    await node.start();
    return node;
  } catch (error) {
    await registry?.close();
    lock?.release();
    throw error;
  }
}

/** A second node on a folder is how one hands over to its successor; anybody else should know of it. */
function takeFolder(path: string, { log, ownsData = false }: NodeDeps): DataLock | undefined {
  try {
    return lockData(path, 0);
  } catch (error) {
    if (ownsData || !(error instanceof SallyError) || error.code !== "DATA_IN_USE") throw error;
    log.warn("another node uses this data folder: right for a handover, otherwise a name may be live on both", {
      path,
    });
    return undefined;
  }
}

interface NodeStores {
  readonly registry: Registry;
  readonly lock: DataLock | undefined;
  readonly trusted: Bootstrapped;
}

class Node implements RunningNode {
  readonly agentToken: string | undefined;
  readonly #config: NodeConfig;
  readonly #deps: NodeDeps;
  readonly #limits: Limits;
  readonly #registry: Registry;
  readonly #lock: DataLock | undefined;
  readonly #trusted: Bootstrapped;
  readonly #counters: NodeCounters = { requests: 0, handshakesFailed: 0, linksOpened: 0 };
  readonly #budget: WindowBudget;
  readonly #isTrustedProxy: (address: string) => boolean;
  readonly #probes: ProbeBoard;
  readonly #control: Control;
  #exit!: Exit; // set by start, before anything can reach it
  #edge!: Edge;
  #listeners!: NodeListeners;
  #isReady = false;

  constructor(config: NodeConfig, deps: NodeDeps, { registry, lock, trusted }: NodeStores) {
    this.#config = config;
    this.#deps = deps;
    this.#registry = registry;
    this.#lock = lock;
    this.#trusted = trusted;
    this.agentToken = trusted.agentToken;
    this.#limits = { ...defaultLimits, ...config.limits };
    this.#budget = new WindowBudget(this.#limits.processWindowBudgetBytes, this.#limits.openWaitersMax);
    this.#isTrustedProxy = trustedProxies(config.trustedProxies);
    this.#probes = new ProbeBoard({ clock: deps.clock, limits: this.#limits });
    const { clock, log } = deps;
    this.#control = createControl({
      registry,
      ca: trusted.ca,
      clock,
      log,
      limits: this.#limits,
      admin: { adminTokenHash: trusted.adminTokenHash, port: () => this.#listeners.admin.address.port },
      node: this.#view(),
      isTrustedProxy: this.#isTrustedProxy,
    });
  }

  get urls(): RunningNode["urls"] {
    const { http, https, tunnel, admin } = this.#listeners;
    return {
      http: `http://${formatAddress(http.address)}`,
      https: https === undefined ? undefined : `https://${formatAddress(https.address)}`,
      tunnel: `https://${formatAddress(tunnel.address)}`,
      admin: `http://${formatAddress(admin.address)}`,
    };
  }

  async start(): Promise<void> {
    await this.#control.start();
    const identity = await this.#issueIdentity();
    this.#exit = this.#createExit(identity.auth);
    this.#edge = this.#createEdge();
    this.#control.onRevoked((isRevoked) => void this.#exit.revoke(isRevoked));
    try {
      this.#listeners = await this.#open(identity.tls);
    } catch (error) {
      this.#edge.close();
      await this.#exit.close();
      this.#control.close();
      throw error;
    }
    this.#isReady = true;
  }

  #open(tls: { keyPem: string; certPem: string }): Promise<NodeListeners> {
    const { clock, log } = this.#deps;
    return openListeners({
      config: this.#config,
      publicHandler: this.#countRequests(this.#edge.handler),
      enrolHandler: this.#control.enrolHandler,
      adminHandler: this.#control.adminHandler,
      tls: { ...tls, caPem: this.#trusted.caPem },
      onSession: (session) => this.#exit.acceptSession(session),
      onAccess: this.#deps.onAccess,
      clock,
      log,
      limits: this.#limits,
    });
  }

  async drain(graceMs: number): Promise<void> {
    this.#isReady = false;
    this.#exit.announceDrain(graceMs);
    await this.#listeners.drainVisitors(graceMs);
    this.#edge.close(); // idle streams of its pool would keep their links
    await this.#exit.drain(Math.min(graceMs, this.#limits.drainLinksMs));
    await this.close();
  }

  async close(): Promise<void> {
    this.#isReady = false;
    this.#edge.close();
    await this.#exit.close(); // before the sockets: the links still say why they end
    await this.#listeners.close();
    this.#control.close();
    await this.#registry.close();
    this.#lock?.release();
  }

  /** A key of its own for each run: it never touches the disk. */
  async #issueIdentity(): Promise<{ auth: LinkAuth; tls: { keyPem: string; certPem: string } }> {
    const { clock } = this.#deps;
    const keys = await generateKeyPair();
    const nowMs = clock.wallMs();
    const process = randomBytes(16).toString("hex");
    const certificate = await issueCertificate({
      ca: this.#trusted.ca,
      publicKeySpki: keys.publicKeySpki,
      role: "node",
      identity: "node",
      installation: process,
      nowMs,
      notAfterMs: nowMs + this.#limits.nodeCertificateMs,
    });
    const auth = createLinkAuth({
      role: "node",
      key: keys.privateKey,
      certificate,
      caCertificate: this.#trusted.ca,
      process,
      clock,
      isRevoked: (peer) => this.#control.isRevoked(peer),
      allowsProxiedTls: this.#config.trustTlsProxy,
    });
    return {
      auth,
      tls: { keyPem: await exportPrivateKey(keys.privateKey), certPem: encodePem("CERTIFICATE", certificate) },
    };
  }

  #createExit(auth: LinkAuth): Exit {
    const { clock, log } = this.#deps;
    return createExit({
      auth,
      claims: this.#control.claims,
      publicUrl: (name) => this.#publicUrl(name),
      findReserved: (name) => this.#findReserved(name),
      isRevoked: (peer) => this.#control.isRevoked(peer),
      probe: createProber({
        board: this.#probes,
        listener: () => localAddressOf(this.#listeners.http.address),
        domain: this.#config.domain,
        clock,
      }),
      clock,
      log,
      limits: this.#limits,
      budget: this.#budget,
      schedule: (task) => void setImmediate(task),
      onEvent: (event) => this.#onExitEvent(event),
    });
  }

  #createEdge(): Edge {
    const { clock, log } = this.#deps;
    return createEdge({
      domain: this.#config.domain,
      directory: this.#exit.directory,
      dialer: this.#exit.dialer,
      probes: this.#probes,
      clock,
      log,
      limits: this.#limits,
      nodeHandler: (exchange) => this.#answerForNode(exchange),
      isTrustedProxy: this.#isTrustedProxy,
    });
  }

  /** The login paths on a public port. In plain text a proxy has seen the token: no agent is told that it may go on. */
  #answerForNode(exchange: Exchange): Promise<Reply> {
    const isExposed = exchange.scheme === "http" && exchange.request.target.includes("/_sally/");
    if (isExposed && !this.#config.trustTlsProxy) throw new SallyError("PROXY_UNTRUSTED");
    return this.#control.enrolHandler(exchange);
  }

  #view(): ReturnType<typeof createNodeView> {
    return createNodeView({
      exit: () => this.#exit,
      clock: this.#deps.clock,
      domain: this.#config.domain,
      budget: this.#budget,
      counters: this.#counters,
      publicUrl: (name) => this.#publicUrl(name),
      connectionCount: () => this.#listeners.http.connectionCount + (this.#listeners.https?.connectionCount ?? 0),
      isReady: () => this.#isReady,
      closeTunnel: (name) => this.#exit.closeTunnel(name),
    });
  }

  #countRequests(handler: Handler): Handler {
    const counters = this.#counters;
    return (exchange) => {
      counters.requests++;
      return handler(exchange);
    };
  }

  #onExitEvent(event: ExitEvent): void {
    const { log } = this.#deps;
    switch (event.event) {
      case "link-up":
        this.#counters.linksOpened++;
        return log.info("link up", {
          link: event.link.id,
          identity: event.link.identity,
          transport: event.link.transport,
        });
      case "link-draining":
        return this.#edge.retireLink(event.link.id);
      case "link-silent":
        return this.#edge.forsakeLink(event.link.id);
      case "link-down":
        this.#edge.retireLink(event.link.id);
        return log.info("link down", { link: event.link.id, code: event.error?.code });
      case "handshake-failed":
        this.#counters.handshakesFailed++;
        return log.warn("link refused", {
          remote: formatAddress(event.remote),
          code: event.error.code,
          error: event.error.message,
        });
      case "claimed":
        return log.info("tunnel up", { name: event.name, url: this.#publicUrl(event.name), link: event.link.id });
      case "replaced":
      case "released":
        this.#edge.retireTunnel(event.name);
        return log.info(`tunnel ${event.event}`, { name: event.name, link: event.link.id });
      case "refused":
        return log.warn("names refused", {
          names: event.refused
            .slice(0, 10)
            .map(({ name = "-", code }) => `${name}: ${code}`)
            .join(", "),
          count: event.refused.length,
          identity: event.link.identity,
        });
      case "revoked":
        this.#edge.retireLink(event.link.id);
        return log.warn("link revoked", { link: event.link.id, identity: event.link.identity });
      case "origin":
        return log.info(`origin ${event.state}`, { name: event.name, link: event.link.id });
    }
  }

  #publicUrl(name: string): string {
    const { domain, publicUrl } = this.#config;
    if (publicUrl !== undefined) {
      return publicUrl.replace("://", `://${name}.`);
    }
    const { http, https } = this.#listeners;
    const isSecure = https !== undefined;
    const { port } = (https ?? http).address;
    const suffix = port === (isSecure ? 443 : 80) ? "" : `:${port}`;
    return `${isSecure ? "https" : "http"}://${name}.${domain}${suffix}`;
  }

  async #findReserved(name: string): Promise<TunnelEntry | undefined> {
    const record = await this.#registry.findName(name);
    if (record === undefined || record.leaseUntilMs <= this.#deps.clock.wallMs()) return undefined;
    return { name, state: "offline", hostHeader: { kind: "preserve" }, pathPrefix: "", originLabel: "" };
  }
}

function trustedProxies(ranges: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  const familyOf = (address: string): "ipv4" | "ipv6" => (address.includes(":") ? "ipv6" : "ipv4");
  for (const range of ranges) {
    const [address = "", prefix] = range.split("/");
    if (prefix === undefined) list.addAddress(address, familyOf(address));
    else list.addSubnet(address, Number(prefix), familyOf(address));
  }
  return (address) => list.check(address, familyOf(address));
}
