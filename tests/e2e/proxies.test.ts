/** Agents whose way to the node leads through proxies: HTTP CONNECT on their side, TLS termination on the node's. */

import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, createSecureContext } from "node:tls";
import { runSally, startOrigin, visit } from "../support/command.ts";
import { createPublicAuthority, type PublicAuthority } from "../support/public-certificates.ts";
import { SallyProcess, Scratch, startNode, type TestNode } from "../support/sally.ts";

interface TestProxy extends AsyncDisposable {
  readonly port: number;
  /** What was asked for, in order. */
  readonly seen: string[];
  /** What a proxy that ends TLS could read of its clients. */
  readonly readable: Buffer[];
}

function join(one: Socket, other: Socket): void {
  one.pipe(other).pipe(one);
  for (const [socket, peer] of [
    [one, other],
    [other, one],
  ] as const) {
    socket.on("error", () => peer.destroy());
    socket.on("close", () => peer.destroy());
  }
}

async function listening(server: Server, seen: string[], readable: Buffer[] = []): Promise<TestProxy> {
  const open = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port, // it listens on TCP
    seen,
    readable,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** An HTTP CONNECT proxy with a password. Every name leads to this machine. */
async function connectProxy(credentials: string): Promise<TestProxy> {
  const seen: string[] = [];
  const wanted = `Basic ${Buffer.from(credentials).toString("base64")}`;
  const server = createServer((client) => {
    let head = "";
    client.on("error", () => client.destroy());
    const onData = (chunk: Buffer): void => {
      head += chunk.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      client.off("data", onData);
      client.pause();
      const target = /^CONNECT (\S+):(\d+) HTTP\/1\.1\r\n/.exec(head);
      if (target === null) return void client.end("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n");
      if (!head.toLowerCase().includes(`proxy-authorization: ${wanted.toLowerCase()}`)) {
        seen.push("407");
        return void client.end('HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n');
      }
      seen.push(target[1]!); // the pattern has two groups
      const upstream = connect(Number(target[2]), "127.0.0.1", () => {
        client.write("HTTP/1.1 200 Connection established\r\n\r\n");
        join(client, upstream);
      });
      upstream.on("error", () => client.destroy());
    };
    client.on("data", onData);
  });
  return await listening(server, seen);
}

interface TlsProxyOptions {
  readonly authority: PublicAuthority;
  readonly port: () => number;
  /** Refuses TLS to other names, as Caddy and many load balancers do. */
  readonly isStrict?: boolean;
  readonly expired?: boolean;
}

/** Ends TLS for tunnels.localhost and its names, and passes plain bytes on. */
async function tlsProxy({ authority, port, isStrict = false, expired = false }: TlsProxyOptions): Promise<TestProxy> {
  const seen: string[] = [];
  const readable: Buffer[] = [];
  const { keyPem: key, certPem: cert } = await authority.issue(["tunnels.localhost", "*.tunnels.localhost"], {
    expired,
  });
  const server = createTlsServer(
    {
      key,
      cert,
      SNICallback(name, done) {
        seen.push(name);
        if (isStrict && !name.endsWith("tunnels.localhost")) return done(new Error("not a name of ours"));
        done(null, createSecureContext({ key, cert }));
      },
    },
    (client) => {
      const upstream = connect(port(), "127.0.0.1", () => {
        client.on("data", (chunk: Buffer) => readable.push(chunk));
        join(client, upstream);
      });
      upstream.on("error", () => client.destroy());
    },
  );
  server.on("tlsClientError", () => {});
  return await listening(server, seen, readable);
}

const domain = ["--domain", "tunnels.localhost"];

interface Behind extends AsyncDisposable {
  readonly node: TestNode;
  readonly proxy: TestProxy;
  readonly edge: string;
  readonly env: Record<string, string>;
}

/** A node that can only be reached through a proxy that ends TLS. */
async function behindTlsProxy(
  options: { args?: readonly string[]; isStrict?: boolean; expired?: boolean; isTrusted?: boolean } = {},
): Promise<Behind> {
  const stack = new AsyncDisposableStack();
  const scratch = stack.use(new Scratch());
  const authority = await createPublicAuthority();
  let httpPort = 0;
  const proxy = stack.use(await tlsProxy({ authority, port: () => httpPort, ...options }));
  const edge = `https://tunnels.localhost:${proxy.port}`;
  const node = stack.use(await startNode({ args: [...domain, "--public-url", edge, ...(options.args ?? [])] }));
  httpPort = node.port;
  writeFileSync(scratch.join("root.pem"), authority.caPem);
  const env = {
    SALLY_HOME: scratch.join("home"),
    ...(options.isTrusted === false ? {} : { NODE_EXTRA_CA_CERTS: scratch.join("root.pem") }),
  };
  return { node, proxy, edge, env, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

function readableOf(proxy: TestProxy): string {
  return Buffer.concat(proxy.readable).toString("latin1");
}

function secretIn({ tokenFile }: TestNode): string {
  return readFileSync(tokenFile, "utf8").slice(6, 49);
}

describe("an HTTP CONNECT proxy", () => {
  test.each(["auto", "websocket"])(
    "carries enrolment and links, with its password (%s)",
    async (transport) => {
      await using node = await startNode();
      await using origin = startOrigin("app");
      await using proxy = await connectProxy("ann:pa ss%word");
      using home = new Scratch();
      const edge = node.tunnel.replace("127.0.0.1", "node.example.test"); // only the proxy knows this name
      const env = { SALLY_HOME: home.path, HTTPS_PROXY: `http://ann:pa%20ss%25word@127.0.0.1:${proxy.port}` };
      const args = ["http", String(origin.port), "--name", "demo", "--edge", edge, "--token-file", node.tokenFile];
      await using agent = new SallyProcess([...args, "--transport", transport, "--json"], { env });
      const tunnel = await agent.waitFor("tunnel");
      expect(tunnel).toMatchObject({ name: "demo", transport: "websocket" });
      const { status, body } = await visit(String(tunnel["url"]));
      expect([status, body]).toEqual([200, `app demo.localhost:${node.port} /`]);
      expect(new Set(proxy.seen)).toEqual(new Set(["node.example.test"]));
      expect(proxy.seen.length).toBeGreaterThan(8); // the CA, the enrolment, and eight lanes
    },
    60_000,
  );

  test("that wants other credentials is named, and its password is not", async () => {
    await using node = await startNode();
    await using proxy = await connectProxy("ann:right");
    using home = new Scratch();
    const edge = node.tunnel.replace("127.0.0.1", "node.example.test");
    const env = { SALLY_HOME: home.path, HTTPS_PROXY: `http://ann:wrong-password@127.0.0.1:${proxy.port}` };
    const run = await runSally(["http", "1", "--edge", edge, "--token-file", node.tokenFile, "--json"], { env });
    expect([run.code, run.events.at(-1)?.["code"]]).toEqual([3, "AUTH_FAILED"]);
    expect(run.stderr).toContain("proxy wants other credentials (407)");
    expect(run.stdout + run.stderr).not.toContain("wrong-password");
    expect(proxy.seen).toEqual(["407"]);

    const bypassed = { ...env, NO_PROXY: "example.test" };
    const direct = await runSally(["doctor", "--edge", edge, "--json"], { env: bypassed });
    expect(direct.stdout).toContain("node.example.test"); // asked for by ourselves, in vain
    expect(proxy.seen).toEqual(["407"]);
  }, 60_000);

  test("is not asked for nodes on this machine", async () => {
    await using node = await startNode();
    using home = new Scratch();
    const env = { SALLY_HOME: home.path, HTTPS_PROXY: "http://127.0.0.1:9" };
    await using agent = new SallyProcess(
      ["http", "1", "--edge", node.tunnel, "--token-file", node.tokenFile, "--json"],
      { env },
    );
    await agent.waitFor("tunnel");
  }, 60_000);
});

describe("a proxy that ends TLS in front of the node", () => {
  test.each([false, true])(
    "carries enrolment and links where the node trusts it (strict about names: %p)",
    async (isStrict) => {
      await using behind = await behindTlsProxy({ args: ["--trust-tls-proxy"], isStrict });
      await using origin = startOrigin("app");
      const { node, edge, env } = behind;
      const args = ["http", String(origin.port), "--name", "demo", "--edge", edge, "--json"];
      await using agent = new SallyProcess([...args, "--token-file", node.tokenFile], { env });
      expect(await agent.waitFor("tunnel")).toMatchObject({
        url: `https://demo.tunnels.localhost:${behind.proxy.port}`,
        transport: "websocket",
      });
      const through = await fetch(`https://127.0.0.1:${behind.proxy.port}/x`, {
        headers: { host: "demo.tunnels.localhost" },
        tls: { rejectUnauthorized: false },
      });
      expect([through.status, await through.text()]).toEqual([200, "app demo.tunnels.localhost /x"]);
      expect(readableOf(behind.proxy)).toContain(secretIn(node)); // what the flag's name and the docs warn of
      // And again with the certificate that it has now, and without the token.
      await agent.stop();
      expect((await runSally(["login", edge, "--token-file", node.tokenFile], { env })).code).toBe(0);
      await using again = new SallyProcess(args, { env });
      await again.waitFor("tunnel");
    },
    60_000,
  );

  test("is refused where the node does not trust it, before the token is sent", async () => {
    await using behind = await behindTlsProxy();
    const { node, edge, env } = behind;
    const run = await runSally(["http", "1", "--edge", edge, "--token-file", node.tokenFile, "--json"], { env });
    expect([run.code, run.events.at(-1)?.["code"]]).toEqual([3, "PROXY_UNTRUSTED"]);
    expect(run.stderr).toContain("--trust-tls-proxy");
    expect((await runSally(["login", edge, "--token-file", node.tokenFile], { env })).code).toBe(3);
    expect(readableOf(behind.proxy)).toContain("GET /_sally/ca ");
    expect(readableOf(behind.proxy)).not.toContain(secretIn(node));

    // Enrolled on the direct way, the link itself is refused as well.
    const direct = await runSally(["login", node.tunnel, "--token-file", node.tokenFile], { env });
    expect(direct.code).toBe(0);
    const args = ["http", "1", "--edge", edge, "--token-file", node.tokenFile, "--transport", "websocket", "--json"];
    const late = await runSally(args, { env });
    expect([late.code, late.events.at(-1)?.["code"]]).toEqual([3, "PROXY_UNTRUSTED"]);
  }, 60_000);

  test("needs a certificate that this machine trusts", async () => {
    for (const options of [{ isTrusted: false }, { expired: true }]) {
      await using behind = await behindTlsProxy({ args: ["--trust-tls-proxy"], ...options });
      const { node, edge, env } = behind;
      const run = await runSally(["http", "1", "--edge", edge, "--token-file", node.tokenFile, "--json"], { env });
      expect([run.code, run.events.at(-1)?.["code"]]).toEqual([3, "CA_MISMATCH"]);
    }
  }, 60_000);

  test("in front of another node is found out", async () => {
    await using behind = await behindTlsProxy({ args: ["--trust-tls-proxy"] });
    await using other = await startNode();
    const { edge, env } = behind;
    const run = await runSally(["http", "1", "--edge", edge, "--token-file", other.tokenFile, "--json"], { env });
    expect([run.code, run.events.at(-1)?.["code"]]).toEqual([3, "CA_MISMATCH"]);
    expect(run.stderr).not.toContain(readFileSync(other.tokenFile, "utf8").slice(6, 30));
  }, 60_000);
});

test("the node's own public HTTPS port takes links, without trust in any proxy", async () => {
  using scratch = new Scratch();
  const authority = await createPublicAuthority();
  const { keyPem, certPem } = await authority.issue(["tunnels.localhost", "*.tunnels.localhost"]);
  for (const [name, text] of Object.entries({ "root.pem": authority.caPem, "cert.pem": certPem, "key.pem": keyPem })) {
    writeFileSync(scratch.join(name), text);
  }
  const config = scratch.join("node.yaml");
  writeFileSync(config, `tls:\n  certFile: ${scratch.join("cert.pem")}\n  keyFile: ${scratch.join("key.pem")}\n`);
  await using node = await startNode({ args: [...domain, "--https", "127.0.0.1:0", "--config", config] });
  await using origin = startOrigin("app");
  const https = String((await node.process.waitFor("ready"))["https"]);
  const edge = https.replace("127.0.0.1", "tunnels.localhost");
  const env = { SALLY_HOME: scratch.join("home"), NODE_EXTRA_CA_CERTS: scratch.join("root.pem") };
  const args = [
    "http",
    String(origin.port),
    "--name",
    "demo",
    "--edge",
    edge,
    "--token-file",
    node.tokenFile,
    "--json",
  ];
  await using agent = new SallyProcess(args, { env });
  expect(await agent.waitFor("tunnel")).toMatchObject({
    url: `https://demo.${new URL(edge).host}`,
    transport: "websocket",
  });

  // With a proxy in the middle the exporter differs: the link does not stand.
  await using proxy = await reEncryptingProxy(authority, Number(new URL(https).port));
  const through = args.with(args.indexOf(edge), `https://tunnels.localhost:${proxy.port}`);
  const run = await runSally(through, { env });
  expect([run.code, run.events.at(-1)?.["code"]]).toEqual([3, "CERTIFICATE_INVALID"]);
}, 60_000);

/** Ends TLS and starts it again towards the node. */
async function reEncryptingProxy(authority: PublicAuthority, port: number): Promise<TestProxy> {
  const { connect: connectTls } = await import("node:tls");
  const { keyPem: key, certPem: cert } = await authority.issue(["tunnels.localhost"]);
  const server = createTlsServer({ key, cert }, (client) => {
    const upstream = connectTls(
      { port, host: "127.0.0.1", servername: "tunnels.localhost", rejectUnauthorized: false },
      () => join(client, upstream),
    );
    upstream.on("error", () => client.destroy());
  });
  server.on("tlsClientError", () => {});
  return await listening(server, []);
}
