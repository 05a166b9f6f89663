/** Finds programs that others installed. Nothing is downloaded or built here: what is missing is skipped and named. */

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

export class Tools {
  readonly #folders: readonly string[];

  /** `peers` is $SALLY_PEERS, `path` is $PATH. */
  constructor(peers: string | undefined, path: string | undefined) {
    const own = (peers ?? "").split(delimiter).filter((folder) => folder !== "");
    this.#folders = [
      ...own.flatMap((folder) => [folder, join(folder, "bin"), join(folder, "node_modules", ".bin")]),
      ...(path ?? "").split(delimiter).filter((folder) => folder !== ""),
      // Where Debian keeps servers, which is not on every user's path.
      "/usr/sbin",
      "/usr/local/sbin",
    ];
  }

  find(program: string): string | undefined {
    return this.#folders.map((folder) => join(folder, program)).find(isExecutable);
  }

  /** The program's path; throws when it is not there. */
  need(program: string): string {
    const path = this.find(program);
    if (path === undefined) throw new Error(`${program} is not installed`);
    return path;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
