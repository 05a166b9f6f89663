/** Ctrl-C and SIGTERM as an AbortSignal: the first asks to stop in good order, the second ends the process at once. */

import { constants } from "node:os";

export function stopSignals(): { readonly signal: AbortSignal } {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(128 + constants.signals[name]);
      controller.abort(new DOMException("stopped by a signal", "AbortError"));
    });
  }
  return { signal: controller.signal };
}
