/** h1spec: 33 requests, whole, broken and cut off, and the statuses that RFC 9112 allows for them. */

import { join } from "node:path";
import { execute, type Entry, type Suite, type SuiteEnvironment, type SuiteOrigin, type SuiteResult } from "./suite.ts";

const testsExpected = 33;
const timeoutMs = 60_000;

export const h1spec: Suite = {
  name: "h1spec",
  title: `h1spec, HTTP/1.1, ${testsExpected} tests`,
  checkout: "h1spec",
  source: "github.com/uNetworking/h1spec",
  host: { name: "example", domain: "com" },
  missing: async () => undefined,
  startOrigin,
  run,
};

/** Echoes the body of every request, whatever its method. */
function startOrigin(): SuiteOrigin {
  let requestCount = 0;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      requestCount++;
      return new Response(await request.arrayBuffer(), { headers: { "Content-Type": "text/plain" } });
    },
  });
  return {
    port: server.port ?? 0,
    complaints: [],
    get requestCount() {
      return requestCount;
    },
    stop: () => void server.stop(true),
  };
}

async function run(entry: Entry, { checkout }: SuiteEnvironment): Promise<SuiteResult> {
  const shim = join(import.meta.dir, "deno-shim.ts");
  const argv = [process.execPath, "--preload", shim, join(checkout, "http_test.ts"), entry.host, String(entry.port)];
  const { output } = await execute(argv, { timeoutMs });
  const lines = output.split("\n").map((line) => line.trim());
  const passed = lines.filter((line) => line.startsWith("✅")).length;
  const failures = lines.filter((line) => line.startsWith("❌") || line.startsWith("Error"));
  const total = Number(/out of (\d+) tests/.exec(output)?.[1] ?? 0);
  if (total !== testsExpected) failures.push(`${total} tests ran instead of ${testsExpected}: ${output.slice(-300)}`);
  return {
    summary: `${passed} of ${total} passed`,
    failures,
    command: "bun --preload tests/system/suites/deno-shim.ts http_test.ts HOST PORT",
  };
}
