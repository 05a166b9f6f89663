/**
 * The certificate that visitors are shown, as its files are now: what an ACME client writes there counts from the next
 * connection on. Files that cannot be used, as between the writing of one and the other, change nothing.
 */

import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Clock, Timer } from "../core/clock.ts";
import { SallyError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";

export interface CertificateFiles {
  /** Paths of PEM files; the certificate may be a chain. */
  readonly certFile: string;
  readonly keyFile: string;
}

export interface CertificatePair {
  readonly certPem: string;
  readonly keyPem: string;
}

/** @throws SallyError USAGE */
export async function readCertificate({ certFile, keyFile }: CertificateFiles): Promise<CertificatePair> {
  const [certPem, keyPem] = await Promise.all([readPem(certFile), readPem(keyFile)]);
  return { certPem, keyPem };
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new SallyError("USAGE", `cannot read ${path}: check the path and its permissions`, { cause });
  }
}

export interface CertificateWatchOptions {
  readonly files: CertificateFiles;
  /** What the files held at the start. */
  readonly current: CertificatePair;
  readonly everyMs: number;
  /** @throws SallyError when the pair cannot be used */
  readonly use: (pair: CertificatePair) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class CertificateWatch {
  readonly #options: CertificateWatchOptions;
  #seen: CertificatePair;
  /** Said once, not at each look. */
  #problem: string | undefined;
  #timer: Timer | undefined;
  #isClosed = false;

  static async start(options: CertificateWatchOptions): Promise<CertificateWatch> {
    const watch = new CertificateWatch(options);
    watch.#wait();
    return watch;
  }

  private constructor(options: CertificateWatchOptions) {
    this.#options = options;
    this.#seen = options.current;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  #wait(): void {
    if (!this.#isClosed) this.#timer = this.#options.clock.after(this.#options.everyMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    const { files, use, log } = this.#options;
    try {
      const found = await readCertificate(files);
      const isNew = found.certPem !== this.#seen.certPem || found.keyPem !== this.#seen.keyPem;
      this.#seen = found;
      if (isNew && !this.#isClosed) {
        const { validTo } = new X509Certificate(found.certPem);
        use(found);
        log.info("visitors see the renewed certificate", { file: files.certFile, validTo });
        this.#problem = undefined;
      }
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      if (problem !== this.#problem) log.warn("a renewed certificate cannot be used, the old one stays", { problem });
      this.#problem = problem;
    }
    this.#wait();
  }
}
