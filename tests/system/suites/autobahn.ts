/**
 * The Autobahn test suite's fuzzing client, cases 1–7 and 10 (247 of them), against a real echo server. Most of its time
 * is waiting, so the cases are dealt out to several clients at once.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { execute, type Entry, type Suite, type SuiteEnvironment, type SuiteOrigin, type SuiteResult } from "./suite.ts";

const casesExpected = 247;
const clients = 3;
const timeoutMs = 300_000;
const maxMessageBytes = 64 * 1024 * 1024;
const utf8Groups = Array.from({ length: 23 }, (_, index) => `6.${index + 1}`);
const groups = ["1", "2", "3", "4", "5", "7", "10", ...utf8Groups].map((group) => `${group}.*`);

/** The suite's own second for a close is too short on a busy machine: every server fails it there now and then. */
const patience = { failByDrop: false, closeHandshakeTimeout: 10, serverConnectionDropTimeout: 10 };

/**
 * Starts the fuzzing client from the checkout. `*.localhost` is loopback (RFC 6761, section 6.3), but not every system's
 * resolver knows it, so the name is answered here. A report of a case that holds bytes would otherwise end in an error
 * that leaves the client waiting for ever.
 */
const launcher = `
import json, socket, sys
json.JSONEncoder.default = lambda self, value: value.decode("latin-1") if isinstance(value, bytes) else str(value)
ask = socket.getaddrinfo
def getaddrinfo(host, *rest, **named):
    name = host.decode() if isinstance(host, bytes) else host
    return ask("127.0.0.1" if isinstance(name, str) and name.endswith(".localhost") else host, *rest, **named)
socket.getaddrinfo = getaddrinfo
resolve = socket.gethostbyname
socket.gethostbyname = lambda host: "127.0.0.1" if host.endswith(".localhost") else resolve(host)
sys.argv = ["wstest", "-m", "fuzzingclient", "-s", sys.argv[1]]
from autobahntestsuite.wstest import run
run()
`;

export const autobahn: Suite = {
  name: "autobahn",
  title: `Autobahn, WebSocket, ${casesExpected} cases`,
  checkout: "autobahn-testsuite",
  source: "github.com/ricardo-valero/autobahn-testsuite",
  missing: async (environment) => {
    const probe = [environment.python, "-c", "import autobahntestsuite.wstest"];
    const { code, output } = await execute(probe, { env: pythonPath(environment), timeoutMs: 60_000 });
    const reason = output.trim().split("\n").at(-1);
    return code === 0
      ? undefined
      : `Python modules for Autobahn: ${reason} (set SALLY_PYTHON to a Python that has them)`;
  },
  startOrigin,
  run,
};

function pythonPath({ checkout }: SuiteEnvironment): Record<string, string> {
  return { PYTHONPATH: join(checkout, "autobahntestsuite"), PYTHONDONTWRITEBYTECODE: "1" };
}

function startOrigin(): SuiteOrigin {
  let requestCount = 0;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request, own) {
      requestCount++;
      return own.upgrade(request) ? undefined : new Response("a WebSocket echo lives here\n", { status: 426 });
    },
    websocket: {
      maxPayloadLength: maxMessageBytes,
      message(socket, message) {
        socket.send(message);
      },
    },
  });
  return {
    port: server.port ?? 0,
    complaints: [],
    get requestCount() {
      return requestCount;
    },
    stop: () => void server.stop(true),
  };
}

async function run(entry: Entry, environment: SuiteEnvironment): Promise<SuiteResult> {
  const url = `ws://${entry.hostHeader.replace(/:\d+$/, "")}:${entry.port}`;
  const hands = Array.from({ length: clients }, (_, hand) => groups.filter((_, index) => index % clients === hand));
  const reports = await Promise.all(hands.map((cases, hand) => runClient({ url, cases, hand }, environment)));
  const all = reports.flatMap((report) => Object.entries(report));
  const bad = all.filter(([, { behavior, behaviorClose }]) => !isGood(behavior) || !isGood(behaviorClose));
  const failures = await Promise.all(bad.map(([name, outcome]) => explain(name, outcome, environment)));
  if (all.length !== casesExpected) failures.push(`${all.length} cases ran instead of ${casesExpected}`);
  const count = (kind: string): number => all.filter(([, { behavior }]) => behavior === kind).length;
  const good = `${count("OK")} OK, ${count("NON-STRICT")} non-strict, ${count("INFORMATIONAL")} informational`;
  return {
    summary: `${good}, ${failures.length} failed`,
    failures,
    command: `wstest -m fuzzingclient -s SPEC (cases *, without 9.*, 12.*, 13.*; options ${JSON.stringify(patience)})`,
  };
}

/** Adds the suite's own words, which are in a file for each case. */
async function explain(name: string, outcome: Outcome, { scratch }: SuiteEnvironment): Promise<string> {
  const pattern = new Glob(`client-*/reports/tested_case_${name.replaceAll(".", "_")}.json`);
  const [file] = await Array.fromAsync(pattern.scan({ cwd: scratch, absolute: true }));
  const report = file === undefined ? {} : ((await Bun.file(file).json()) as Readonly<Record<string, string | null>>); // the suite's own format
  const reasons = ["result", "resultClose", "wasNotCleanReason"].map((field) => report[field] ?? "");
  return `case ${name}: ${outcome.behavior}, close ${outcome.behaviorClose} (${reasons.join("; ")})`;
}

interface Outcome {
  readonly behavior: string;
  readonly behaviorClose: string;
}

function isGood(behavior: string): boolean {
  return behavior === "OK" || behavior === "NON-STRICT" || behavior === "INFORMATIONAL";
}

async function runClient(
  { url, cases, hand }: { readonly url: string; readonly cases: readonly string[]; readonly hand: number },
  environment: SuiteEnvironment,
): Promise<Readonly<Record<string, Outcome>>> {
  const folder = join(environment.scratch, `client-${hand}`);
  mkdirSync(folder);
  const spec = join(folder, "spec.json");
  const servers = [{ agent: "tested", url, options: patience }];
  writeFileSync(spec, JSON.stringify({ outdir: join(folder, "reports"), servers, cases, "exclude-cases": [] }));
  const argv = [environment.python, "-c", launcher, spec];
  const { output } = await execute(argv, { cwd: folder, env: pythonPath(environment), timeoutMs });
  const index = Bun.file(join(folder, "reports", "index.json"));
  if (!(await index.exists())) throw new Error(`Autobahn wrote no report: ${output.trim().slice(-600)}`);
  const report = (await index.json()) as { tested?: Record<string, Outcome> }; // the suite's own format
  return report.tested ?? {};
}
