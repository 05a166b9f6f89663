/** What every command is handed: the environment that was read once, and where to write. */

import type { Environment } from "../apps/load-config.ts";
import type { Output } from "./output.ts";

export interface CommandContext {
  readonly environment: Environment;
  readonly output: Output;
}
