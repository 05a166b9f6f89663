/** A node's exit and agents in one process over a real transport on loopback, without edge and control. */

import { createAgent, type Agent, type AgentOptions } from "../../src/agent/agent.ts";
import type { AgentEvent } from "../../src/agent/events.ts";
import type { AgentNode } from "../../src/agent/link-keeper.ts";
import type { AgentTunnel } from "../../src/agent/tunnel-set.ts";
import { parseOriginTarget } from "../../src/config/origin-target.ts";
import { systemClock } from "../../src/core/clock.ts";
import type { DialledStream } from "../../src/core/duplex.ts";
import { SallyError } from "../../src/core/errors.ts";
import type { LinkAuth, PeerIdentity, Role } from "../../src/core/identity.ts";
import { limits as defaultLimits, type Limits } from "../../src/core/limits.ts";
import { silentLogger } from "../../src/core/log.ts";
import { createExit, type Exit } from "../../src/exit/exit.ts";
import type { ExitEvent } from "../../src/exit/link-info.ts";
import { RequestParser } from "../../src/http/http1/head-parser.ts";
import type { StreamProtocol } from "../../src/ports/dialer.ts";
import type { Connector } from "../../src/ports/session.ts";
import { listenTcp } from "../../src/sockets/listen.ts";
import { createQuicConnector, QuicEndpoints } from "../../src/transport/quic/connector.ts";
import { listenQuic } from "../../src/transport/quic/listener.ts";
import { WebsocketLinkAcceptor } from "../../src/transport/websocket/acceptor.ts";
import { createWebsocketConnector } from "../../src/transport/websocket/connector.ts";
import { createCa, issueCertificate, nodeServerName, type Ca } from "../../src/trust/certificates.ts";
import { exportPrivateKey, generateKeyPair } from "../../src/trust/key-pair.ts";
import { createLinkAuth } from "../../src/trust/link-auth.ts";
import { encodePem } from "../../src/trust/pem.ts";
import { WindowBudget } from "../../src/wire/window-budget.ts";

/** `both`: the agent links over WebSocket and returns to QUIC. */
export type RigTransport = "quic" | "websocket" | "both";

export interface RigIdentity {
  readonly auth: LinkAuth;
  readonly keyPem: string;
  readonly certPem: string;
}

export interface RigAgent {
  readonly agent: Agent;
  readonly events: AgentEvent[];
  /** Waits for an event that passes. */
  until<K extends AgentEvent["event"]>(
    kind: K,
    test?: (event: Extract<AgentEvent, { readonly event: K }>) => boolean,
  ): Promise<Extract<AgentEvent, { readonly event: K }>>;
}

export interface SendOptions {
  readonly tunnel?: string;
  readonly protocol?: StreamProtocol;
  /** Ends our direction after the bytes. */
  readonly ends?: boolean;
}

export interface AgentSettings {
  readonly name?: string;
  readonly target: string;
  readonly identity?: string;
  readonly installation?: string;
  readonly isShared?: boolean;
  readonly options?: Partial<AgentOptions>;
}

export class LinkRig {
  exit!: Exit; // set by `startNode`, which `create` awaits
  port = 0;
  readonly owners = new Map<string, string>();
  readonly revoked = new Set<string>();
  readonly exitEvents: ExitEvent[] = [];
  readonly #ca: Ca;
  readonly caPem: string;
  readonly #transport: RigTransport;
  readonly #limits: Limits;
  readonly #endpoints = new QuicEndpoints();
  readonly #agents: Agent[] = [];
  #stopNode: (() => Promise<void>) | undefined;

  private constructor(parts: { ca: Ca; caPem: string; transport: RigTransport; limits: Limits }) {
    this.#ca = parts.ca;
    this.caPem = parts.caPem;
    this.#transport = parts.transport;
    this.#limits = parts.limits;
  }

  static async create(transport: RigTransport, overrides: Partial<Limits> = {}): Promise<LinkRig> {
    const { ca, certificatePem } = await createCa({ nowMs: Date.now() });
    const rig = new LinkRig({ ca, caPem: certificatePem, transport, limits: { ...defaultLimits, ...overrides } });
    await rig.startNode();
    return rig;
  }

  async startNode(port = 0): Promise<void> {
    const { auth, keyPem, certPem } = await this.issue("node", "node", "node");
    const exit: Exit = createExit({
      auth,
      claims: {
        claim: async (peer, request) => {
          const name = request.name ?? `derived-${request.stableKey}`;
          if ((this.owners.get(name) ?? peer.identity) !== peer.identity) {
            return { ok: false, code: "NAME_TAKEN", message: `"${name}" belongs to somebody else.` };
          }
          this.owners.set(name, peer.identity);
          return { ok: true, name };
        },
        release() {},
        touch() {},
      },
      publicUrl: (name) => `http://${name}.localhost`,
      findReserved: () => undefined,
      isRevoked: (peer) => this.revoked.has(peer.identity),
      probe: async (name) => {
        const startedMs = performance.now();
        const reply = await this.send("GET / HTTP/1.1\r\nHost: probe\r\n\r\n", { tunnel: name, protocol: "probe" });
        if (reply.endsWith("sally-probe")) return { ok: true, rttMs: performance.now() - startedMs };
        return { ok: false, code: "ORIGIN_BAD_REPLY", message: reply };
      },
      clock: systemClock,
      log: silentLogger,
      limits: this.#limits,
      budget: new WindowBudget(this.#limits.processWindowBudgetBytes),
      onEvent: (event) => void this.exitEvents.push(event),
    });
    this.exit = exit;
    const tls = { keyPem, certPem, caPem: this.caPem };
    const { port: firstPort, close } = await this.#listen(exit, tls, port);
    this.port = firstPort;
    this.#stopNode = async () => {
      await close();
      await exit.close();
    };
  }

  async stopNode(): Promise<void> {
    await this.#stopNode?.();
    this.#stopNode = undefined;
  }

  async connect(settings: AgentSettings): Promise<RigAgent> {
    const { target, identity = "ann", installation = "laptop", isShared = false } = settings;
    const { auth, keyPem, certPem } = await this.issue("agent", identity, installation);
    const events: AgentEvent[] = [];
    const waiting = new Set<() => void>();
    const tunnel: AgentTunnel = {
      name: settings.name ?? "demo",
      target: parseOriginTarget(target),
      hostHeader: { kind: "preserve" },
      isShared,
    };
    const agent = createAgent({
      nodes: [this.#node({ keyPem, certPem, caPem: this.caPem })],
      tunnels: [tunnel],
      auth: () => auth,
      agentVersion: "test",
      readLoad: () => ({ loadAverage: 0, processors: 1 }),
      clock: systemClock,
      log: silentLogger,
      limits: this.#limits,
      budget: new WindowBudget(this.#limits.processWindowBudgetBytes),
      onEvent(event) {
        events.push(event);
        for (const look of waiting) look();
      },
      ...settings.options,
    });
    this.#agents.push(agent);
    agent.start();
    return {
      agent,
      events,
      until: (kind, test = () => true) => {
        type Wanted = Extract<AgentEvent, { readonly event: typeof kind }>;
        const find = (): Wanted | undefined =>
          events.find((event): event is Wanted => event.event === kind && test(event as Wanted)); // its kind was compared
        return new Promise((resolve, reject) => {
          const timer = setTimeout(() => {
            waiting.delete(look);
            reject(new Error(`no "${kind}" event came; there were ${events.map(({ event }) => event).join(", ")}`));
          }, 4_000);
          const look = (): void => {
            const found = find();
            if (found === undefined) return;
            clearTimeout(timer);
            waiting.delete(look);
            resolve(found);
          };
          waiting.add(look);
          look();
        });
      },
    };
  }

  dial(tunnel = "demo", protocol: StreamProtocol = "http"): DialledStream {
    return this.exit.dialer.dial({ tunnel, protocol }).stream;
  }

  /** Sends bytes to a tunnel and collects what comes back until the end. Rejects with the stream's error. */
  send(bytes: string, { tunnel = "demo", protocol = "http", ends = false }: SendOptions = {}): Promise<string> {
    return collect(this.dial(tunnel, protocol), bytes, ends);
  }

  get(path: string, tunnel = "demo"): Promise<string> {
    return this.send(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`, { tunnel });
  }

  revokePeer(matches: (peer: PeerIdentity) => boolean): number {
    return this.exit.revoke(matches);
  }

  async close(): Promise<void> {
    await Promise.all(this.#agents.map((agent) => agent.close()));
    await this.stopNode();
    await this.#endpoints.close();
  }

  async #listen(exit: Exit, tls: Tls, port: number): Promise<Listening> {
    const { handshakeMs } = this.#limits;
    if (this.#transport === "quic") return listenOverQuic({ exit, tls, port, handshakeMs });
    const tcp = await listenOverTcp(exit, tls, port);
    if (this.#transport === "websocket") return tcp;
    const quic = await listenOverQuic({ exit, tls, port: tcp.port, handshakeMs });
    return {
      port: tcp.port,
      close: async () => {
        await tcp.close();
        await quic.close();
      },
    };
  }

  #node(tls: Tls): AgentNode {
    const label = `node:${this.port}`;
    if (this.#transport !== "both") return { label, connector: this.#connector(this.#transport, tls) };
    return { label, connector: this.#connector("websocket", tls), quicConnector: this.#connector("quic", tls) };
  }

  #connector(transport: "quic" | "websocket", tls: Tls): Connector {
    const address = { host: "127.0.0.1", port: this.port };
    if (transport === "quic") {
      return createQuicConnector({ address, tls, endpoints: this.#endpoints, clock: systemClock });
    }
    return createWebsocketConnector({
      url: `wss://127.0.0.1:${this.port}`,
      host: nodeServerName,
      tls: { ...tls, serverName: nodeServerName },
    });
  }

  async issue(role: Role, identity: string, installation: string): Promise<RigIdentity> {
    const pair = await generateKeyPair();
    const nowMs = Date.now();
    const certificate = await issueCertificate({
      ca: this.#ca,
      publicKeySpki: pair.publicKeySpki,
      role,
      identity,
      installation,
      nowMs,
      notAfterMs: nowMs + 3_600_000,
    });
    const auth = createLinkAuth({
      role,
      key: pair.privateKey,
      certificate,
      caCertificate: this.#ca,
      process: crypto.randomUUID(),
      clock: systemClock,
      isRevoked: (peer) => this.revoked.has(peer.identity),
      allowsProxiedTls: false,
    });
    return { auth, keyPem: await exportPrivateKey(pair.privateKey), certPem: encodePem("CERTIFICATE", certificate) };
  }
}

interface Listening {
  readonly port: number;
  close(): Promise<void>;
}

type Tls = { readonly keyPem: string; readonly certPem: string; readonly caPem: string };

interface QuicListening {
  readonly exit: Exit;
  readonly tls: Tls;
  readonly port: number;
  readonly handshakeMs: number;
}

async function listenOverQuic({ exit, ...options }: QuicListening): Promise<Listening> {
  const listener = await listenQuic({
    host: "127.0.0.1",
    ...options,
    onSession: (session) => exit.acceptSession(session),
    log: silentLogger,
    clock: systemClock,
  });
  return { port: listener.address.port, close: () => listener.close(new SallyError("DRAINING")) };
}

async function listenOverTcp(exit: Exit, tls: Tls, port: number): Promise<Listening> {
  const acceptor = new WebsocketLinkAcceptor({ onSession: (session) => exit.acceptSession(session) });
  const listener = await listenTcp({
    host: "127.0.0.1",
    port,
    tls: { ...tls, requestCert: true },
    onConnection({ duplex, remote, tls: peer }) {
      const parser = new RequestParser(defaultLimits);
      duplex.handler = {
        onData(chunk) {
          const head = parser.push(chunk, 0);
          duplex.consume(head === undefined ? chunk.length : parser.end);
          if (head === undefined) return;
          acceptor.accept({ duplex, head, remote, tls: peer, earlyBytes: chunk.subarray(parser.end) });
        },
        onEnd() {},
        onDrain() {},
        onClose() {},
      };
    },
  });
  return {
    port: listener.address.port,
    close: async () => {
      await acceptor.close();
      await listener.close();
    },
  };
}

/** Writes bytes, and resolves with everything that comes back until the other side ends. */
export function collect(stream: DialledStream, bytes: string, ends = false): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const timer = setTimeout(() => reject(new Error(`no end came; there was ${JSON.stringify(text)}`)), 4_000);
    stream.handler = {
      onData(chunk) {
        text += new TextDecoder("latin1").decode(chunk);
        stream.consume(chunk.length);
      },
      onEnd() {
        clearTimeout(timer);
        stream.end();
        resolve(text);
      },
      onDrain() {},
      onClose(error) {
        clearTimeout(timer);
        reject(error ?? new SallyError("ORIGIN_CLOSED"));
      },
    };
    stream.write(new TextEncoder().encode(bytes));
    if (ends) stream.end();
  });
}
