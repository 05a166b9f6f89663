/**
 * Where the command line writes: answers on stdout, logs on stderr, colours only on a terminal that wants them, and
 * with --json one object a line on stdout.
 */

import { SallyError, errorTable } from "../core/errors.ts";
import { createLogger, type LogFields, type LogLevel, type LogSink, type Logger } from "../core/log.ts";

export interface Output {
  readonly isJson: boolean;
  /** True when stdout is a terminal and people are watching. */
  readonly isLive: boolean;
  readonly paint: Paint;
  /** One JSON object a line; nothing without --json. */
  event(value: Readonly<Record<string, unknown>>): void;
  /** A line for people; nothing with --json. */
  line(text: string): void;
  logger(minimum: LogLevel): Logger;
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

/** Control characters would let a visitor's request line move the cursor or hide text. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, "\uFFFD");
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

export function createOutput(options: { isJson: boolean; noColor: boolean }): Output {
  const { isJson, noColor } = options;
  const paint = createPaint(!noColor && isTerminal(process.stdout));
  const logPaint = createPaint(!noColor && isTerminal(process.stderr));
  const sink = createSink({ isJson, paint: logPaint, write: (line) => void process.stderr.write(line) });
  return {
    isJson,
    isLive: !isJson && isTerminal(process.stdout),
    paint,
    event(value) {
      if (isJson) process.stdout.write(`${JSON.stringify(value)}\n`);
    },
    line(text) {
      if (!isJson) process.stdout.write(`${text}\n`);
    },
    logger: (minimum) => createLogger(sink, minimum),
  };
}

/** Prints what failed and what to try, and says which exit code that is. */
export function reportError(output: Output, thrown: unknown): number {
  if (!(thrown instanceof SallyError)) {
    process.stderr.write(
      `sally: a bug: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}\n`,
    );
    return 1;
  }
  output.event({ event: "error", code: thrown.code, message: thrown.message });
  process.stderr.write(`sally: ${printable(thrown.message)} (${thrown.code})\n`);
  return errorTable[thrown.code].exit;
}
