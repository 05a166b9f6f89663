// Node's fetch and http module as visitors; prints one line for each step.

import "./resolve-localhost.mjs";
import { createHash, randomBytes } from "node:crypto";
import { Agent, request } from "node:http";

const [base] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

// fetch
say({ json: await (await fetch(`${base}/json?a=%2F..%2f&&b`)).json() });
say({ gzip: (await (await fetch(`${base}/gzip`)).text()).length });
say({ cookies: (await fetch(`${base}/cookies`)).headers.getSetCookie() });
say({ redirected: (await (await fetch(`${base}/redirect`)).json()).url });
say({ notModified: (await fetch(`${base}/etag`, { headers: { "If-None-Match": '"tag"' } })).status });
const upload = randomBytes(5_000_000);
async function* pieces() {
  for (let at = 0; at < upload.length; at += 10_001) yield upload.subarray(at, at + 10_001);
}
const streamed = await fetch(`${base}/hash`, { method: "POST", body: ReadableStream.from(pieces()), duplex: "half" });
say({ streamed: (await streamed.text()) === sha256(upload) });
const echoed = await fetch(`${base}/echo`, { method: "PUT", body: upload });
say({ echoed: sha256(Buffer.from(await echoed.arrayBuffer())) === sha256(upload) });
const parallel = await Promise.all(
  Array.from(
    { length: 200 },
    async (_, n) => (await (await fetch(`${base}/json?n=${n}`)).json()).url === `/json?n=${n}`,
  ),
);
say({ parallel: parallel.every(Boolean) });

const giveUp = new AbortController();
const hanging = fetch(`${base}/hang`, { signal: giveUp.signal }).catch((error) => error.name);
setTimeout(() => giveUp.abort(), 200);
say({ hanging: await hanging });
const reading = new AbortController();
const stream = await fetch(`${base}/stream`, { signal: reading.signal });
const reader = stream.body.getReader();
say({ first: new TextDecoder().decode((await reader.read()).value) });
reading.abort();
say({ second: await reader.read().catch((error) => error.name) });

// http
const agent = new Agent({ keepAlive: true, maxSockets: 4 });
function send(path, { body = [], trailers, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const interim = [];
    const outgoing = request(`${base}${path}`, { agent, ...options }, async (response) => {
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      resolve({
        status: response.statusCode,
        body: Buffer.concat(chunks).toString(),
        trailers: response.rawTrailers,
        interim,
        isReused: outgoing.reusedSocket,
      });
    });
    outgoing.on("information", ({ statusCode, rawHeaders }) => interim.push([statusCode, ...rawHeaders]));
    outgoing.on("continue", () => {
      interim.push("continue");
      outgoing.end("expected");
    });
    outgoing.on("error", reject);
    if (options.headers?.Expect !== undefined) return outgoing.flushHeaders();
    for (const piece of body) outgoing.write(piece);
    if (trailers !== undefined) outgoing.addTrailers(trailers);
    outgoing.end();
  });
}
say({ hints: await send("/hints") });
say({
  trailers: await send("/trailers", {
    method: "POST",
    body: ["a", "b"],
    headers: { Trailer: "X-Sum" },
    trailers: { "X-Sum": "1" },
  }),
});
say({ expected: await send("/echo", { method: "POST", headers: { Expect: "100-continue", "Content-Length": 8 } }) });
say({
  refused: await send("/echo", {
    method: "POST",
    headers: { Expect: "100-continue", "Content-Length": 8, "X-Refuse": "1" },
  }),
});
say({ head: await send("/etag", { method: "HEAD" }) });
let reused = 0;
for (let n = 0; n < 20; n++) if ((await send("/json")).isReused) reused++;
say({ reused });
say({ done: true });
process.exit();
