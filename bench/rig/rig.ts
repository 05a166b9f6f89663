/**
 * Two hosts on one machine: network namespaces joined by a link that is slow and loses packets. The kernel's own netem
 * is missing on many machines, so the link is a small program (impair.c), compiled when it is needed. Needs root.
 */

import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import type { Place } from "../place.ts";
import { ProcessKeeper, run } from "../processes.ts";
import type { Tools } from "../tools.ts";

export interface LinkOptions {
  /** One way. */
  readonly delayMs: number;
  /** Of each direction. */
  readonly lossPercent: number;
  readonly rateMbit: number;
  readonly queueKb: number;
  readonly seed: number;
}

export interface LossyLink {
  /** Servers and visitors. */
  readonly server: Place;
  /** Clients and origins. */
  readonly client: Place;
  /** Cuts the line in both directions, or mends it. */
  setCut(isCut: boolean): void;
  readonly close: () => Promise<void>;
}

/** Why the link cannot be made here, or undefined. */
export function missingForLink(tools: Tools): string | undefined {
  if (process.getuid?.() !== 0) return "network namespaces need root";
  for (const program of ["ip", "cc", "curl"])
    if (tools.find(program) === undefined) return `${program} is not installed`;
  try {
    accessSync("/dev/net/tun", constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return "/dev/net/tun cannot be opened";
  }
}

export async function createLossyLink(
  options: LinkOptions,
  { tools, scratch }: { readonly tools: Tools; readonly scratch: string },
): Promise<LossyLink> {
  const ip = tools.need("ip");
  const program = join(scratch, "impair");
  await run([tools.need("cc"), "-O2", "-o", program, join(import.meta.dir, "impair.c")]);
  const hosts = [
    { name: `sally-${process.pid}-a`, address: "10.88.0.1" },
    { name: `sally-${process.pid}-b`, address: "10.88.0.2" },
  ] as const;
  for (const { name } of hosts) await run([ip, "netns", "add", name]);
  const keeper = new ProcessKeeper(scratch);
  const close = async (): Promise<void> => {
    await keeper.stopAll();
    for (const { name } of hosts) await run([ip, "netns", "del", name]);
  };
  try {
    const { delayMs, lossPercent, rateMbit, queueKb, seed } = options;
    const numbers = [delayMs * 1_000, lossPercent * 10_000, rateMbit * 1_000, queueKb * 1_024, seed].map(String);
    const impair = keeper.start({ name: "impair", argv: [program, hosts[0].name, hosts[1].name, ...numbers] });
    await impair.line((line) => (line.includes('"ready"') ? true : undefined), 5_000);
    for (const { name, address } of hosts) {
      await run([ip, "-n", name, "link", "set", "lo", "up"]);
      await run([ip, "-n", name, "address", "add", `${address}/24`, "dev", "wire"]);
      await run([ip, "-n", name, "link", "set", "wire", "mtu", "1500", "txqueuelen", "10000", "up"]);
      // Without this a later connection starts with what an earlier one learned of the link.
      await run([ip, "netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save"]);
    }
    const place = ({ name, address }: { readonly name: string; readonly address: string }): Place => ({
      address,
      command: (argv) => [ip, "netns", "exec", name, ...argv],
    });
    return {
      server: place(hosts[0]),
      client: place(hosts[1]),
      setCut: (isCut) => process.kill(impair.pid, isCut ? "SIGUSR1" : "SIGUSR2"),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
