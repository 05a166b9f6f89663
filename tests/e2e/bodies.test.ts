/** Large bodies end to end: every byte arrives, and neither node nor agent holds more of them than its windows. */

import { describe, setDefaultTimeout, test } from "bun:test";
import { expectBodyArrives } from "../support/bulk.ts";
import { transports } from "../support/visitor-path.ts";

setDefaultTimeout(120_000);

describe.each([...transports])("256 MB over %s", (transport) => {
  test.each([
    ["down", "length"],
    ["down", "chunked"],
    ["up", "length"],
    ["up", "chunked"],
  ] as const)("%s, with framing by %s", async (direction, framing) => {
    await expectBodyArrives({ transport, direction, framing, bytes: 256_000_000, timeoutMs: 100_000 });
  });
});
