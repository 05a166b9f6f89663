/**
 * Bun asks Linux to report ICMP errors on its UDP sockets (IP_RECVERR). An agent that was killed has no port any more;
 * each packet for it then makes some later send on the node's one socket fail, whoever that was for, and the QUIC
 * library answers a failed send by sending nothing to anybody for a second. There is no option against it, so the
 * socket option is taken back; where that cannot be done (no Linux, no FFI) nothing is lost but this.
 */

import { ptr } from "bun:ffi";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { openLibc } from "../../sockets/libc.ts";

const solIp = 0;
const ipRecvErr = 11;
const solIpv6 = 41;
const ipv6RecvErr = 25;

/** Stops the UDP sockets of this process on `port` from reporting ICMP errors. False where that is not possible. */
export function ignoreIcmpErrors(port: number): boolean {
  if (process.platform !== "linux") return false;
  try {
    const descriptors = udpDescriptors(port);
    const libc = openLibc({ setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" } });
    const off = new Int32Array(1);
    for (const fd of descriptors) {
      libc.symbols.setsockopt(fd, solIp, ipRecvErr, ptr(off), off.byteLength);
      libc.symbols.setsockopt(fd, solIpv6, ipv6RecvErr, ptr(off), off.byteLength); // refused by IPv4 sockets
    }
    return descriptors.length > 0;
  } catch {
    return false; // no /proc, or no C library that can be opened
  }
}

/** node:quic does not tell its file descriptors: the kernel's tables lead from the port to them. */
function udpDescriptors(port: number): number[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const sockets = new Set<string>();
  for (const table of ["/proc/self/net/udp", "/proc/self/net/udp6"]) {
    for (const line of readFileSync(table, "latin1").split("\n")) {
      const fields = line.trim().split(/\s+/);
      if (fields[1]?.endsWith(suffix) === true) sockets.add(`socket:[${fields[9]}]`);
    }
  }
  return readdirSync("/proc/self/fd")
    .map(Number)
    .filter((fd) => sockets.has(linkOf(fd)));
}

/** The descriptor of the listing itself is closed by now. */
function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "";
  }
}
