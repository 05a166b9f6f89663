/**
 * A local service to try Sallyport with: it shows the request exactly as it arrived, ticks a clock over server-sent
 * events and echoes WebSocket messages. Usage: sample-app.ts [PORT]; prints the port it listens on.
 */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";

let requestCount = 0;

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function showRequest(request: IncomingMessage): string {
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    lines.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
  }
  return lines.join("\n");
}

const page = (request: IncomingMessage): string => `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>It works</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { max-width: 46rem; margin: 3rem auto; padding: 0 1rem }
  pre, output { display: block; padding: 1rem; border: 1px solid #8884; border-radius: .5rem; overflow-x: auto }
  button { font: inherit }
</style>
<h1>It works</h1>
<p>This page comes from a server on localhost, through a Sallyport edge. Request number ${requestCount}:</p>
<pre>${escapeHtml(showRequest(request))}</pre>
<h2>Server-sent events</h2><output id="clock">waiting …</output>
<h2>WebSocket echo</h2>
<form id="form"><input id="text" value="hello"> <button>Send</button></form><output id="echo">not connected</output>
<script>
  new EventSource("/clock").onmessage = (event) => { clock.textContent = event.data };
  const socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[^/]*$/, "echo"));
  socket.onopen = () => { echo.textContent = "connected" };
  socket.onmessage = (event) => { echo.textContent = "echo: " + event.data };
  form.onsubmit = (event) => { event.preventDefault(); socket.send(text.value) };
</script></html>`;

function tickClock(response: ServerResponse): void {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  const tick = (): void => void response.write(`data: ${new Date().toISOString()}\n\n`);
  tick();
  const timer = setInterval(tick, 1_000);
  response.on("close", () => clearInterval(timer));
}

const server = createServer((request, response) => {
  if (request.url === "/clock") return tickClock(response);
  if (request.url === "/count") return void response.end(String(requestCount));
  requestCount++;
  if (request.url?.startsWith("/visitor") === true) {
    const text = `visitor ${request.url.slice(9)}\n`;
    return void response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": text.length }).end(text);
  }
  if (request.url === "/echo" && request.method === "POST") {
    response.writeHead(200, { "Content-Type": request.headers["content-type"] ?? "application/octet-stream" });
    return void request.pipe(response);
  }
  if (request.headers.accept?.includes("text/html") === true) {
    response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(page(request));
  } else response.writeHead(200, { "Content-Type": "text/plain" }).end(`${showRequest(request)}\n`);
});

const sockets = new WebSocketServer({ noServer: true });
sockets.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.on("upgrade", (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, (client) => sockets.emit("connection", client, request));
});

server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo; // a TCP server's address is never a string
  process.stdout.write(`${port}\n`);
});
