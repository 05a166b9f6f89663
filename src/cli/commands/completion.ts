/** `sally completion SHELL`: scripts made from the commands themselves, so that they cannot fall behind. */

import type { Command } from "commander";
import { SallyError } from "../../core/errors.ts";
import type { CommandContext } from "../context.ts";

interface Entry {
  readonly words: string;
  readonly description: string;
}

function entriesOf(command: Command, parents: readonly string[]): Entry[] {
  return command.commands.flatMap((child) => {
    const path = [...parents, child.name()];
    return [{ words: path.join(" "), description: child.description() }, ...entriesOf(child, path)];
  });
}

function flagsOf(command: Command, path: string): string[] {
  let found: Command | undefined = command;
  for (const word of path.split(" ")) found = found?.commands.find((child) => child.name() === word);
  return found?.options.flatMap((option) => (option.long === undefined ? [] : [option.long])) ?? [];
}

/** What may follow a flag or a command. */
const values: Readonly<Record<string, readonly string[]>> = {
  "--transport": ["auto", "quic", "websocket"],
  "--log-level": ["debug", "info", "warn", "error"],
  "--host": ["preserve", "rewrite"],
  completion: ["bash", "zsh", "fish"],
};

function bashScript(program: Command, entries: readonly Entry[]): string {
  const cases = entries.map((entry) => {
    const nested = entries.filter((other) => other.words.startsWith(`${entry.words} `));
    const words = [...nested.map((other) => other.words.split(" ").at(-1)), ...flagsOf(program, entry.words)];
    return `    "${entry.words}") words="${words.join(" ")}" ;;`;
  });
  const choices = Object.entries(values).map(([word, words]) => `    ${word}) words="${words.join(" ")}" ;;`);
  const top = entries.filter((entry) => !entry.words.includes(" ")).map((entry) => entry.words);
  return `_sally() {
  local path="" word words
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in -*) ;; *) [ "$path" = token ] || [ -z "$path" ] && path="\${path:+$path }$word" ;; esac
  done
  case "\${COMP_WORDS[COMP_CWORD-1]}" in
${choices.join("\n")}
    *) case "$path" in
    "") words="${top.join(" ")}" ;;
${cases.join("\n")}
    *) words="" ;;
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _sally sally
`;
}

function fishScript(program: Command, entries: readonly Entry[]): string {
  const lines = entries.flatMap((entry) => {
    const words = entry.words.split(" ");
    const name = words.at(-1) ?? "";
    const parent = words.slice(0, -1);
    const when = parent.length === 0 ? "__fish_use_subcommand" : `__fish_seen_subcommand_from ${parent.join(" ")}`;
    const description = entry.description.replaceAll("'", "\\'");
    const flags = flagsOf(program, entry.words).map(
      (flag) => `complete -c sally -n '__fish_seen_subcommand_from ${name}' -l ${flag.slice(2)}`,
    );
    return [`complete -c sally -n '${when}' -f -a ${name} -d '${description}'`, ...flags];
  });
  return `${lines.join("\n")}\n`;
}

/** @throws SallyError USAGE for a shell that is not known */
export async function runCompletion(context: CommandContext, program: Command, shell: string): Promise<number> {
  const entries = entriesOf(program, []);
  const scripts: Record<string, () => string> = {
    bash: () => bashScript(program, entries),
    zsh: () => `autoload -U +X bashcompinit && bashcompinit\n${bashScript(program, entries)}`,
    fish: () => fishScript(program, entries),
  };
  const make = scripts[shell];
  if (make === undefined) throw new SallyError("USAGE", `there is no completion for "${shell}": use bash, zsh or fish`);
  context.output.line(make().trimEnd());
  return 0;
}
