/** Builds dist/sally, or the file that is named, one executable that needs nothing else on the machine. */

import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

const root = join(import.meta.dir, "..");
const output = resolve(process.argv[2] ?? join(root, "dist", "sally"));
mkdirSync(dirname(output), { recursive: true });
const child = Bun.spawn(
  [
    process.execPath,
    "build",
    "--compile",
    "--minify-syntax",
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    join(root, "src", "cli", "main.ts"),
    "--outfile",
    output,
  ],
  { cwd: root, stdio: ["ignore", "inherit", "inherit"] },
);
if ((await child.exited) !== 0) process.exit(1);
const proof = Bun.spawn([output, "version"], { stdio: ["ignore", "pipe", "inherit"] });
const version = (await new Response(proof.stdout).text()).trim();
if ((await proof.exited) !== 0) process.exit(1);
process.stdout.write(`${output} ${version}\n`);
