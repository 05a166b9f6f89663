// Takes the first 20 bytes of a request, counts it as done, and breaks off as Python's socketserver does when a handler
// raises: it ends its side, then closes with the rest unread, so that a FIN is followed by a reset. `GET /warm` is
// answered, so that the next request comes on a kept connection.

import { createServer, Socket } from "node:net";

let executed = 0;

createServer({ pauseOnConnect: true }, (accepted) => {
  let head = "";
  const callback = (length, buffer) => {
    head += buffer.toString("latin1", 0, length);
    if (head.startsWith("GET /warm")) {
      if (!head.endsWith("\r\n\r\n")) return true;
      head = "";
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwarm");
      return true;
    }
    executed++;
    process.stdout.write(`${JSON.stringify({ executed, head })}\n`);
    socket.end(() => socket.destroy());
    return false;
  };
  // What does not fit into the buffer stays in the system's queue.
  const socket = new Socket({ handle: accepted._handle, onread: { buffer: Buffer.alloc(20), callback } });
  socket.on("error", () => {});
  socket.resume();
}).listen(0, "127.0.0.1", function listening() {
  process.stdout.write(`${JSON.stringify({ port: this.address().port })}\n`);
});
