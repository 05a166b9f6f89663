// Runs a TypeScript file with the pinned Bun on a machine that has only Node and npm: installs the packages when they
// are missing or stale, and completes Bun's own install where npm refused to run its install script.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bun = join(root, "node_modules", "bun", "bin", "bun.exe");
const stampFile = join(root, "node_modules", ".sallyport-lock");

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

function run(command, args) {
  // npm's chatter goes to stderr, so that stdout stays what was asked for.
  const done = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], shell: process.platform === "win32" });
  if (done.status !== 0) fail(`"${command} ${args.join(" ")}" failed: mend what it says above and run this again`);
}

function installPackages() {
  const stamp = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  const isCurrent = existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp;
  if (isCurrent) return;
  const isInstalled = existsSync(join(root, "node_modules", ".package-lock.json"));
  if (!isInstalled || existsSync(stampFile)) run("npm", ["ci", "--no-audit", "--no-fund"]);
  else if (spawnSync("npm", ["ls", "--all"], { cwd: root, stdio: "ignore" }).status !== 0) {
    run("npm", ["ci", "--no-audit", "--no-fund"]);
  }
  writeFileSync(stampFile, stamp);
}

function completeBun() {
  const works = () => existsSync(bun) && spawnSync(bun, ["--version"], { stdio: "ignore" }).status === 0;
  if (works()) return;
  run(process.execPath, [join(root, "node_modules", "bun", "install.js")]);
  if (!works()) fail("Bun does not run on this machine: see node_modules/bun/README.md for the supported ones");
}

if (Number(process.versions.node.split(".")[0]) < 20) fail(`Node 20 or later is needed, this is ${process.version}`);
installPackages();
completeBun();
const child = spawn(bun, process.argv.slice(2), { cwd: root, stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
if (process.env["npm_lifecycle_event"] !== undefined) {
  // npm and its shell end at a SIGTERM without passing it on to us.
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    child.kill("SIGTERM");
  }, 500);
}
child.on("exit", (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
