/**
 * An HTTP/1.1 origin of the smallest kind: it hashes the body of each POST with a content length and answers with the
 * digest; to everything else it answers 200 with nothing. Started with the address to listen on; prints its port.
 */

interface Upload {
  head: Buffer;
  hash: Bun.CryptoHasher | undefined;
  leftBytes: number;
}

const headMaxBytes = 64 * 1024;

function reply(status: string, body: string): string {
  return `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\nContent-Type: text/plain\r\n\r\n${body}`;
}

function receive(socket: Bun.Socket<Upload>, chunk: Buffer): void {
  const state = socket.data;
  let rest = chunk;
  while (rest.length > 0) {
    if (state.hash === undefined) {
      const all = Buffer.concat([state.head, rest]);
      const end = all.indexOf("\r\n\r\n");
      if (end < 0 && all.length < headMaxBytes) {
        state.head = all;
        return;
      }
      const head = all.toString("latin1", 0, end);
      if (end < 0 || /^transfer-encoding:/im.test(head)) {
        socket.end(reply("411 Length Required", ""));
        return;
      }
      state.head = Buffer.alloc(0);
      state.hash = new Bun.CryptoHasher("sha256");
      state.leftBytes = Number(/^content-length:\s*(\d+)/im.exec(head)?.[1] ?? 0);
      if (/^expect:/im.test(head)) socket.write("HTTP/1.1 100 Continue\r\n\r\n");
      rest = all.subarray(end + 4);
    }
    const body = rest.subarray(0, state.leftBytes);
    state.hash.update(body);
    state.leftBytes -= body.length;
    rest = rest.subarray(body.length);
    if (state.leftBytes > 0) return;
    socket.write(reply("200 OK", state.hash.digest("hex")));
    state.hash = undefined;
  }
}

const addresses = new Set(["127.0.0.1", Bun.argv[2] ?? "127.0.0.1"]);
let port = 0;
for (const hostname of addresses) {
  const listener = Bun.listen<Upload>({
    hostname,
    port,
    socket: {
      open(socket) {
        socket.data = { head: Buffer.alloc(0), hash: undefined, leftBytes: 0 };
      },
      data: receive,
    },
  });
  port = listener.port;
}
process.stdout.write(`${port}\n`);
