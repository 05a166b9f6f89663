// A WebSocket client with the ws package that goes through everything once; prints one line for each step.

import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import WebSocket from "ws";

const [port, host] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

function open(path, options = {}, protocols = []) {
  return new WebSocket(`ws://127.0.0.1:${port}${path}`, protocols, { headers: { Host: host }, ...options });
}

/** Opens, and waits for the greeting that the origin sends at once. */
async function connect(path, options, protocols) {
  const socket = open(path, options, protocols);
  const [response] = await once(socket, "upgrade");
  const [greeting] = await once(socket, "message");
  return { socket, greeting: greeting.toString(), head: response.rawHeaders };
}

async function echo(socket, data, options) {
  socket.send(data, options);
  const [reply, isBinary] = await once(socket, "message");
  return isBinary ? reply : reply.toString();
}

const { socket, greeting, head } = await connect("/chat//%2f?x=1", {}, ["bad", "good.v2", "good.v1"]);
say({ greeting, protocol: socket.protocol, extensions: socket.extensions, head });

say({ text: (await echo(socket, "grüße")) === "grüße", empty: (await echo(socket, "")) === "" });
const big = randomBytes(20_000_000);
say({ binary: sha256(await echo(socket, big)) === sha256(big) });
say({ compressible: (await echo(socket, "a".repeat(1_000_000))) === "a".repeat(1_000_000) });

// In fragments, with a ping between them.
const whole = once(socket, "message");
socket.send("one ", { fin: false });
socket.ping("between");
socket.send("two ", { fin: false });
socket.send("three", { fin: true });
const pong = once(socket, "pong");
say({ fragments: (await whole)[0].toString(), pong: (await pong)[0].toString() });

const ping = once(socket, "ping");
socket.send("do:ping");
say({ pinged: (await ping)[0].toString() });

// Many at once, in order.
const received = [];
socket.on("message", (data) => received.push(data.toString()));
for (let n = 0; n < 2_000; n++) socket.send(String(n));
while (received.length < 2_000) await once(socket, "message");
say({ ordered: received.every((text, n) => text === String(n)) });

socket.close(4_321, "good bye");
const [code] = await once(socket, "close");
say({ closedByVisitor: code });

const second = await connect("/second");
second.socket.send("do:close:4567");
const [closeCode, reason] = await once(second.socket, "close");
say({ closedByOrigin: closeCode, reason: reason.toString() });

const third = await connect("/third");
third.socket.send("do:terminate");
const [cutCode] = await once(third.socket, "close");
say({ cutByOrigin: cutCode });

const fourth = await connect("/fourth");
say({ closing: "fourth" });
fourth.socket.terminate();

// Many sockets side by side.
const many = await Promise.all(Array.from({ length: 200 }, (_, n) => connect(`/many/${n}`)));
const answers = await Promise.all(many.map((one, n) => echo(one.socket, `message ${n}`)));
say({ many: answers.every((answer, n) => answer === `message ${n}` && many[n].greeting === `hello /many/${n}`) });
for (const one of many) one.socket.terminate();

say({ done: true });
