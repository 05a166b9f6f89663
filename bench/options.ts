/** The benchmark's command line. Everything has a default, so that `npm run bench` alone is the full measurement. */

import { parseArgs } from "node:util";

export interface Options {
  /** Groups of cases to run; empty means all. */
  readonly only: readonly string[];
  /** Third-party peers to measure; undefined means all that are installed. */
  readonly peers: readonly string[] | undefined;
  readonly withSally: boolean;
  readonly seconds: number;
  readonly rounds: number;
  readonly bulkMb: number;
  /** Where the report goes; undefined means that it is only printed. */
  readonly output: string | undefined;
  readonly help: boolean;
}

export const usage = `npm run bench [-- OPTIONS]

  --only GROUPS     small, connections, replies, bulk, idle, first-url, lossy, long (comma-separated; default: all)
  --peers NAMES     frp, frp-tcp, frp-quic, rathole, chisel, bore, ssh, localtunnel (default: all that are installed)
  --no-sally        leaves Sallyport itself out, to try the harness
  --seconds N       length of one measurement (default 8)
  --rounds N        interleaved rounds; the median counts (default 3)
  --bulk-mb N       size of the large body (default 1024)
  --output FILE     where the report goes (default docs/benchmarks.md for a full run, else only the screen)

Peers are used where they are installed: in the folders of $SALLY_PEERS (colon-separated), then on $PATH.
`;

export function parseOptions(argv: readonly string[], defaultOutput: string): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      only: { type: "string" },
      peers: { type: "string" },
      "no-sally": { type: "boolean", default: false },
      seconds: { type: "string", default: "8" },
      rounds: { type: "string", default: "3" },
      "bulk-mb": { type: "string", default: "1024" },
      output: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const isFull = values.only === undefined && values.peers === undefined && !values["no-sally"];
  return {
    only: list(values.only) ?? [],
    peers: list(values.peers),
    withSally: !values["no-sally"],
    seconds: positive("--seconds", values.seconds),
    rounds: positive("--rounds", values.rounds),
    bulkMb: positive("--bulk-mb", values["bulk-mb"]),
    output: values.output ?? (isFull ? defaultOutput : undefined),
    help: values.help,
  };
}

function list(text: string | undefined): string[] | undefined {
  return text
    ?.split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`${name} takes a whole number above 0, not "${text}"`);
  return value;
}
