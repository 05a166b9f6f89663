/**
 * What a SocketDuplex costs over Bun's bare socket: 64 connections echo 200 bytes in one process, plain and TLS.
 * Run: `bun bench/micro/sockets.ts`; prints echoes a second and CPU microseconds an echo, both sides together.
 */

import { createTestAuthority } from "../../tests/contract/certificates.fixture.ts";
import type { Duplex } from "../../src/core/duplex.ts";
import { connectSocket } from "../../src/sockets/connect.ts";
import { listenTcp } from "../../src/sockets/listen.ts";

const connections = 64;
const warmUpMs = 300;
const measureMs = 2_000;
const message = new Uint8Array(200);
const signal = new AbortController().signal;

let echoes = 0;

function handle(duplex: Duplex, onData: (chunk: Uint8Array) => void): void {
  duplex.handler = {
    onData(chunk) {
      onData(chunk);
      duplex.consume(chunk.length);
    },
    onEnd: () => duplex.end(),
    onDrain() {},
    onClose() {},
  };
}

async function report(what: string): Promise<void> {
  await Bun.sleep(warmUpMs);
  echoes = 0;
  const cpu = process.cpuUsage();
  await Bun.sleep(measureMs);
  const { user, system } = process.cpuUsage(cpu);
  const rate = Math.round(echoes / (measureMs / 1_000));
  process.stdout.write(`${what.padEnd(14)} ${rate} echoes/s, ${((user + system) / echoes).toFixed(2)} us CPU\n`);
}

const authority = await createTestAuthority();
const node = await authority.issue({ role: "node" });
const tls = { keyPem: node.keyPem, certPem: node.certPem };

async function measureDuplex(isTls: boolean): Promise<void> {
  const listener = await listenTcp({
    host: "127.0.0.1",
    port: 0,
    ...(isTls ? { tls } : {}),
    onConnection: ({ duplex }) => handle(duplex, (chunk) => void duplex.write(chunk)),
  });
  const target = { kind: "tcp", host: "127.0.0.1", port: listener.address.port } as const;
  const secure = isTls ? { tls: { serverName: "node.sally.internal", caPem: authority.caPem } } : {};
  for (let i = 0; i < connections; i++) {
    const { duplex } = await connectSocket(target, { ...secure, signal, timeoutMs: 5_000 });
    handle(duplex, () => {
      echoes++;
      duplex.write(message);
    });
    duplex.write(message);
  }
  await report(isTls ? "duplex, TLS" : "duplex, TCP");
  await listener.close();
}

async function measureBare(): Promise<void> {
  const ignore = { drain() {}, close() {}, error() {} };
  const socket = { ...ignore, binaryType: "uint8array" as const };
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { ...socket, data: (peer, chunk) => void peer.write(chunk) },
  });
  for (let i = 0; i < connections; i++) {
    await Bun.connect({
      hostname: "127.0.0.1",
      port: listener.port,
      socket: {
        ...socket,
        open: (peer) => void peer.write(message),
        data(peer) {
          echoes++;
          peer.write(message);
        },
      },
    });
  }
  await report("bare, TCP");
  listener.stop(true);
}

await measureBare();
await measureDuplex(false);
await measureDuplex(true);
process.exit(0);
