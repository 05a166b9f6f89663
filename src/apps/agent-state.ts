/**
 * What an agent keeps between runs, under SALLY_HOME: its installation id, and for each node and token one credential
 * (key, certificate, the node's CA) in one private file, so that key and certificate cannot part in a power cut.
 */

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { z } from "zod";
import { SallyError } from "../core/errors.ts";
import { readText, writeText } from "./files.ts";

const credentialSchema = z.object({
  version: z.literal(1),
  identity: z.string(),
  caFingerprint: z.string().regex(/^[0-9a-f]{64}$/),
  caPem: z.string(),
  keyPem: z.string(),
  certificatePem: z.string(),
  /** When the certificate came, by this machine's clock. */
  receivedMs: z.number(),
});

/** Everything an agent needs to link to one node. Holds a private key: never logged. */
export type Credential = z.output<typeof credentialSchema>;

const edgeSchema = z.object({
  credential: z.string().regex(/^[0-9a-f]{16,64}$/),
  /** What chose the credential: a login outlasts tokens that are given to single commands. */
  by: z.enum(["login", "token"]).default("login"),
});
const loginSchema = z.object({ edge: z.string() });

export class AgentState {
  readonly #home: string;

  constructor(home: string) {
    this.#home = home;
  }

  /** A random id of this folder, made on first use: two laptops of one owner differ in it. */
  async installation(): Promise<string> {
    const path = join(this.#home, "installation");
    const known = (await readText(path))?.trim();
    if (known !== undefined && /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(known)) return known;
    const fresh = randomBytes(12).toString("hex");
    await writeText(path, `${fresh}\n`);
    return fresh;
  }

  /** `key` tells credentials apart: the hash of the join token they came from. Undefined when absent or damaged. */
  async readCredential(key: string): Promise<Credential | undefined> {
    const text = await readText(this.#credentialPath(key));
    return text === undefined ? undefined : parse(credentialSchema, text);
  }

  async writeCredential(key: string, credential: Credential): Promise<void> {
    await writeText(this.#credentialPath(key), `${JSON.stringify(credential)}\n`);
  }

  /** Which credential `sally login`, or else the token given last, chose for a node's `host:port`. */
  async credentialKeyFor(edge: string): Promise<string | undefined> {
    return (await this.#readEdge(edge))?.credential;
  }

  /** `sally login` chose this credential for this node, and this node for commands that name none. */
  async rememberEdge({ authority, url }: { authority: string; url: string }, key: string): Promise<void> {
    await this.#writeEdge(authority, { credential: key, by: "login" });
    await writeText(this.#loginPath(), `${JSON.stringify({ edge: url })}\n`);
  }

  /** This credential came from a token that a command was given: used without one too, unless a login chose another. */
  async rememberToken(edge: string, key: string): Promise<void> {
    const known = await this.#readEdge(edge);
    if (known?.by === "login" || known?.credential === key) return;
    await this.#writeEdge(edge, { credential: key, by: "token" });
  }

  /** URL of the node of the last login. */
  async lastEdge(): Promise<string | undefined> {
    const text = await readText(this.#loginPath());
    return text === undefined ? undefined : parse(loginSchema, text)?.edge;
  }

  async #readEdge(edge: string): Promise<z.output<typeof edgeSchema> | undefined> {
    const text = await readText(this.#edgePath(edge));
    return text === undefined ? undefined : parse(edgeSchema, text);
  }

  async #writeEdge(edge: string, choice: z.output<typeof edgeSchema>): Promise<void> {
    await writeText(this.#edgePath(edge), `${JSON.stringify(choice)}\n`);
  }

  #loginPath(): string {
    return join(this.#home, "login.json");
  }

  #credentialPath(key: string): string {
    if (!/^[0-9a-f]{16,64}$/.test(key)) throw new SallyError("INTERNAL", "a credential key is a hash");
    return join(this.#home, "credentials", `${key}.json`);
  }

  #edgePath(edge: string): string {
    return join(this.#home, "edges", `${encodeURIComponent(edge)}.json`);
  }
}

/** A damaged file counts as none: enrolling again replaces it. */
function parse<Schema extends z.ZodType>(schema: Schema, text: string): z.output<Schema> | undefined {
  try {
    const parsed = schema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}
