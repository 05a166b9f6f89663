// A Node HTTP server with one path for each thing that clients do.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { gzipSync } from "node:zlib";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const page = "grüße ".repeat(10_000);

/** Each path with what it does. */
const paths = {
  "/json": (request, response) => response.end(JSON.stringify({ host: request.headers.host, url: request.url })),
  "/gzip": (_request, response) => {
    response.setHeader("Content-Encoding", "gzip");
    response.end(gzipSync(page));
  },
  "/cookies": (_request, response) => {
    response.setHeader("Set-Cookie", ["a=1; Path=/", "b=2, with a comma", "c=3"]);
    response.end();
  },
  "/redirect": (_request, response) => response.writeHead(302, { Location: "/json?from=redirect" }).end(),
  "/etag": (request, response) => {
    response.setHeader("ETag", '"tag"');
    if (request.headers["if-none-match"] === '"tag"') response.writeHead(304).end();
    else response.end("content");
  },
  "/echo": (request, response) => request.pipe(response),
  "/hash": (request, response) => {
    const hash = createHash("sha256");
    request.on("data", (chunk) => hash.update(chunk));
    request.on("end", () => response.end(hash.digest("hex")));
  },
  "/hang": (_request, response) => {
    say({ hanging: true });
    response.on("close", () => say({ left: response.writableFinished ? "done" : "aborted" }));
  },
  "/stream": (_request, response) => {
    response.write("first\n");
    response.on("close", () => say({ streamLeft: response.writableFinished ? "done" : "aborted" }));
  },
  "/hints": (_request, response) => {
    response.writeEarlyHints({ link: ["</a.css>; rel=preload", "</b.js>; rel=preload"] });
    response.writeProcessing();
    response.end("hinted");
  },
  "/trailers": (request, response) => {
    request.resume();
    request.on("end", () => {
      response.setHeader("Trailer", "X-Checksum");
      response.write("body");
      response.addTrailers([
        ["X-Checksum", "abc"],
        ["X-Seen", JSON.stringify(request.rawTrailers)],
      ]);
      response.end();
    });
  },
  "/events": (request, response) => {
    const last = Number(request.headers["last-event-id"] ?? 0);
    say({ eventsFrom: last });
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write("retry: 6000\n\n");
    let id = last;
    const timer = setInterval(() => response.write(`id: ${++id}\ndata: event ${id}\n\n`), 20);
    response.on("close", () => clearInterval(timer));
  },
};

function handle(request, response) {
  const answer = paths[request.url.split("?")[0]];
  if (answer === undefined) response.writeHead(404).end();
  else answer(request, response);
}
const server = createServer(handle);
server.on("checkContinue", (request, response) => {
  if (request.headers["x-refuse"] !== undefined) return response.writeHead(413).end();
  response.writeContinue();
  handle(request, response);
});
server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
