/** A real pseudo terminal for tests, and what a person would see on it. */

import { join } from "node:path";
import { cleanEnvironment } from "./command.ts";
import { until } from "./until.ts";

const root = join(import.meta.dir, "..", "..");
const entry = join(root, "src", "cli", "main.ts");
const sequence = /^\u001b\[([?0-9;]*)([A-Za-z])/; // oxlint-disable-line no-control-regex -- what a terminal reads

/** As much of a terminal as our screen uses; anything else that moves the cursor is kept in `foreign`. */
export class ScreenModel {
  readonly #columns: number;
  readonly #rows: number;
  #lines: string[] = [""];
  #row = 0;
  #column = 0;
  #wraps = true;
  #rest = "";
  /** Colours and styles that were asked for. */
  styles = 0;
  /** Control sequences and characters that have no place in our output. */
  readonly foreign: string[] = [];

  constructor(columns: number, rows: number) {
    this.#columns = columns;
    this.#rows = rows;
  }

  /** Lines that scrolled off, then those that are seen; without trailing blanks. */
  get lines(): string[] {
    return this.#lines.map((line) => line.trimEnd());
  }

  /** The part that is seen. */
  get visible(): string[] {
    return this.lines.slice(-this.#rows);
  }

  write(text: string): void {
    let rest = this.#rest + text;
    this.#rest = "";
    while (rest !== "") {
      if (rest[0] === "\u001b") {
        const match = sequence.exec(rest);
        if (match === null && /^\u001b(?:\[[?0-9;]*)?$/.test(rest)) return void (this.#rest = rest); // oxlint-disable-line no-control-regex
        this.#control(match?.[1] ?? "", match?.[2] ?? "?", rest);
        rest = rest.slice(match?.[0].length ?? 1);
        continue;
      }
      this.#put(rest[0]!); // it is not empty
      rest = rest.slice(1);
    }
  }

  #control(parameters: string, final: string, rest: string): void {
    const count = Number(parameters === "" ? "1" : parameters);
    if (final === "m") this.styles++;
    else if (final === "A") this.#row = Math.max(this.#top, this.#row - count);
    else if (final === "K" && parameters === "") this.#cut();
    else if (final === "J" && parameters === "") {
      this.#cut();
      this.#lines.length = this.#row + 1;
    } else if (parameters === "?7") this.#wraps = final === "h";
    else this.foreign.push(JSON.stringify(rest.slice(0, 10)));
  }

  get #top(): number {
    return Math.max(0, this.#lines.length - this.#rows);
  }

  #cut(): void {
    this.#lines[this.#row] = (this.#lines[this.#row] ?? "").slice(0, this.#column);
  }

  #put(character: string): void {
    if (character === "\r") this.#column = 0;
    else if (character === "\n") this.#down();
    else if (/\p{Cc}/u.test(character)) this.foreign.push(JSON.stringify(character));
    else {
      if (this.#column >= this.#columns) {
        if (!this.#wraps) return;
        this.#column = 0;
        this.#down();
      }
      const line = (this.#lines[this.#row] ?? "").padEnd(this.#column);
      this.#lines[this.#row] = line.slice(0, this.#column) + character + line.slice(this.#column + 1);
      this.#column++;
    }
  }

  #down(): void {
    this.#row++;
    while (this.#lines.length <= this.#row) this.#lines.push("");
  }
}

export interface TerminalOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly columns?: number;
  readonly rows?: number;
}

/** `sally` on a terminal of its own, with a person in front of it. */
export class TerminalProcess implements AsyncDisposable {
  readonly screen: ScreenModel;
  readonly exited: Promise<number>;
  readonly #child: Bun.Subprocess;

  constructor(args: readonly string[], { env = {}, columns = 100, rows = 30 }: TerminalOptions = {}) {
    const screen = new ScreenModel(columns, rows);
    const decoder = new TextDecoder();
    this.screen = screen;
    const { NO_COLOR: _quiet, ...rest } = cleanEnvironment();
    this.#child = Bun.spawn([process.execPath, "--no-env-file", entry, ...args], {
      cwd: root,
      env: { ...rest, TERM: "xterm-256color", ...env },
      terminal: {
        cols: columns,
        rows,
        data: (_terminal, bytes) => screen.write(decoder.decode(bytes, { stream: true })),
      },
    });
    this.exited = this.#child.exited;
  }

  /** The first visible line that matches, once there is one. */
  async line(pattern: RegExp, timeoutMs = 20_000): Promise<string> {
    try {
      return await until(
        `a line like ${String(pattern)}`,
        () => this.screen.visible.find((line) => pattern.test(line)),
        timeoutMs,
      );
    } catch (cause) {
      throw new Error(`no line like ${String(pattern)}:\n${this.screen.lines.join("\n")}`, { cause });
    }
  }

  type(text: string): void {
    this.#child.terminal?.write(text);
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    this.#child.terminal?.close();
  }
}
