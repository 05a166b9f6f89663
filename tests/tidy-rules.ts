/** The tables behind tests/tidy.test.ts: which room stands on which floor, and which package a room may use and why. */

export interface Room {
  readonly floor: number;
  /** Runs on Bun and on workerd: no `node:`, `Bun`, `process`, `Buffer`. */
  readonly isPortable: boolean;
}

export const rooms: Readonly<Record<string, Room>> = {
  core: { floor: 0, isPortable: true },
  http: { floor: 1, isPortable: true },
  wire: { floor: 1, isPortable: true },
  /** Interfaces only: below the rooms that speak in them. */
  ports: { floor: 0.5, isPortable: true },
  api: { floor: 1, isPortable: true },
  config: { floor: 1, isPortable: true },
  trust: { floor: 1, isPortable: true },
  sockets: { floor: 1, isPortable: false },
  edge: { floor: 2, isPortable: true },
  listeners: { floor: 2, isPortable: false },
  transport: { floor: 2, isPortable: false },
  store: { floor: 2, isPortable: false },
  agent: { floor: 3, isPortable: false },
  exit: { floor: 3, isPortable: false },
  control: { floor: 3, isPortable: true },
  apps: { floor: 4, isPortable: false },
  cli: { floor: 5, isPortable: false },
};

export interface DependencyRule {
  readonly rooms: readonly string[];
  /** What the package saves us. */
  readonly reason: string;
}

export const dependencies: Readonly<Record<string, DependencyRule>> = {
  zod: {
    rooms: ["config", "wire", "api", "control", "apps"],
    reason: "One schema gives validation, types, defaults and documentation for everything that comes from outside.",
  },
  "@peculiar/x509": {
    rooms: ["trust"],
    reason:
      "Certificates (X.509, ASN.1) on WebCrypto, the same on Bun and workerd; encoding them by hand is how holes are made.",
  },
  "reflect-metadata": {
    rooms: ["trust"],
    reason: "What @peculiar/x509 needs to load (its tsyringe refuses to start without it); loaded with it, lazily.",
  },
  commander: { rooms: ["cli"], reason: "Parsing, help and error texts of the command line." },
  bun: { rooms: [], reason: "The runtime itself, pinned, so that Node and npm are all that a machine needs." },
};

/** Lines that a file may have; tables and tests are exempt. The function limit is in .oxlintrc.json. */
export const fileLinesMax = 400;
