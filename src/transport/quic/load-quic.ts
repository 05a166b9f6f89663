/**
 * Gets `node:quic`, only when it is wanted: a platform without it still runs the WebSocket transport. The module warns
 * that it is experimental while it is evaluated, which is of no use to users. Evaluation is synchronous here, so the
 * filter is in place for that one call and can neither hide nor delay a warning of anybody else.
 */

import { SallyError } from "../../core/errors.ts";
import type * as quic from "node:quic";

export type QuicModule = typeof quic;

/** @throws SallyError CONNECT_FAILED when this runtime has no `node:quic`. */
export function loadQuic(): QuicModule {
  // oxlint-disable-next-line typescript/unbound-method -- put back unchanged below
  const emitWarning = process.emitWarning;
  process.emitWarning = (warning: string | Error, ...rest: unknown[]): void => {
    if (rest[0] === "ExperimentalWarning" && String(warning).includes("quic")) return;
    Reflect.apply(emitWarning, process, [warning, ...rest]);
  };
  try {
    const module: unknown = process.getBuiltinModule("node:quic");
    if (module === undefined) throw new SallyError("CONNECT_FAILED", "This runtime has no node:quic: use WebSocket.");
    return module as QuicModule; // the shape of node-quic.d.ts; checked by the contract tests
  } finally {
    process.emitWarning = emitWarning;
  }
}
