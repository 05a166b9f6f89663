/** A gigabyte each way, over each transport; tests/e2e has the same with less. */

import { describe, setDefaultTimeout, test } from "bun:test";
import { expectBodyArrives } from "../support/bulk.ts";
import { transports } from "../support/visitor-path.ts";

setDefaultTimeout(180_000);

describe.each([...transports])("1 GB over %s", (transport) => {
  test.each([
    ["down", "length"],
    ["up", "chunked"],
  ] as const)("%s, with framing by %s", async (direction, framing) => {
    await expectBodyArrives({ transport, direction, framing, bytes: 1_000_000_000, timeoutMs: 150_000 });
  });
});
