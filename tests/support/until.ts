/** Waiting in tests: a condition is looked at again and again until it holds or its time is over; never a blind pause. */

const lookEveryMs = 10;

/** What `look` returned once it was neither false, null nor undefined. Errors of `look` count as "not yet". */
export async function until<T>(
  what: string,
  look: () => T | Promise<T>,
  timeoutMs = 20_000,
): Promise<Exclude<T, false | null | undefined>> {
  const deadlineMs = performance.now() + timeoutMs;
  let trouble: unknown;
  for (;;) {
    try {
      const seen = await look();
      if (seen !== undefined && seen !== null && seen !== false) return seen as Exclude<T, false | null | undefined>;
      trouble = undefined;
    } catch (thrown) {
      trouble = thrown;
    }
    if (performance.now() > deadlineMs) {
      throw new Error(`waited ${timeoutMs} ms in vain: ${what}`, trouble === undefined ? {} : { cause: trouble });
    }
    await Bun.sleep(lookEveryMs);
  }
}
