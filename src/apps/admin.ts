/** The admin API of a node on this machine, with the token that lies in its data folder. */

import { join } from "node:path";
import { type AdminClient, createAdminClient } from "../api/admin-client.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { connectSocket } from "../sockets/connect.ts";
import { readText } from "./files.ts";
import { callHttp } from "./http-call.ts";

export interface AdminOptions {
  /** `http://HOST:PORT`. */
  readonly admin: string;
  /** The node's data folder. */
  readonly data: string;
  /** Reading the status takes no token. */
  readonly needsToken: boolean;
}

/** @throws SallyError USAGE for a malformed address, AUTH_FAILED without a token; calls throw CONNECT_FAILED when no node runs there */
export async function openAdmin(options: AdminOptions): Promise<AdminClient> {
  const url = URL.canParse(options.admin) ? new URL(options.admin) : undefined;
  if (url?.protocol !== "http:") {
    throw new SallyError("USAGE", `"${options.admin}" is not an admin address: use http://HOST:PORT`);
  }
  const tokenFile = join(options.data, "admin.token");
  const adminToken = (await readText(tokenFile))?.trim();
  if (adminToken === undefined && options.needsToken) {
    throw new SallyError("AUTH_FAILED", `there is no ${tokenFile}: pass --data with the data folder of the node`);
  }
  const port = url.port === "" ? 80 : Number(url.port);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return createAdminClient({
    adminToken: adminToken ?? "",
    async request(method, path, { body, headers }) {
      const signal = AbortSignal.timeout(limits.connectMs);
      const socket = await connectSocket({ kind: "tcp", host, port }, { signal, timeoutMs: limits.connectMs });
      const call = { method, path, host: url.host, ...(body === undefined ? {} : { body }) };
      return await callHttp(socket.duplex, { ...call, ...(headers === undefined ? {} : { headers }) }, signal);
    },
  });
}
