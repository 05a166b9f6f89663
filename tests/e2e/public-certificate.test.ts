/** The certificate of the public HTTPS listener is renewed while the node runs. */

import tls from "node:tls";
import { rm } from "node:fs/promises";
import { expect, setDefaultTimeout, test } from "bun:test";
import { startNode } from "../../src/apps/node.ts";
import { nodeConfigSchema } from "../../src/config/node-config.ts";
import { FakeClock } from "../../src/core/fake-clock.ts";
import { limits } from "../../src/core/limits.ts";
import { createLogger } from "../../src/core/log.ts";
import { createPublicAuthority, type HostCertificate } from "../support/public-certificates.ts";
import { Scratch } from "../support/sally.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(30_000);

/** The serial number of the certificate that a new visitor is shown. */
function serialShown(port: number, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host: "127.0.0.1", port, servername: "demo.localhost", ca });
    socket.once("secureConnect", () => {
      resolve(socket.getPeerCertificate().serialNumber);
      socket.destroy();
    });
    socket.once("error", reject);
  });
}

test("a renewed certificate counts from the next connection on, and files that do not fit change nothing", async () => {
  using scratch = new Scratch();
  const authority = await createPublicAuthority();
  const files = { certFile: scratch.join("cert.pem"), keyFile: scratch.join("key.pem") };
  const issue = (): Promise<HostCertificate> => authority.issue(["demo.localhost"]);
  const write = async (): Promise<void> => {
    const { certPem, keyPem } = await issue();
    await Bun.write(files.certFile, certPem);
    await Bun.write(files.keyFile, keyPem);
  };
  await write();
  const said: string[] = [];
  const log = createLogger((_level, message) => void said.push(message), "info");
  const clock = new FakeClock();
  const any = "127.0.0.1:0";
  const config = nodeConfigSchema.parse({
    data: scratch.join("data"),
    http: any,
    https: any,
    tunnel: any,
    admin: any,
    tls: files,
  });
  const node = await startNode(config, { clock, log });
  try {
    const port = Number(new URL(node.urls.https!).port);
    const look = (): Promise<string> => {
      clock.advance(limits.certificateRereadMs);
      return serialShown(port, authority.caPem);
    };
    const saidTimes = (text: string): number => said.filter((message) => message.includes(text)).length;
    const unusable = "a renewed certificate cannot be used";
    const first = await look();
    await rm(files.keyFile);
    await until("the missing file is noticed", async () => (await look()) === first && saidTimes(unusable) === 1);
    for (let i = 0; i < 3; i++) expect(await look()).toBe(first);
    expect(saidTimes(unusable)).toBe(1);
    await Bun.write(files.certFile, (await issue()).certPem);
    await Bun.write(files.keyFile, (await issue()).keyPem);
    await until("what does not fit is noticed", async () => (await look()) === first && saidTimes(unusable) > 1);
    for (const file of Object.values(files)) {
      const kept = await Bun.file(file).text();
      for (const text of ["", kept]) {
        const before = saidTimes(unusable);
        await Bun.write(file, text);
        await until(
          "what does not fit is noticed",
          async () => (await look()) === first && saidTimes(unusable) > before,
        );
      }
    }
    await write();
    await until("the renewed one is shown", async () => (await look()) !== first);
    expect(saidTimes("visitors see the renewed certificate")).toBe(1);
  } finally {
    await node.close();
  }
});
