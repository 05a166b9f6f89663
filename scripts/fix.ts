/** Formats every file and applies the lint fixes that are safe. */

import { join } from "node:path";

const root = join(import.meta.dir, "..");
let failed = 0;
for (const command of [
  ["oxlint", "--type-aware", "--fix"],
  ["oxfmt", "."],
]) {
  const [name = "", ...args] = command;
  const child = Bun.spawn([join(root, "node_modules", ".bin", name), ...args], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if ((await child.exited) !== 0) failed++;
}
process.exit(failed > 0 ? 1 : 0);
