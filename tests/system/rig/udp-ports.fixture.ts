/** Takes the UDP ports that it is given, and says so: PORT…. */

import { createSocket } from "node:dgram";
import { once } from "node:events";

for (const port of process.argv.slice(2)) {
  const socket = createSocket("udp4");
  socket.bind(Number(port), "127.0.0.1");
  await once(socket, "listening");
}
process.stdout.write(`${JSON.stringify({ event: "taken" })}\n`);
