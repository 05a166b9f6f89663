/** What a user may set for an agent: the schema of sally.yaml and of `sally http`. */

import { z } from "zod";
import { limits } from "../core/limits.ts";
import { isHostField } from "../core/uri-syntax.ts";
import { nameField } from "./fields.ts";

export const tunnelConfigSchema = z
  .object({
    target: z
      .union([z.string(), z.number().int().transform(String)])
      .describe(
        "PORT, HOST:PORT, http(s)://HOST[:PORT][/prefix] or unix:PATH. A prefix is put before every request target " +
          "and is no boundary: targets are passed on as they were sent, so `/../admin` arrives as `/prefix/../admin`.",
      ),
    name: nameField.optional().describe("Public name; derived from identity, folder and target when absent."),
    host: z
      .string()
      .max(limits.hostFieldChars)
      .refine(isHostField, "use preserve, rewrite or a host name, in ASCII and perhaps with a port")
      .default("preserve")
      .describe("The Host field that the origin sees: preserve, rewrite (the target's own) or a value."),
    shared: z.boolean().default(false).describe("Let other installations of the same owner serve this name too."),
  })
  .strict();

/** One name leads to one origin. */
function refuseTwins(tunnels: readonly { readonly name?: string | undefined }[], context: z.RefinementCtx): void {
  const seen = new Set<string>();
  for (const [index, { name }] of tunnels.entries()) {
    if (name !== undefined && seen.has(name)) {
      const message = `"${name}" is there already: give each tunnel a name of its own`;
      context.addIssue({ code: "custom", path: [index, "name"], message });
    }
    if (name !== undefined) seen.add(name);
  }
}

export const agentConfigSchema = z
  .object({
    edge: z
      .union([z.string(), z.array(z.string()).min(1).max(16)])
      .optional()
      .describe(
        "URL of the node's tunnel port, such as https://tunnels.example.com:7443; more than one is tried in turn.",
      ),
    tokenFile: z.string().optional().describe("File with a join token, needed once to enrol."),
    transport: z.enum(["auto", "quic", "websocket"]).default("auto").describe("How to link to the node."),
    lanes: z
      .number()
      .int()
      .min(1)
      .max(limits.lanesPerLinkMax)
      .default(limits.lanesPerLink)
      .describe("Lanes in the link."),
    inspect: z.string().default("off").describe("Reserved for the local inspector, which is not part of this version."),
    logLevel: z.enum(["debug", "info", "warn", "error"]).default("warn").describe("Least level that is logged."),
    tunnels: z
      .array(tunnelConfigSchema)
      .min(1)
      .max(limits.tunnelsPerLink)
      .superRefine(refuseTwins)
      .describe("What to serve."),
  })
  .strict();

export type TunnelSettings = z.output<typeof tunnelConfigSchema>;
export type AgentConfig = z.output<typeof agentConfigSchema>;
