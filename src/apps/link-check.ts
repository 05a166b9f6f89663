/** Whether a node can be reached over one transport with the certificate that `sally login` left here. */

import type { Clock } from "../core/clock.ts";
import type { Connector, TransportKind } from "../ports/session.ts";
import { createQuicConnector, QuicEndpoints } from "../transport/quic/connector.ts";
import type { EdgeAddress } from "./edge-address.ts";
import { type EnrolOptions, obtainCredential, renew, validityOf } from "./enrol.ts";
import { createNodeWebsocket } from "./node-access.ts";

export interface LinkCheck {
  readonly edge: EdgeAddress;
  readonly transport: Exclude<TransportKind, "memory">;
  readonly state: EnrolOptions["state"];
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Milliseconds until the connection stood, TLS included. @throws SallyError AUTH_FAILED without login, CONNECT_FAILED, CONNECT_TIMEOUT … */
export async function checkLink({ edge, transport, state, clock, signal }: LinkCheck): Promise<number> {
  const enrolment = { edges: [edge], state, signal };
  const known = await obtainCredential(enrolment, undefined);
  const isCurrent = clock.wallMs() < validityOf(known.credential).notAfterMs;
  const { credential } = isCurrent ? known : await renew(enrolment, known);
  const { keyPem, certificatePem: certPem, caPem } = credential;
  const tls = (): { keyPem: string; certPem: string; caPem: string } => ({ keyPem, certPem, caPem });
  const startedMs = clock.nowMs();
  const endpoints = new QuicEndpoints();
  const connector: Connector =
    transport === "quic"
      ? createQuicConnector({ address: edge, tls, endpoints, clock })
      : createNodeWebsocket({ edge, tls, clock });
  try {
    const session = await connector.connect(signal);
    const tookMs = clock.nowMs() - startedMs;
    session.close();
    return tookMs;
  } finally {
    await endpoints.close();
  }
}
