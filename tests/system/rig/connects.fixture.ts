/** Connects to a port of this machine so many times, and says how each ended: PORT COUNT. */

import { SallyError } from "../../../src/core/errors.ts";
import { connectSocket } from "../../../src/sockets/connect.ts";

const [port = 0, count = 0] = process.argv.slice(2).map(Number);
const ends: string[] = [];
for (let i = 0; i < count; i++) {
  const end = await connectSocket(
    { kind: "tcp", host: "127.0.0.1", port },
    { signal: new AbortController().signal, timeoutMs: 5_000 },
  ).then(
    ({ duplex }) => {
      duplex.reset(new SallyError("CANCELLED"));
      return "connected";
    },
    (error: SallyError) => `${error.code}: ${error.message}`,
  );
  ends.push(end);
}
process.stdout.write(`${JSON.stringify({ event: "done", ends })}\n`);
