/**
 * The two origins behind every tunnel: nginx with one worker for what is fetched, and a raw Bun server of our own for
 * what is sent, which hashes the body and answers with the digest.
 */

import { type Cipheriv, createCipheriv } from "node:crypto";
import { mkdirSync, openSync, writeFileSync, writeSync, closeSync } from "node:fs";
import { join } from "node:path";
import type { Place } from "./place.ts";
import { freePort, type ProcessKeeper, type Running } from "./processes.ts";
import type { Tools } from "./tools.ts";

export interface Origin {
  readonly port: number;
  readonly processes: readonly Running[];
}

export interface LargeFile {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

export interface Files {
  readonly folder: string;
  readonly bulk: LargeFile;
  /** For a line that is slower than loopback. */
  readonly far: LargeFile;
}

/** What a far line carries in four seconds at best. */
const farMb = 48;

/** Writes the files that are fetched, under their names here. */
export function writeFiles(scratch: string, bulkMb: number): Files {
  const folder = join(scratch, "files");
  mkdirSync(folder);
  const source = createCipheriv("aes-256-ctr", Buffer.alloc(32, 7), Buffer.alloc(16));
  writeFileSync(join(folder, "1k"), source.update(Buffer.alloc(1024)));
  writeFileSync(join(folder, "64k"), source.update(Buffer.alloc(64 * 1024)));
  const far = writeLargeFile(join(folder, "far"), farMb, source);
  return { folder, far, bulk: writeLargeFile(join(folder, "bulk"), bulkMb, source) };
}

/** A key stream, so that a swapped, lost or repeated piece changes its hash, which it would not in a sparse file of zeros. */
function writeLargeFile(path: string, megabytes: number, source: Cipheriv): LargeFile {
  const zeros = Buffer.alloc(1024 * 1024);
  const hash = new Bun.CryptoHasher("sha256");
  const file = openSync(path, "w");
  for (let written = 0; written < megabytes; written++) {
    const piece = source.update(zeros);
    hash.update(piece);
    writeSync(file, piece);
  }
  closeSync(file);
  return { path, bytes: megabytes * zeros.length, sha256: hash.digest("hex") };
}

export interface OriginOptions {
  readonly keeper: ProcessKeeper;
  readonly tools: Tools;
  readonly scratch: string;
  readonly place: Place;
}

/** nginx, one worker, kept-alive connections without a limit on their requests. */
export async function startFileOrigin(folder: string, options: OriginOptions): Promise<Origin> {
  const { keeper, tools, scratch, place } = options;
  const port = await freePort();
  const home = join(scratch, `nginx-${port}`);
  mkdirSync(join(home, "logs"), { recursive: true });
  const listen = [...new Set(["127.0.0.1", place.address])].map((host) => `listen ${host}:${port} backlog=4096;`);
  const config = join(home, "nginx.conf");
  writeFileSync(config, nginxConfig({ home, folder, listen: listen.join(" ") }));
  const argv = [tools.need("nginx"), "-p", home, "-c", config, "-e", join(home, "logs/error.log")];
  const nginx = keeper.start({ name: "nginx", argv: place.command(argv) });
  return { port, processes: [nginx] };
}

function nginxConfig({ home, folder, listen }: { home: string; folder: string; listen: string }): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${join(home, name)};`,
  );
  return `${process.getuid?.() === 0 ? "user root;" : ""}
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid ${join(home, "nginx.pid")};
events { worker_connections 8192; multi_accept on; }
http {
  access_log off;
  ${temporary.join(" ")}
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  open_file_cache max=16;
  default_type application/octet-stream;
  server { ${listen} root ${folder}; }
}
`;
}

/** The origin for uploads, in a process of its own. */
export async function startUploadOrigin({ keeper, place }: OriginOptions): Promise<Origin> {
  const argv = [process.execPath, join(import.meta.dir, "load", "upload-origin.ts"), place.address];
  const origin = keeper.start({ name: "upload-origin", argv: place.command(argv) });
  const port = await origin.line((line) => (/^\d+$/.test(line) ? Number(line) : undefined), 10_000);
  return { port, processes: [origin] };
}
