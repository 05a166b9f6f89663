/**
 * The admin port: health, metrics, and the API that `sally status` and `sally token` use. The table of routes says
 * what each needs; ids come from the path only, so a body can never name something else.
 */

import {
  type AuditInfo,
  type EnrolmentInfo,
  type LinkInfo,
  type NodeStatus,
  tokenCreate,
  type TokenInfo,
  type TunnelInfo,
} from "../api/schemas.ts";
import type { Clock } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Logger } from "../core/log.ts";
import type { Exchange, Handler, Reply } from "../http/exchange.ts";
import type { EnrolmentRecord, Registry, TokenRecord } from "../ports/registry.ts";
import { type AdminGuardOptions, checkIntent, checkSource, checkToken, isAddressedDirectly } from "./admin-guard.ts";
import { doneReply, jsonReply, MethodError, methodOf, pathOf, readJson, textReply, withProblems } from "./http.ts";
import type { Revocations } from "./revocations.ts";
import type { TokenService } from "./token-service.ts";

/** What the other parts of the node tell the admin API. */
export interface NodeView {
  status(): NodeStatus;
  isReady(): boolean;
  /** Prometheus text format. */
  metrics(): string;
  links(): readonly LinkInfo[];
  /** Of a name that is served now. */
  liveTunnel(name: string): Pick<TunnelInfo, "url" | "origin" | "agents"> | undefined;
  /** Takes the tunnel off every link; false when none serves it. */
  closeTunnel(name: string): boolean;
}

export interface AdminHandlerOptions {
  readonly registry: Registry;
  readonly tokens: TokenService;
  readonly revocations: Revocations;
  readonly guard: AdminGuardOptions;
  readonly node: NodeView;
  readonly clock: Clock;
  readonly log: Logger;
  readonly nameQuarantineMs: number;
}

interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** A last segment `*` stands for one id. */
  readonly path: string;
  /**
   * `open`: whoever can connect. `direct`: the same, but no page behind a name that leads here. `local`: programs of
   * this machine. `admin`: those with the admin token.
   */
  readonly needs: "open" | "direct" | "local" | "admin";
  readonly run: (options: AdminHandlerOptions, exchange: Exchange, id: string) => Promise<Reply> | Reply;
}

const routes: readonly Route[] = [
  { method: "GET", path: "/healthz", needs: "open", run: () => textReply(200, "text/plain", "ok\n") },
  { method: "GET", path: "/readyz", needs: "open", run: readiness },
  { method: "GET", path: "/metrics", needs: "direct", run: metrics },
  { method: "GET", path: "/api/status", needs: "local", run: ({ node }) => jsonReply(node.status()) },
  { method: "GET", path: "/api/tunnels", needs: "local", run: listTunnels },
  { method: "DELETE", path: "/api/tunnels/*", needs: "admin", run: closeTunnel },
  { method: "GET", path: "/api/links", needs: "local", run: ({ node }) => jsonReply(node.links()) },
  { method: "GET", path: "/api/tokens", needs: "admin", run: listTokens },
  { method: "POST", path: "/api/tokens", needs: "admin", run: createToken },
  { method: "DELETE", path: "/api/tokens/*", needs: "admin", run: revokeToken },
  { method: "GET", path: "/api/enrolments", needs: "admin", run: listEnrolments },
  { method: "DELETE", path: "/api/enrolments/*", needs: "admin", run: revokeEnrolment },
  { method: "GET", path: "/api/audit", needs: "admin", run: listAudit },
];

const actor = "admin";

export function createAdminHandler(options: AdminHandlerOptions): Handler {
  return withProblems(
    async (exchange) => {
      const path = pathOf(exchange);
      const onPath = findRoutes(path);
      const found = onPath.find(({ route }) => route.method === methodOf(exchange));
      if (found?.route.needs === "open") return found.route.run(options, exchange, "");
      if (found?.route.needs === "direct" && isAddressedDirectly(exchange))
        return found.route.run(options, exchange, "");
      checkSource(exchange, options.guard);
      if (onPath.length === 0) throw new SallyError("NOT_FOUND", "The admin API has no such path.");
      if (found === undefined) throw new MethodError(methodsOf(onPath));
      const { route, id } = found;
      if (route.needs === "admin") await checkToken(exchange, options.guard);
      if (route.method !== "GET") checkIntent(exchange);
      return route.run(options, exchange, id);
    },
    options.log,
    ["STORE_FAILED"],
  ); // whoever gets this far may know what is wrong with the disk
}

interface FoundRoute {
  readonly route: Route;
  readonly id: string;
}

/** The routes of a path, one for each method. */
function findRoutes(path: string): FoundRoute[] {
  const found: FoundRoute[] = [];
  for (const route of routes) {
    if (!route.path.endsWith("/*")) {
      if (route.path === path) found.push({ route, id: "" });
      continue;
    }
    const prefix = route.path.slice(0, -1);
    // Ids of all kinds are plain text: what would need decoding is no id.
    if (path.startsWith(prefix) && /^[A-Za-z0-9_-]{1,128}$/.test(path.slice(prefix.length))) {
      found.push({ route, id: path.slice(prefix.length) });
    }
  }
  return found;
}

function methodsOf(found: readonly FoundRoute[]): string {
  return found.map(({ route: { method } }) => (method === "GET" ? "GET, HEAD" : method)).join(", ");
}

function readiness({ node }: AdminHandlerOptions): Reply {
  return node.isReady() ? textReply(200, "text/plain", "ready\n") : textReply(503, "text/plain", "not ready\n");
}

function metrics({ node }: AdminHandlerOptions): Reply {
  return textReply(200, "text/plain; version=0.0.4; charset=utf-8", node.metrics());
}

async function listTunnels({ registry, node, clock }: AdminHandlerOptions): Promise<Reply> {
  const nowMs = clock.wallMs();
  const tunnels: TunnelInfo[] = [];
  for (const { name, identity, leaseUntilMs } of await registry.listNames()) {
    const live = node.liveTunnel(name);
    if (live === undefined && leaseUntilMs <= nowMs) continue;
    tunnels.push({ name, identity, leaseUntilMs, state: live === undefined ? "offline" : "live", ...live });
    if (tunnels.length >= limits.apiListMax) break;
  }
  return jsonReply(tunnels);
}

async function closeTunnel(options: AdminHandlerOptions, _exchange: Exchange, name: string): Promise<Reply> {
  const { registry, node, clock, nameQuarantineMs } = options;
  const nowMs = clock.wallMs();
  const record = await registry.findName(name);
  if (record === undefined) throw new SallyError("NOT_FOUND", "There is no tunnel with this name.");
  await registry.releaseName(name, record.identity, nowMs, nameQuarantineMs);
  node.closeTunnel(name);
  await registry.audit({ atMs: nowMs, actor, action: "tunnel.close", subject: name });
  return doneReply();
}

async function listTokens({ tokens }: AdminHandlerOptions): Promise<Reply> {
  return jsonReply((await tokens.list()).map(tokenInfo));
}

async function createToken({ tokens }: AdminHandlerOptions, exchange: Exchange): Promise<Reply> {
  const { token, record } = await tokens.create(await readJson(exchange, tokenCreate), actor);
  return jsonReply({ token, info: tokenInfo(record) }, 201);
}

async function revokeToken({ tokens }: AdminHandlerOptions, _exchange: Exchange, id: string): Promise<Reply> {
  if (!(await tokens.revoke(id, actor))) throw new SallyError("NOT_FOUND", "There is no token with this id.");
  return doneReply();
}

async function listEnrolments({ registry }: AdminHandlerOptions): Promise<Reply> {
  const enrolments = (await registry.listEnrolments()).map(enrolmentInfo);
  return jsonReply(enrolments.toSorted((a, b) => b.renewedMs - a.renewedMs).slice(0, limits.apiListMax));
}

function enrolmentInfo(record: EnrolmentRecord): EnrolmentInfo {
  const { keyFingerprint, tokenId, identity, installation, createdMs, renewedMs, revokedMs } = record;
  const info = { keyFingerprint, tokenId, identity, installation, createdMs, renewedMs };
  return revokedMs === undefined ? info : { ...info, revokedMs };
}

async function revokeEnrolment(options: AdminHandlerOptions, _exchange: Exchange, key: string): Promise<Reply> {
  const { registry, revocations, clock } = options;
  if (!(await revocations.revokeEnrolment(key))) throw new SallyError("NOT_FOUND", "There is no such enrolment.");
  await registry.audit({ atMs: clock.wallMs(), actor, action: "agent.revoke", subject: key.slice(0, 16) });
  return doneReply();
}

async function listAudit({ registry }: AdminHandlerOptions): Promise<Reply> {
  const records: readonly AuditInfo[] = await registry.listAudit(limits.apiListMax);
  return jsonReply(records);
}

/** Neither the secret, which is not known any more, nor its hash. */
function tokenInfo({ id, label, identity, scope, createdMs, expiresMs, revokedMs }: TokenRecord): TokenInfo {
  return {
    id,
    label,
    identity,
    names: [...scope.names],
    ports: [...scope.ports],
    createdMs,
    ...(expiresMs !== undefined && { expiresMs }),
    ...(revokedMs !== undefined && { revokedMs }),
  };
}
