/**
 * `npm run bench`: measures Sallyport, other tunnels and the origin itself in one run, in interleaved rounds, and writes
 * docs/benchmarks.md. Other tunnels are used where they are installed and named where they are not; nothing is
 * downloaded or built. Everything runs on loopback, on ports from the system, and every process started is stopped.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { directName, Skipped, type Bench, type Case, type Contender } from "./bench.ts";
import { cases } from "./cases/table.ts";
import { createCertificate } from "./certificate.ts";
import { Wrk } from "./load/wrk.ts";
import { describeMachine } from "./machine.ts";
import { parseOptions, usage, type Options } from "./options.ts";
import { writeFiles } from "./origin.ts";
import { otherTunnels, ownTunnels } from "./peers/table.ts";
import type { Peer } from "./peers/peer.ts";
import { ProcessKeeper, run } from "./processes.ts";
import { formatReport, type CaseResult } from "./report.ts";
import { Tools } from "./tools.ts";

const root = join(import.meta.dir, "..");

interface Found {
  readonly contenders: readonly Contender[];
  /** What was asked for and is not there, with the reason. */
  readonly missing: readonly string[];
}

async function findContenders(options: Options, tools: Tools): Promise<Found> {
  const unknown = options.peers?.filter((name) => !otherTunnels.some((peer) => peer.name === name)) ?? [];
  if (unknown.length > 0) throw new Error(`no such peer: ${unknown.join(", ")}`);
  const wanted: readonly Peer[] = [
    ...(options.withSally ? ownTunnels : []),
    ...otherTunnels.filter(({ name }) => options.peers === undefined || options.peers.includes(name)),
  ];
  const nginx = (await run([tools.need("nginx"), "-v"])).replace(/.*nginx\//s, "").trim();
  const contenders: Contender[] = [
    { name: directName, setup: "nginx, one worker, no tunnel", version: nginx, peer: undefined },
  ];
  const missing: string[] = [];
  for (const peer of wanted) {
    const absent = peer.programs.filter((program) => tools.find(program) === undefined);
    if (absent.length > 0) {
      missing.push(`${peer.name} (${absent.join(", ")} not installed)`);
      continue;
    }
    try {
      contenders.push({ name: peer.name, setup: peer.setup, version: await peer.version(tools), peer });
    } catch (error) {
      missing.push(`${peer.name} (${error instanceof Error ? error.message : String(error)})`);
    }
  }
  return { contenders, missing };
}

function selectCases(only: readonly string[]): readonly Case[] {
  const groups = new Set(cases.flatMap(({ group, name }) => [group, name]));
  const unknown = only.filter((group) => !groups.has(group));
  if (unknown.length > 0) throw new Error(`no such group: ${unknown.join(", ")}; there are ${[...groups].join(", ")}`);
  return cases.filter(({ group, name }) => only.length === 0 || only.includes(group) || only.includes(name));
}

async function runCase(bench: Bench, one: Case): Promise<CaseResult> {
  const { name, title, rateUnit, cpuUnit } = one;
  bench.progress(`== ${title}`);
  try {
    return { name, title, rateUnit, cpuUnit, rows: await one.run(bench) };
  } catch (error) {
    if (!(error instanceof Skipped)) throw error;
    bench.progress(`skipped: ${error.message}`);
    return { name, title, rateUnit, cpuUnit, rows: [], skipped: error.message };
  }
}

interface Workshop extends Pick<Bench, "scratch" | "keeper" | "cleanups"> {
  /** Stops and removes everything that the benchmark made. */
  clear(): Promise<void>;
}

function openWorkshop(): Workshop {
  const scratch = mkdtempSync(join(tmpdir(), "sally-bench-"));
  const keeper = new ProcessKeeper(scratch);
  const cleanups = new Set<() => Promise<void>>();
  const clear = async (): Promise<void> => {
    await keeper.stopAll();
    for (const cleanup of cleanups) await cleanup();
    rmSync(scratch, { recursive: true, force: true });
  };
  return { scratch, keeper, cleanups, clear };
}

async function benchmark(options: Options, { scratch, keeper, cleanups }: Workshop): Promise<boolean> {
  const selected = selectCases(options.only);
  const tools = new Tools(process.env["SALLY_PEERS"], process.env["PATH"]);
  for (const program of ["wrk", "nginx", "openssl"]) tools.need(program);
  const { contenders, missing } = await findContenders(options, tools);
  for (const text of missing) process.stderr.write(`not measured: ${text}\n`);
  const needsBulk = selected.some(({ group }) => group === "bulk");
  const bench: Bench = {
    options,
    keeper,
    tools,
    scratch,
    cleanups,
    contenders,
    certificate: await createCertificate(tools.need("openssl"), scratch),
    files: writeFiles(scratch, needsBulk ? options.bulkMb : 1),
    wrk: new Wrk(tools),
    progress: (text) => process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`),
  };
  const results: CaseResult[] = [];
  for (const one of selected) results.push(await runCase(bench, one));
  const { seconds, rounds, bulkMb } = options;
  const command = ["npm run bench", ...(Bun.argv.length > 2 ? ["--", ...Bun.argv.slice(2)] : [])].join(" ");
  const machine = await describeMachine(root);
  const text = formatReport({ command, machine, seconds, rounds, bulkMb, contenders, missing, results });
  process.stdout.write(text);
  if (options.output !== undefined) writeFileSync(options.output, text);
  return results.every(({ rows }) => rows.every(({ failure }) => failure === undefined));
}

async function main(): Promise<number> {
  let options: Options;
  try {
    options = parseOptions(Bun.argv.slice(2), join(root, "docs", "benchmarks.md"));
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`);
    return 2;
  }
  if (options.help) {
    process.stdout.write(usage);
    return 0;
  }
  const workshop = openWorkshop();
  const interrupt = (): void => {
    void workshop.clear().finally(() => process.exit(130));
  };
  process.once("SIGINT", interrupt);
  process.once("SIGTERM", interrupt);
  try {
    return (await benchmark(options, workshop)) ? 0 : 1;
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  } finally {
    await workshop.clear();
  }
}

process.exit(await main());
