/**
 * Two hosts on one machine: the edge, where the node and its visitors are, and the laptop, where the agent and the origin
 * are. Each is a network namespace; between them there is one wire with the delay and the loss that a test asks for. The
 * wire is bench/rig/impair.c, compiled here: the kernel's own netem is missing on many machines. Needs root.
 */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Scratch, JsonProcess } from "../../support/sally.ts";

const impairSource = join(import.meta.dir, "..", "..", "..", "bench", "rig", "impair.c");
const namePrefix = "sally-test";
const network = "10.88.0.0/24";
let opened = 0;

export interface WireOptions {
  /** One way; default 0. */
  readonly delayMs?: number;
  /** Of each direction; default 0. */
  readonly lossPercent?: number;
  /** Default without limit. */
  readonly rateMbit?: number;
}

/** Runs a program to its end. @throws Error with what it said, unless it ended well */
export async function execute(command: readonly string[], input = ""): Promise<string> {
  const child = Bun.spawn([...command], { stdio: [new Blob([input]), "pipe", "pipe"] });
  const [output, complaint, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${complaint}`);
  return output;
}

/** A network namespace. */
export class Host {
  readonly name: string;
  readonly address: string;
  /** Put before a command to run it here. */
  readonly wrap: readonly string[];

  constructor(name: string, address: string) {
    this.name = name;
    this.address = address;
    this.wrap = ["ip", "netns", "exec", name];
  }

  run(command: readonly string[], input = ""): Promise<string> {
    return execute([...this.wrap, ...command], input);
  }

  /** A program that prints JSON lines; a file of ours runs with Bun. */
  start(command: readonly string[]): JsonProcess {
    const [program = "", ...args] = command;
    const own = program.endsWith(".ts") ? [process.execPath, join(import.meta.dir, program)] : [program];
    return new JsonProcess([...this.wrap, ...own, ...args]);
  }

  /** Replaces the packet filter of this host; an empty text takes it away. */
  async filter(rules: string): Promise<void> {
    await this.run(["nft", "-f", "-"], `flush ruleset\n${rules}\n`);
  }

  /** Nothing that is UDP leaves or reaches this host. */
  async setUdpBlocked(isBlocked: boolean): Promise<void> {
    const chain = (hook: string): string =>
      `chain ${hook} { type filter hook ${hook} priority 0; policy accept; meta l4proto udp drop; }`;
    await this.filter(isBlocked ? `table inet block {\n${chain("input")}\n${chain("output")}\n}` : "");
  }

  /** From one network to another that was there before the first one went: at no moment is there no way out. */
  async handOver(address: string): Promise<void> {
    await this.run(["ip", "address", "add", `${address}/24`, "dev", "wire"]);
    // Else the kernel takes the one route away with the first address, and adds it for the second a moment later.
    await this.run(["ip", "route", "add", network, "dev", "wire", "src", address, "metric", "100"]);
    await this.run(["ip", "address", "del", `${this.address}/24`, "dev", "wire"]);
  }

  /** From one network to another, with none for a moment, in which sending fails. */
  async move(address: string): Promise<void> {
    await this.run(["ip", "address", "flush", "dev", "wire", "scope", "global"]);
    await this.run(["ip", "address", "add", `${address}/24`, "dev", "wire"]);
  }
}

export class TwoHosts implements AsyncDisposable {
  readonly edge: Host;
  readonly laptop: Host;
  readonly #wire: JsonProcess;
  readonly #stack: AsyncDisposableStack;

  static async open({ delayMs = 0, lossPercent = 0, rateMbit = 0 }: WireOptions = {}): Promise<TwoHosts> {
    await removeLeftovers();
    await using stack = new AsyncDisposableStack();
    const scratch = stack.use(new Scratch());
    const program = scratch.join("impair");
    await execute(["cc", "-O2", "-o", program, impairSource]);
    const prefix = `${namePrefix}-${process.pid}-${++opened}`;
    const hosts = [new Host(`${prefix}-edge`, "10.88.0.1"), new Host(`${prefix}-laptop`, "10.88.0.2")] as const;
    for (const { name } of hosts) {
      await execute(["ip", "netns", "add", name]);
      stack.defer(async () => void (await execute(["ip", "netns", "del", name])));
    }
    const numbers = [delayMs * 1_000, lossPercent * 10_000, rateMbit * 1_000, 1_024 * 1_024, 1].map(String);
    const wire = stack.use(new JsonProcess([program, hosts[0].name, hosts[1].name, ...numbers]));
    await wire.waitFor("ready");
    for (const host of hosts) {
      await host.run(["ip", "link", "set", "lo", "up"]);
      await host.run(["ip", "address", "add", `${host.address}/24`, "dev", "wire"]);
      await host.run(["ip", "link", "set", "wire", "mtu", "1500", "txqueuelen", "10000", "up"]);
      // A second address of a network outlives the first.
      await host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/wire/promote_secondaries"]);
    }
    return new TwoHosts(hosts, wire, stack.move());
  }

  private constructor([edge, laptop]: readonly [Host, Host], wire: JsonProcess, stack: AsyncDisposableStack) {
    this.edge = edge;
    this.laptop = laptop;
    this.#wire = wire;
    this.#stack = stack;
  }

  /** A cut wire loses everything, in both directions. */
  setCut(isCut: boolean): void {
    this.#wire.kill(isCut ? "SIGUSR1" : "SIGUSR2");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

/** What a test run that was killed left behind. */
async function removeLeftovers(): Promise<void> {
  const names = (await execute(["ip", "netns", "list"])).split("\n").map((line) => line.split(" ")[0] ?? "");
  const running = new Set(readdirSync("/proc"));
  for (const name of names) {
    const owner = new RegExp(`^${namePrefix}-(\\d+)-`).exec(name)?.[1];
    if (owner !== undefined && !running.has(owner)) await execute(["ip", "netns", "del", name]);
  }
}
