/** `ssh -R` to an sshd of our own: own configuration, host key, user key and port; the system's sshd is not touched. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort, run } from "../processes.ts";
import { benchHost, versionIn, type Peer, type PeerContext } from "./peer.ts";

export const ssh: Peer = {
  name: "ssh",
  setup: "ssh -R, OpenSSH defaults",
  programs: ["sshd", "ssh", "ssh-keygen"],
  version: async (tools) => versionIn(await run([tools.need("ssh"), "-V"])),
  startServer: async (context) => {
    const { keeper, tools, folder, serverPlace, clientPlace } = context;
    const [bindPort, visitorPort] = [await freePort(), await freePort()];
    const config = await writeServerFiles(context, bindPort);
    const server = keeper.start({
      name: "sshd",
      argv: serverPlace.command([tools.need("sshd"), "-D", "-e", "-f", config]),
    });
    const user = (await run(["id", "-un"])).trim();
    return {
      processes: [server],
      startClient: async (originPort) => {
        const settings = [
          "BatchMode=yes",
          "StrictHostKeyChecking=yes",
          `UserKnownHostsFile=${join(folder, "known_hosts")}`,
          "GlobalKnownHostsFile=/dev/null",
          "ExitOnForwardFailure=yes",
          "ConnectionAttempts=20",
        ].flatMap((setting) => ["-o", setting]);
        const forward = `127.0.0.1:${visitorPort}:127.0.0.1:${originPort}`;
        const target = ["-p", String(bindPort), "-l", user, serverPlace.address];
        const identity = ["-F", "none", "-i", join(folder, "user_key")];
        const client = keeper.start({
          name: "ssh",
          argv: clientPlace.command([tools.need("ssh"), "-N", ...identity, ...settings, "-R", forward, ...target]),
        });
        return { processes: [client], visitor: { host: "127.0.0.1", port: visitorPort, hostHeader: benchHost } };
      },
    };
  },
};

async function writeServerFiles({ tools, folder, serverPlace }: PeerContext, port: number): Promise<string> {
  // sshd started by root refuses to run without its (empty) privilege separation folder.
  if (process.getuid?.() === 0) mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
  const keygen = tools.need("ssh-keygen");
  for (const name of ["host_key", "user_key"]) {
    await run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", join(folder, name)]);
  }
  const hostKey = await Bun.file(join(folder, "host_key.pub")).text();
  writeFileSync(join(folder, "known_hosts"), `[${serverPlace.address}]:${port} ${hostKey}`);
  const config = join(folder, "sshd_config");
  writeFileSync(
    config,
    `ListenAddress ${serverPlace.address}
Port ${port}
HostKey ${join(folder, "host_key")}
AuthorizedKeysFile ${join(folder, "user_key.pub")}
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding yes
LogLevel ERROR
`,
  );
  return config;
}
