/** Which troubles end an agent, and which are tried again for ever. The error table's exit codes say most of it. */

import type { SallyError } from "../core/errors.ts";

export type FailureKind = "retry" | "renew" | "fatal";

/**
 * What to do after a failed link or claim. `wasLinked`: an agent that worked before does not give up because the network
 * it moved to has a stranger in the middle; one that never worked was given a wrong address or token.
 */
export function classifyFailure({ code, row }: SallyError, wasLinked: boolean): FailureKind {
  if (code === "CERTIFICATE_INVALID") return "renew";
  if (code === "CA_MISMATCH" || code === "PROXY_UNTRUSTED") return wasLinked ? "retry" : "fatal";
  return row.exit >= 2 ? "fatal" : "retry";
}
