// bulk-visitor.mjs PORT HOST down|up BYTES length|chunked: moves one body and prints what arrived, and its hash.

import { createHash, randomBytes } from "node:crypto";
import { request } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const [port, host, direction, size, framing] = process.argv.slice(2);
const bytes = Number(size);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const block = randomBytes(256 * 1_024);

async function* generate(hash) {
  for (let n = 0, left = bytes; left > 0; n++) {
    const piece = Buffer.from(block.subarray(0, Math.min(left, block.length)));
    if (piece.length >= 4) piece.writeUInt32BE(n);
    hash.update(piece);
    left -= piece.length;
    yield piece;
  }
}

async function read(response, hash) {
  let count = 0;
  for await (const chunk of response) {
    count += chunk.length;
    hash.update(chunk);
  }
  return count;
}

function send(options) {
  const outgoing = request({ host: "127.0.0.1", port, ...options, headers: { Host: host, ...options.headers } });
  const incoming = new Promise((resolve, reject) => {
    outgoing.on("response", resolve);
    outgoing.on("error", reject);
  });
  return { outgoing, incoming };
}

const hash = createHash("sha256");
if (direction === "down") {
  const { outgoing, incoming } = send({ path: `/down?bytes=${bytes}&framing=${framing}` });
  outgoing.end();
  const response = await incoming;
  say({ received: await read(response, hash), status: response.statusCode, sha256: hash.digest("hex") });
} else {
  const { outgoing, incoming } = send({
    method: "POST",
    path: "/up",
    headers: framing === "length" ? { "Content-Length": bytes } : { "Transfer-Encoding": "chunked" },
  });
  await pipeline(Readable.from(generate(hash)), outgoing);
  const response = await incoming;
  const text = [];
  for await (const chunk of response) text.push(chunk);
  const { bytes: received, sha256 } = JSON.parse(Buffer.concat(text).toString());
  say({ received, status: response.statusCode, sha256, sent: hash.digest("hex") });
}
process.exit();
