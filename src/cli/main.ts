/** The command line: which commands there are and which flags they take. What they do is in commands/. */

import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { limits } from "../core/limits.ts";
import { readEnvironment } from "../apps/load-config.ts";
import { version } from "../apps/version.ts";
import type { CommandContext } from "./context.ts";
import { createOutput, reportError, withoutTokens } from "./output.ts";

/** A command's own work; the number is the exit code. */
type Action<Options> = (context: CommandContext, options: Options, ...args: string[]) => Promise<number>;

function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1) throw new InvalidArgumentError("It takes a whole number above zero.");
  return count;
}

/** Runs an action with its module loaded on demand, so that `sally version` does not pay for the tunnel. */
function run<Options extends object>(load: () => Promise<Action<Options>>, { isDaemon = false } = {}) {
  return async (...raw: unknown[]): Promise<void> => {
    const command = raw.at(-1) as Command; // commander passes the command last, the options before it
    const args = raw.slice(0, -2).filter((arg): arg is string => typeof arg === "string");
    const environment = readEnvironment();
    const { json } = command.opts<{ json?: boolean }>();
    const { noColor, isDumb } = environment;
    const output = createOutput({ isJson: json === true, noColor, isDumb });
    let exitCode: number;
    try {
      const action = await load();
      exitCode = await action({ environment, output }, command.opts<Options>(), ...args);
    } catch (error) {
      exitCode = reportError(output, error);
    }
    await Promise.race(isDaemon ? [output.drained(), Bun.sleep(limits.outputLastWordsMs)] : [output.drained()]);
    // Nothing may keep a finished command alive: a pool, a timer, a half-open socket.
    process.exit(exitCode);
  };
}

const jsonFlag = (): Option => new Option("--json", "one JSON object a line on stdout");
const adminFlags = (command: Command): Command =>
  command
    .option("--admin <url>", "admin address of the node", "http://127.0.0.1:7080")
    .option("--data <dir>", "data folder of the node, for its admin token", "./sally-data")
    .addOption(jsonFlag());

function linkFlags(command: Command): Command {
  return command
    .option("--edge <url>", "node to link to, such as https://127.0.0.1:7443; repeat for more", collect)
    .addOption(new Option("--transport <kind>", "how to link").choices(["auto", "quic", "websocket"]))
    .option("--token-file <file>", "join token, needed once to enrol")
    .option("--inspect <addr>", "reserved for the local inspector (not in this version)")
    .option("--log-level <level>", "debug, info, warn or error")
    .addOption(jsonFlag());
}

function addTunnelCommands(program: Command): void {
  linkFlags(
    program
      .command("http <target>")
      .description("give a local service a public address (PORT, HOST:PORT, URL or unix:PATH)")
      .option("--name <name>", "public name; derived from identity, folder and target when absent")
      .option("--host <policy>", "Host field for the service: preserve, rewrite or a value")
      .option("--shared", "share the name with other installations of the same owner"),
  ).action(run(async () => (await import("./commands/http.ts")).runHttp, { isDaemon: true }));

  linkFlags(
    program
      .command("start")
      .description("serve every tunnel of a configuration file")
      .option("-c, --config <file>", "configuration file", "sally.yaml"),
  ).action(run(async () => (await import("./commands/start.ts")).runStart, { isDaemon: true }));

  program
    .command("edge")
    .description("run a node: the edge that visitors reach and agents link to")
    .option("--config <file>", "configuration file")
    .option("--domain <domain>", "tunnels are served as NAME.DOMAIN")
    .option("--http <addr>", "where visitors connect over HTTP")
    .option("--https <addr>", "where visitors connect over HTTPS")
    .option("--tunnel <addr>", "where agents connect (UDP and TCP)")
    .option("--admin <addr>", "health, metrics and control API")
    .option("--data <dir>", "folder for keys and the registry")
    .option("--region <name>", "label for status and metrics")
    .option("--public-url <url>", "what visitors type, when it differs from the listener")
    .option("--trust-tls-proxy", "let a proxy that ends TLS carry links; it can read and inject everything")
    .option("--access-log", "one JSON line on stderr for each request")
    .option("--log-level <level>", "debug, info, warn or error")
    .addOption(jsonFlag())
    .action(run(async () => (await import("./commands/edge.ts")).runEdge, { isDaemon: true }));
}

function addTrustCommands(program: Command): void {
  program
    .command("login <url>")
    .description("enrol this machine with a node")
    .option("--token-file <file>", "file with the join token")
    .option("--token <token>", "the join token itself (visible to other users of this machine: prefer --token-file)")
    .addOption(jsonFlag())
    .action(run(async () => (await import("./commands/login.ts")).runLogin));

  const token = program.command("token").description("create, list and revoke join tokens of a node");
  adminFlags(
    token
      .command("create")
      .description("print a new join token")
      .option("--label <text>", "what it is for", "")
      .option(
        "--identity <id>",
        "owner whose names its agents claim; a new one when absent, owner for your own machines",
      )
      .option("--names <pattern>", "name that may be claimed, * at the end matches any rest; repeat for more", collect)
      .option("--expires <hours>", "life in hours", parseCount),
  ).action(run(async () => (await import("./commands/token.ts")).runTokenCreate));
  adminFlags(token.command("list").description("list tokens, without their secrets")).action(
    run(async () => (await import("./commands/token.ts")).runTokenList),
  );
  adminFlags(token.command("revoke <id>").description("revoke a token and close its links")).action(
    run(async () => (await import("./commands/token.ts")).runTokenRevoke),
  );
}

function addOtherCommands(program: Command): void {
  adminFlags(program.command("status").description("show a node's links and tunnels")).action(
    run(async () => (await import("./commands/status.ts")).runStatus),
  );
  program
    .command("doctor")
    .description("check what this machine can do and whether the node is reachable")
    .option("--edge <url>", "node to check", collect)
    .addOption(jsonFlag())
    .action(run(async () => (await import("./commands/doctor.ts")).runDoctor));
  program
    .command("completion <shell>")
    .description("print a completion script for bash, zsh or fish")
    .action(
      run(async () => {
        const { runCompletion } = await import("./commands/completion.ts");
        return (context, _options: object, shell = "") => runCompletion(context, program, shell);
      }),
    );
  program
    .command("version")
    .description("print the version")
    .addOption(jsonFlag())
    .action(
      run(async () => async ({ output }) => {
        output.event({ event: "version", version });
        output.line(version);
        return 0;
      }),
    );
}

function createProgram(): Command {
  const program = new Command("sally")
    .description("Puts a server that runs on a laptop behind an edge of your own.")
    .version(version, "-V, --version")
    .showHelpAfterError("(sally --help shows the commands)")
    .configureOutput({ outputError: (text, write) => write(withoutTokens(text)) })
    .exitOverride();
  addTunnelCommands(program);
  addTrustCommands(program);
  addOtherCommands(program);
  return program;
}

try {
  await createProgram().parseAsync(process.argv);
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exit(error.exitCode === 0 ? 0 : 2);
}
