/**
 * `npm run test:system`: the tests that need root or Debian packages. As root it installs what is missing with apt-get;
 * otherwise, and where that is not possible, it names what is missing and fails. Nothing is skipped.
 */

import { accessSync, constants } from "node:fs";
import { finish, root, run, runTests, type Totals } from "./test-run.ts";

interface Need {
  /** Names of one program; any of them will do. */
  readonly programs: readonly string[];
  /** Debian's. */
  readonly packages: readonly string[];
}

const needs: readonly Need[] = [
  { programs: ["ip"], packages: ["iproute2"] },
  { programs: ["nft"], packages: ["nftables"] },
  { programs: ["cc", "gcc"], packages: ["gcc", "libc6-dev"] },
  { programs: ["curl"], packages: ["curl"] },
  { programs: ["nginx"], packages: ["nginx"] },
  { programs: ["openssl"], packages: ["openssl"] },
  { programs: ["ssh"], packages: ["openssh-client"] },
  { programs: ["sshd"], packages: ["openssh-server"] },
];

// Servers are found in /usr/sbin, which an ordinary login may not have in its path.
process.env["PATH"] = `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;

/** Not through Bun.which alone: it remembers the path that the process was started with. */
function has(program: string): boolean {
  return Bun.which(program, { PATH: process.env["PATH"] ?? "" }) !== null;
}

function missingNeeds(): readonly Need[] {
  return needs.filter(({ programs }) => !programs.some(has));
}

async function install(packages: readonly string[]): Promise<void> {
  process.stderr.write(`installing ${packages.join(", ")}\n`);
  const quiet = { DEBIAN_FRONTEND: "noninteractive" };
  // Without a fresh list an install may still work.
  await run(["apt-get", "update", "-qq"], quiet);
  await run(["apt-get", "install", "-qq", "--no-install-recommends", ...packages], quiet);
}

async function works(command: readonly string[]): Promise<boolean> {
  try {
    return (await Bun.spawn([...command], { stdio: ["ignore", "ignore", "ignore"] }).exited) === 0;
  } catch {
    return false;
  }
}

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** What keeps the tests from running, as sentences. */
async function findObstacles(): Promise<readonly string[]> {
  const obstacles: string[] = [];
  const isRoot = process.getuid?.() === 0;
  const packages = missingNeeds().flatMap((need) => need.packages);
  if (packages.length > 0 && isRoot && has("apt-get")) await install(packages);
  for (const { programs, packages: wanted } of missingNeeds()) {
    obstacles.push(`${programs[0]} is not installed (Debian: ${wanted.join(" ")})`);
  }
  if (!isRoot) return [...obstacles, "network namespaces need root: run this as root"];
  const probe = `sally-probe-${process.pid}`;
  const hasNamespaces = await works(["ip", "netns", "add", probe]);
  if (hasNamespaces) await works(["ip", "netns", "del", probe]);
  else obstacles.push('"ip netns add" is refused: a container needs the capabilities SYS_ADMIN and NET_ADMIN');
  if (!mayOpen("/dev/net/tun")) obstacles.push("/dev/net/tun cannot be opened: load the module tun");
  return obstacles;
}

async function findTests(): Promise<string[]> {
  const files = await Array.fromAsync(new Bun.Glob("tests/system/**/*.test.ts").scan(root));
  return files.filter((file) => !file.startsWith("tests/system/suites/")).toSorted();
}

const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
const obstacles = await findObstacles();
if (obstacles.length > 0) {
  process.stderr.write(`the system tests cannot run:\n${obstacles.map((line) => `  ${line}\n`).join("")}`);
  totals.failed++;
} else await runTests(await findTests(), totals);
finish(totals);
