/** Typed calls of a node's admin API. */

import { z } from "zod";
import { type ApiRequest, expectDone, readReply } from "./request.ts";
import {
  type AuditInfo,
  auditInfo,
  type EnrolmentInfo,
  enrolmentInfo,
  type LinkInfo,
  linkInfo,
  type NodeStatus,
  nodeStatus,
  type TokenCreate,
  type TokenCreated,
  tokenCreated,
  type TokenInfo,
  tokenInfo,
  type TunnelInfo,
  tunnelInfo,
} from "./schemas.ts";

export interface AdminClient {
  status(): Promise<NodeStatus>;
  tunnels(): Promise<readonly TunnelInfo[]>;
  /** Closes it and gives its name back. @throws SallyError NOT_FOUND */
  closeTunnel(name: string): Promise<void>;
  links(): Promise<readonly LinkInfo[]>;
  tokens(): Promise<readonly TokenInfo[]>;
  createToken(token: TokenCreate): Promise<TokenCreated>;
  /** @throws SallyError NOT_FOUND */
  revokeToken(id: string): Promise<void>;
  enrolments(): Promise<readonly EnrolmentInfo[]>;
  /** Shuts out one installation's key. @throws SallyError NOT_FOUND */
  revokeEnrolment(keyFingerprint: string): Promise<void>;
  audit(): Promise<readonly AuditInfo[]>;
}

/** `adminToken` is the line in DATA/admin.token. Every call may throw SallyError AUTH_FAILED or FORBIDDEN. */
export function createAdminClient({ request, adminToken }: { request: ApiRequest; adminToken: string }): AdminClient {
  const headers = { authorization: `Bearer ${adminToken.trim()}`, "sally-admin": "1" };
  const get = async <T>(path: string, schema: z.ZodType<T>): Promise<T> =>
    readReply(await request("GET", path, { headers }), schema);
  const remove = async (folder: string, id: string): Promise<void> =>
    expectDone(await request("DELETE", `${folder}/${encodeURIComponent(id)}`, { headers }));
  return {
    status: () => get("/api/status", nodeStatus),
    tunnels: () => get("/api/tunnels", z.array(tunnelInfo)),
    closeTunnel: (name) => remove("/api/tunnels", name),
    links: () => get("/api/links", z.array(linkInfo)),
    tokens: () => get("/api/tokens", z.array(tokenInfo)),
    createToken: async (token) =>
      readReply(await request("POST", "/api/tokens", { headers, body: JSON.stringify(token) }), tokenCreated),
    revokeToken: (id) => remove("/api/tokens", id),
    enrolments: () => get("/api/enrolments", z.array(enrolmentInfo)),
    revokeEnrolment: (keyFingerprint) => remove("/api/enrolments", keyFingerprint),
    audit: () => get("/api/audit", z.array(auditInfo)),
  };
}
