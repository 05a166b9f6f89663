/** Proves that a tunnel works: one request through the node's own public listener, the link, and back. */

import type { Clock } from "../core/clock.ts";
import { formatAddress, type Address } from "../core/address.ts";
import { SallyError, toSallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { probeFieldName, type ProbeBoard } from "../edge/probe-board.ts";
import type { ProbeResult } from "../exit/link-requests.ts";
import { connectSocket } from "../sockets/connect.ts";
import { callHttp } from "./http-call.ts";

export interface ProberOptions {
  readonly board: ProbeBoard;
  readonly listener: () => Address;
  readonly domain: string;
  readonly clock: Clock;
}

export function createProber({
  board,
  listener,
  domain,
  clock,
}: ProberOptions): (name: string) => Promise<ProbeResult> {
  return async (name) => {
    const startedMs = clock.nowMs();
    const address = listener();
    const signal = AbortSignal.timeout(limits.probeMs);
    try {
      const { duplex } = await connectSocket({ kind: "tcp", ...address }, { signal, timeoutMs: limits.probeMs });
      const answer = await callHttp(
        duplex,
        {
          method: "GET",
          path: "/_sally/probe",
          host: formatAddress({ host: `${name}.${domain}`, port: address.port }),
          headers: { [probeFieldName]: board.issue(name) },
        },
        signal,
      );
      if (answer.status === 200) return { ok: true, rttMs: clock.nowMs() - startedMs };
      throw new SallyError("TUNNEL_OFFLINE", `the public listener answered the probe with ${answer.status}`);
    } catch (thrown) {
      const { code, message } = toSallyError(thrown);
      return { ok: false, code, message };
    }
  };
}
