/**
 * A local service in a process of its own, for tests with more connections than one process may have: it switches
 * protocols when asked to and then echoes, and answers everything else with a small page on a kept connection.
 * `bun tests/fault/upgrade-origin.fixture.ts` prints its port.
 */

const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const page = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

interface State {
  head: string;
  isUpgraded: boolean;
}

const server = Bun.listen<State>({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open: (socket) => {
      socket.data = { head: "", isUpgraded: false };
    },
    data: (socket, chunk) => {
      const { data } = socket;
      if (data.isUpgraded) return void socket.write(chunk);
      data.head += chunk.toString("latin1");
      if (!data.head.endsWith("\r\n\r\n")) return undefined;
      data.isUpgraded = /\r\nupgrade:/i.test(data.head);
      data.head = "";
      return void socket.write(data.isUpgraded ? switching : page);
    },
    end: (socket) => void socket.end(),
    error: (socket) => socket.terminate(),
  },
});
process.stdout.write(`${server.port}\n`);
