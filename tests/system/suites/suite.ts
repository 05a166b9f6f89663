/** What the runner knows of a conformance suite that others wrote, and what a run of it comes back with. */

import type { Address } from "../../../src/core/address.ts";

export interface Suite {
  readonly name: string;
  readonly title: string;
  /** Folder of the checkout inside $SALLY_SUITES, and where it comes from. */
  readonly checkout: string;
  readonly source: string;
  /** The public name that the suite's requests ask for, where it is fixed in the suite. */
  readonly host?: { readonly name: string; readonly domain: string };
  /** The suite looks at what a front passes on, so the origin alone is no subject for it. */
  readonly needsFront?: boolean;
  /** What else has to be there, or undefined; the answer names it. */
  missing(environment: SuiteEnvironment): Promise<string | undefined>;
  /** The server that the suite expects, started on a port of the system's choice. */
  startOrigin(): SuiteOrigin;
  run(entry: Entry, environment: SuiteEnvironment): Promise<SuiteResult>;
}

export interface SuiteEnvironment {
  readonly checkout: string;
  /** A folder for this run alone. */
  readonly scratch: string;
  /** Python 3 with what the suite needs. */
  readonly python: string;
  /** What the origin noted during the run. */
  readonly origin: SuiteOrigin;
}

export interface SuiteOrigin {
  readonly port: number;
  /** What the origin saw and should never see. */
  readonly complaints: readonly string[];
  readonly requestCount: number;
  stop(): void;
}

/** Where the suite sends its requests, and the host that it has to ask for. */
export interface Entry extends Address {
  readonly hostHeader: string;
}

export interface SuiteResult {
  /** One line for the report: "240 OK, 4 non-strict, 3 informational". */
  readonly summary: string;
  /** What failed, one line each. */
  readonly failures: readonly string[];
  /** The command as somebody would type it by hand. */
  readonly command: string;
}

/** How a program ended. */
export interface Ended {
  readonly code: number;
  readonly output: string;
}

export interface ExecuteOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

/** Runs a program to its end; a run that takes too long is ended and says so. */
export async function execute(argv: readonly string[], options: ExecuteOptions): Promise<Ended> {
  const child = Bun.spawn([...argv], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...Bun.env, ...options.env },
  });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, options.timeoutMs);
  const [out, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  clearTimeout(timer);
  return { code, output: isLate ? `${out}${errors}\nended after ${options.timeoutMs} ms` : out + errors };
}
