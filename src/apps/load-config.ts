/**
 * The only place that reads the environment and configuration files. Flags win over the environment, the environment
 * over the file, the file over the defaults of the schema.
 */

import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import type { z } from "zod";
import { explainIssue } from "../config/explain-issue.ts";
import { SallyError } from "../core/errors.ts";

export interface Environment {
  /** SALLY_EDGE: URL of the node to link to. */
  readonly edge: string | undefined;
  /** SALLY_TOKEN_FILE: file with a join token. */
  readonly tokenFile: string | undefined;
  /** SALLY_HOME: folder for keys, certificates and the embedded node. Default ~/.sally. */
  readonly home: string;
  /** HTTPS_PROXY (or its lower-case form): an HTTP CONNECT proxy for WebSocket links. */
  readonly proxyUrl: string | undefined;
  readonly noProxy: readonly string[];
  readonly noColor: boolean;
  /** TERM=dumb: the terminal prints, and nothing else. */
  readonly isDumb: boolean;
}

export function readEnvironment(): Environment {
  const { env } = process;
  const proxy = env["https_proxy"] ?? env["HTTPS_PROXY"];
  return {
    edge: env["SALLY_EDGE"] || undefined,
    tokenFile: env["SALLY_TOKEN_FILE"] || undefined,
    home: env["SALLY_HOME"] || join(homedir(), ".sally"),
    proxyUrl: proxy === undefined || proxy === "" ? undefined : proxy,
    noProxy: (env["no_proxy"] ?? env["NO_PROXY"] ?? "").split(",").map((entry) => entry.trim().toLowerCase()),
    noColor: (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb",
    isDumb: env["TERM"] === "dumb",
  };
}

/** What the environment sets of an agent's configuration, to be laid over a file and under the flags. */
export function agentSettings({ edge, tokenFile }: Environment): Readonly<Record<string, string>> {
  return { ...(edge === undefined ? {} : { edge }), ...(tokenFile === undefined ? {} : { tokenFile }) };
}

/** True when NO_PROXY names the host, or a domain above it. */
export function bypassesProxy(host: string, noProxy: readonly string[]): boolean {
  const wanted = host.toLowerCase();
  return noProxy.some((entry) => {
    if (entry === "") return false;
    const suffix = entry.replace(/^\*?\./, "");
    return entry === "*" || wanted === suffix || wanted.endsWith(`.${suffix}`);
  });
}

/** Reads a YAML (or JSON) file of settings. @throws SallyError USAGE when it is missing, malformed or holds no settings */
export async function readConfigFile(path: string): Promise<Readonly<Record<string, unknown>>> {
  const text = await readGivenFile(path);
  let value: unknown;
  try {
    value = Bun.YAML.parse(text) ?? {};
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new SallyError("USAGE", `${path} is not YAML: ${why}`, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw new SallyError("USAGE", `${path} must hold settings, such as "domain:" or "tunnels:"; see docs/config.md`);
}

/** The text of a file that the user named. @throws SallyError USAGE */
export async function readGivenFile(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new SallyError("USAGE", `cannot read ${path}: check the path and its permissions`, { cause });
  }
}

/** Validates a value; the error names every wrong setting. @throws SallyError USAGE */
export function parseConfig<Schema extends z.ZodType>(schema: Schema, value: unknown, where: string): z.output<Schema> {
  const parsed = schema.safeParse(value, { error: explainIssue });
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => {
    const path = issue.path.map(String).join(".");
    return path === "" ? issue.message : `${path}: ${issue.message}`;
  });
  throw new SallyError("USAGE", `${where}: ${problems.join("; ")}`);
}
