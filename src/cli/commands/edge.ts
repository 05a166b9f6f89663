/** `sally edge`: runs a node until it is told to stop, then drains it. */

import { startNode } from "../../apps/node.ts";
import { parseConfig, readConfigFile } from "../../apps/load-config.ts";
import { nodeConfigSchema } from "../../config/node-config.ts";
import { formatAddress } from "../../core/address.ts";
import { systemClock } from "../../core/clock.ts";
import { SallyError } from "../../core/errors.ts";
import type { AccessRecord } from "../../listeners/http1-options.ts";
import type { CommandContext } from "../context.ts";
import { stopSignals } from "../stop-signals.ts";

export interface EdgeFlags {
  readonly config?: string;
  readonly json?: boolean;
  readonly [setting: string]: unknown;
}

export async function runEdge({ output }: CommandContext, flags: EdgeFlags): Promise<number> {
  const { config: path, json: _json, ...given } = flags;
  const file = path === undefined ? {} : await readConfigFile(path);
  const config = parseConfig(nodeConfigSchema, { ...file, ...given }, path ?? "sally edge");
  if (config.https !== undefined && config.tls === undefined) {
    throw new SallyError(
      "USAGE",
      "--https needs a certificate: set tls.certFile and tls.keyFile in the configuration file",
    );
  }
  const log = output.logger(config.logLevel);
  const stop = stopSignals();
  const onAccess = (record: AccessRecord): void => {
    output.record({ ...record, visitor: formatAddress(record.visitor) });
  };
  const node = await startNode(config, { clock: systemClock, log, ...(config.accessLog ? { onAccess } : {}) });
  const { urls } = node;
  output.event({ event: "ready", ...urls });
  output.line(`visitors  ${urls.https ?? urls.http}  (tunnels are NAME.${config.domain})`);
  const tunnel = dialable(urls.tunnel, config.domain);
  output.line(`agents    ${tunnel}`);
  output.line(`admin     ${urls.admin}`);
  if (node.agentToken !== undefined) {
    output.line(`\nsally http 3000 --edge ${tunnel} --token-file ${config.data}/agent.token`);
  }
  if (!stop.signal.aborted)
    await new Promise((resolve) => stop.signal.addEventListener("abort", resolve, { once: true }));
  output.event({ event: "draining", graceMs: config.limits.drainGraceMs });
  log.info("draining: a second signal ends it at once");
  await node.drain(config.limits.drainGraceMs);
  return 0;
}

/** A listener on every address is reached from elsewhere by the node's name. */
function dialable(url: string, domain: string): string {
  return url.replace(/^https:\/\/(?:0\.0\.0\.0|\[::\]):/, `https://${domain}:`);
}
