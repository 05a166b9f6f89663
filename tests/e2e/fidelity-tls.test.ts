/** Visitors over TLS: the same fidelity, and whoever breaks off is known, on the public HTTPS listener. */

import tls from "node:tls";
import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { createPublicAuthority } from "../support/public-certificates.ts";
import { RawSocket } from "../support/raw-socket.ts";
import { Scratch } from "../support/sally.ts";
import { VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

let path: VisitorPath;
let port: number;
let caPem: string;
const scratch = new Scratch();

beforeAll(async () => {
  const authority = await createPublicAuthority();
  const { keyPem, certPem } = await authority.issue(["demo.localhost"]);
  caPem = authority.caPem;
  const files = { keyFile: scratch.join("key.pem"), certFile: scratch.join("cert.pem") };
  await Bun.write(files.keyFile, keyPem);
  await Bun.write(files.certFile, certPem);
  path = await VisitorPath.open({ transport: "websocket", settings: { https: "127.0.0.1:0", tls: files } });
  const ready = await path.node.process.waitFor("ready");
  port = Number(new URL(String(ready["https"])).port);
});
afterAll(async () => {
  await path[Symbol.asyncDispose]();
  scratch[Symbol.dispose]();
});

const visitors: RawSocket[] = [];
afterEach(() => {
  for (const visitor of visitors.splice(0)) visitor.reset();
  path.forget();
});

async function visit(): Promise<RawSocket> {
  const options = { host: "127.0.0.1", port, servername: "demo.localhost", ca: caPem, allowHalfOpen: true };
  const socket = tls.connect(options);
  const visitor = new RawSocket(socket);
  await new Promise<void>((resolve, reject) => {
    socket.once("secureConnect", () => resolve());
    socket.once("error", reject);
  });
  visitors.push(visitor);
  return visitor;
}

const head = (line: string, ...fields: string[]): string =>
  [`${line} HTTP/1.1`, `Host: demo.localhost:${port}`, ...fields, "", ""].join("\r\n");

/** A visitor whose request is with the origin. */
async function ask(request: string): Promise<{ visitor: RawSocket; connection: RawSocket; seen: string }> {
  const visitor = await visit();
  visitor.write(request);
  const connection = await path.origin.accept();
  return { visitor, connection, seen: await connection.readHead() };
}

test("heads arrive as they were sent, and say https", async () => {
  const { visitor, connection, seen } = await ask(head("GET /a%2Fb/../x", "x-B: 1", "X-b: 2"));
  expect(seen).toBe(
    `GET /a%2Fb/../x HTTP/1.1\r\nHost: demo.localhost:${port}\r\nx-B: 1\r\nX-b: 2\r\nX-Forwarded-For: 127.0.0.1\r\n` +
      `X-Forwarded-Host: demo.localhost:${port}\r\nX-Forwarded-Proto: https\r\n` +
      `Forwarded: for=127.0.0.1;host="demo.localhost:${port}";proto=https\r\n\r\n`,
  );
  const reply = "HTTP/1.1 299 Fine\r\nA: 1\r\na: 2\r\nContent-Length: 2\r\n\r\nok";
  connection.write(reply);
  expect(await visitor.readUntil("ok")).toBe(reply);
});

test("bodies of megabytes pass both ways, on a connection that is kept", async () => {
  const body = "0123456789abcdef".repeat(200_000);
  const { visitor, connection } = await ask(head("POST /", `Content-Length: ${body.length}`) + body);
  expect((await connection.read(body.length)) === body).toBe(true);
  connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  await visitor.readHead();
  expect((await visitor.read(body.length)) === body).toBe(true);
  visitor.write(head("GET /next"));
  expect(await (await path.origin.accept()).readHead()).toStartWith("GET /next ");
});

test("a switch of protocols works, with bytes sent early", async () => {
  const { visitor, connection } = await ask(`${head("GET /", "Connection: Upgrade", "Upgrade: chat")}early`);
  const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\n";
  connection.write(`${switching}soon`);
  expect(await visitor.readUntil("soon")).toBe(`${switching}soon`);
  expect(await connection.readUntil("early")).toBe("early");
});

test.each(["reset", "close"] as const)(
  "a visitor that leaves by %s while the reply is silent is seen by the origin",
  async (how) => {
    const { visitor, connection } = await ask(head("GET /events"));
    connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    await visitor.readUntil("x\r\n");
    visitor[how]();
    await connection.until(() => connection.wasReset || connection.hasEnded, "end");
  },
);

test("a visitor that ended its side gets its reply", async () => {
  const visitor = await visit();
  visitor.end(head("GET /half"));
  const connection = await path.origin.accept();
  await connection.readHead();
  connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody");
  expect(await visitor.readToEnd()).toEndWith("\r\n\r\nbody");
});

test("a reply that breaks off does not end with TLS's own farewell", async () => {
  const { visitor, connection } = await ask(head("GET /cut"));
  connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
  await visitor.readUntil("part");
  connection.end();
  await visitor.until(() => visitor.isClosed || visitor.hasEnded, "end");
  expect([visitor.hasEnded, visitor.wasReset]).toEqual([false, true]);
});

test("plain HTTP on the TLS port is no request", async () => {
  const visitor = await RawSocket.connect(port);
  visitor.write(head("GET /"));
  await visitor.until(() => visitor.isClosed || visitor.hasEnded || visitor.wasReset, "end");
  expect(path.origin.receivedBytes).toBe(0);
});
