// A WebSocket server with the ws package: echoes, and does what a message that starts with "do:" asks for.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const server = createServer((_request, response) => response.end("no socket"));
const sockets = new WebSocketServer({
  server,
  perMessageDeflate: true,
  maxPayload: 64 * 1024 * 1024,
  handleProtocols: (offered) => [...offered].find((name) => name.startsWith("good")) ?? false,
});

sockets.on("headers", (headers) => headers.push("X-Origin: ws"));
sockets.on("connection", (socket, request) => {
  // Sent in the same packet as the 101, or right behind it.
  socket.send(`hello ${request.url}`);
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? "" : data.toString();
    if (text === "do:ping") socket.ping("from origin");
    else if (text.startsWith("do:close:")) socket.close(Number(text.slice(9)), "asked to");
    else if (text === "do:terminate") socket.terminate();
    else socket.send(data, { binary: isBinary });
  });
  socket.on("ping", (data) => say({ ping: data.toString() }));
  socket.on("close", (code, reason) => say({ closed: code, reason: reason.toString() }));
  socket.on("error", (error) => say({ error: error.message }));
});
server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
