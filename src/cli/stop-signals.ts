/** Ctrl-C and SIGTERM as an AbortSignal: the first asks to stop in good order, the second ends the process at once. */

export function stopSignals(): { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort(new DOMException("stopped by a signal", "AbortError"));
  };
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, onSignal);
  return { signal: controller.signal };
}
