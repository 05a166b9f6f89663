// A Node HTTP server with Node's own time-outs. Answers each request with what it was and how often it came.

import { createServer } from "node:http";

const seen = new Map();
const connections = new Set();

const server = createServer((request, response) => {
  connections.add(request.socket);
  const body = [];
  request.on("data", (chunk) => body.push(chunk));
  request.on("end", () => {
    const id = `${request.method} ${request.url} ${Buffer.concat(body)}`;
    const count = (seen.get(id) ?? 0) + 1;
    seen.set(id, count);
    response.setHeader("Content-Type", "application/json");
    response.end(`${JSON.stringify({ id, count, requests: seen.size, connections: connections.size })}\n`);
  });
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${JSON.stringify({ port: server.address().port })}\n`));
