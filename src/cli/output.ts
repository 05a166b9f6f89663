/**
 * Where the command line writes: answers on stdout, logs on stderr, colours only on a terminal that wants them, and
 * with --json one object a line on stdout.
 */

import { SallyError, errorTable } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { createLogger, type LogFields, type LogLevel, type LogSink, type Logger } from "../core/log.ts";
import { StreamWriter } from "./stream-writer.ts";

/** What has a part of the terminal to itself; other output goes above it. */
export interface Screen {
  clear(): void;
  draw(): void;
}

export interface Output {
  readonly isJson: boolean;
  /** True when stdout is a terminal that can move its cursor, and people are watching. */
  readonly isLive: boolean;
  readonly paint: Paint;
  /** One JSON object a line; nothing without --json. */
  event(value: Readonly<Record<string, unknown>>): void;
  /** Lines for people, on stdout; nothing with --json. */
  line(text: string): void;
  /** A remark for people, on stderr, where stdout is for an answer that programs may read; nothing with --json. */
  note(text: string): void;
  /** Says on stderr what went wrong. */
  problem(text: string): void;
  /** A line on stderr that is made for programs. */
  record(value: Readonly<Record<string, unknown>>): void;
  logger(minimum: LogLevel): Logger;
  /** Raw text on stdout, for a screen. */
  raw(text: string): void;
  /** From now on whatever else is written appears above this screen; undefined ends that. */
  showAbove(screen: Screen | undefined): void;
  /** Resolves when the readers of stdout and stderr have taken everything, or have gone. */
  drained(): Promise<void>;
}

export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  red(text: string): string;
  cyan(text: string): string;
}

export function createPaint(hasColor: boolean): Paint {
  const style =
    (open: number, close: number) =>
    (text: string): string =>
      hasColor ? `\u001b[${open}m${text}\u001b[${close}m` : text;
  return {
    bold: style(1, 22),
    dim: style(2, 22),
    green: style(32, 39),
    yellow: style(33, 39),
    red: style(31, 39),
    cyan: style(36, 39),
  };
}

/** Control characters would let a visitor's request line move the cursor, and those for writing direction hide text. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, "\uFFFD");
}

/** A join token that was put in a wrong place is not repeated by the error that says so. */
export function withoutTokens(text: string): string {
  return text.replace(/sally_[A-Za-z0-9_-]{16,}(?:\.[0-9a-f]*)?/g, "sally_…");
}

/** The same for texts of several lines. */
function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

function formatFields(fields: LogFields): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(
      ([name, value]) =>
        ` ${name}=${printable(typeof value === "string" && /[\s"]/.test(value) ? JSON.stringify(value) : String(value))}`,
    )
    .join("");
}

/** Log lines for people, or JSON objects, through `write`. */
export function createSink(options: { isJson: boolean; paint: Paint; write: (line: string) => void }): LogSink {
  const { isJson, paint, write } = options;
  const tags: Record<LogLevel, string> = {
    debug: paint.dim("debug"),
    info: paint.green("info "),
    warn: paint.yellow("warn "),
    error: paint.red("error"),
  };
  return (level, message, fields) => {
    const time = new Date().toISOString();
    if (isJson) write(`${JSON.stringify({ time, level, message, ...fields })}\n`);
    else
      write(
        `${paint.dim(time.slice(11, 23))} ${tags[level]} ${printable(message)}${paint.dim(formatFields(fields))}\n`,
      );
  };
}

/** Bun leaves `isTTY` undefined where Node says false. */
function isTerminal(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY ?? false;
}

export interface OutputOptions {
  readonly isJson: boolean;
  readonly noColor: boolean;
  /** TERM says that the terminal cannot move its cursor. */
  readonly isDumb: boolean;
}

export function createOutput({ isJson, noColor, isDumb }: OutputOptions): Output {
  const stdout = new StreamWriter(() => Bun.stdout.writer(), limits.outputQueueChars);
  const stderr = new StreamWriter(() => Bun.stderr.writer(), limits.outputQueueChars);
  const isStderrTerminal = isTerminal(process.stderr);
  const paint = createPaint(!noColor && isTerminal(process.stdout));
  const logPaint = createPaint(!noColor && isStderrTerminal);
  let screen: Screen | undefined;
  const writeError = (text: string): void => {
    if (isStderrTerminal) screen?.clear();
    stderr.write(text);
    if (isStderrTerminal) screen?.draw();
  };
  const sink = createSink({ isJson, paint: logPaint, write: writeError });
  return {
    isJson,
    isLive: !isJson && !isDumb && isTerminal(process.stdout),
    paint,
    event(value) {
      if (isJson) stdout.write(`${JSON.stringify(value)}\n`);
    },
    line(text) {
      if (isJson) return;
      screen?.clear();
      stdout.write(`${printableLines(text)}\n`);
      screen?.draw();
    },
    note(text) {
      if (!isJson) writeError(`${printable(text)}\n`);
    },
    problem: (text) => writeError(`sally: ${printable(text)}\n`),
    record: (value) => writeError(`${JSON.stringify(value)}\n`),
    logger: (minimum) => createLogger(sink, minimum),
    raw: (text) => void stdout.write(text),
    showAbove(next) {
      screen = next;
    },
    async drained() {
      await Promise.all([stdout.drained(), stderr.drained()]);
    },
  };
}

/** Prints what failed and what to try, and says which exit code that is. */
export function reportError(output: Output, thrown: unknown): number {
  if (!(thrown instanceof SallyError)) {
    const what = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
    for (const line of `a bug: ${what}`.split("\n")) output.problem(line);
    return 1;
  }
  const message = withoutTokens(thrown.message);
  output.event({ event: "error", code: thrown.code, message });
  output.problem(`${message} (${thrown.code})`);
  return errorTable[thrown.code].exit;
}
