/**
 * What an operator may set for a node: the one schema behind the command line, the configuration file and
 * docs/config.md. Every value has a default that works on one machine.
 */

import { z } from "zod";
import { limits } from "../core/limits.ts";
import { addressField, adminAddressField, countField, domainField } from "./fields.ts";

const minuteMs = 60_000;
const dayMs = 24 * 60 * minuteMs;
const gibibyte = 1024 ** 3;

export const limitsSchema = z
  .object({
    headBytes: countField(1024 * 1024)
      .default(limits.headBytes)
      .describe("Most bytes in a request head."),
    headFields: countField(2_000).default(limits.headFields).describe("Most fields in a request head."),
    requestLineBytes: countField(256 * 1024)
      .default(limits.requestLineBytes)
      .describe("Most bytes in a request line."),
    headMs: countField(10 * minuteMs)
      .default(limits.headMs)
      .describe("Time for a request head to arrive."),
    bodyBytes: countField(1024 ** 4)
      .default(limits.bodyBytes)
      .describe("Most bytes in a request body before it is answered with 413."),
    bodyStallMs: countField(dayMs)
      .default(limits.bodyStallMs)
      .describe("Longest pause inside a request body; who takes nothing of a reply for twice as long is cut off."),
    bodyMinRateBytesPerSecond: countField(gibibyte)
      .default(limits.bodyMinRateBytesPerSecond)
      .describe("Slowest request body, averaged, before it is answered with 408."),
    keepAliveIdleMs: countField(dayMs)
      .default(limits.keepAliveIdleMs)
      .describe("Idle time of a kept-alive connection."),
    replyHeadMs: countField(dayMs).default(limits.replyHeadMs).describe("Longest wait for the origin's reply head."),
    connections: countField(1_000_000).default(limits.connections).describe("Most visitor connections."),
    connectionsPerVisitor: countField(1_000_000)
      .default(limits.connectionsPerVisitor)
      .describe("Most connections from one visitor: an IPv4 address, or an IPv6 network of 64 bits."),
    links: countField(1_000_000)
      .default(limits.links)
      .describe("Most links of agents; for one more, the identity that has most of them loses its newest."),
    streamsPerLink: countField(100_000).default(limits.streamsPerLink).describe("Most streams on one link."),
    processWindowBudgetBytes: countField(64 * gibibyte)
      .default(limits.processWindowBudgetBytes)
      .describe("Memory that all credit windows of the process may take together."),
    drainGraceMs: countField(dayMs)
      .default(limits.drainGraceMs)
      .describe("Time for running requests when the node stops."),
    namesPerIdentity: countField(100_000)
      .default(limits.namesPerIdentity)
      .describe("Most names one owner may reserve."),
    nameQuarantineMs: countField(365 * dayMs)
      .default(limits.nameQuarantineMs)
      .describe("How long a released name is kept for its last owner."),
    agentCertificateMs: countField(365 * dayMs)
      .default(limits.agentCertificateMs)
      .describe("Life of an agent's certificate; it is renewed at half of it."),
  })
  .strict();

export const nodeConfigSchema = z
  .object({
    domain: domainField.default("localhost").describe("Tunnels are served as NAME.DOMAIN."),
    http: addressField.prefault("127.0.0.1:8080").describe("Where visitors connect over HTTP."),
    https: addressField.optional().describe("Where visitors connect over HTTPS; needs `tls`."),
    tls: z
      .object({
        certFile: z.string().describe("Certificate chain, PEM."),
        keyFile: z.string().describe("Private key, PEM."),
      })
      .strict()
      .optional()
      .describe("Certificate of the public HTTPS listener."),
    tunnel: addressField.prefault("127.0.0.1:7443").describe("Where agents connect: QUIC on UDP, WebSocket on TCP."),
    admin: adminAddressField
      .prefault("127.0.0.1:7080")
      .describe("Health, metrics and the control API, which serves programs of the same machine only."),
    data: z.string().min(1).default("./sally-data").describe("Folder for keys and the registry."),
    region: z.string().max(64).default("local").describe("A label for status and metrics."),
    publicUrl: z
      .string()
      .toLowerCase()
      .regex(/^https?:\/\/[a-z0-9.-]+(?::\d{1,5})?$/, "a public URL looks like https://tunnels.example.com:8443")
      .refine((text) => URL.canParse(text), "a port is at most 65535")
      .optional()
      .describe("Scheme, `domain` and port as visitors type them, where a proxy or port mapping changes them."),
    trustTlsProxy: z
      .boolean()
      .default(false)
      .describe("A proxy that ends TLS may carry links; it can read and inject everything."),
    trustedProxies: z
      .array(z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()]))
      .max(100)
      .default([])
      .describe(
        "Addresses or networks (10.0.0.0/8) of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, for origins and for limits on enrolment.",
      ),
    accessLog: z
      .boolean()
      .default(false)
      .describe(
        "One JSON line on stderr for each request, also those that were refused; the probes of agents are among them.",
      ),
    logLevel: z.enum(["debug", "info", "warn", "error"]).default("info").describe("Least level that is logged."),
    limits: limitsSchema.prefault({}).describe("Bounds; see below."),
  })
  .strict()
  .superRefine(({ domain, publicUrl }, context) => {
    if (publicUrl === undefined || !URL.canParse(publicUrl)) return; // what is malformed has been said already
    if (new URL(publicUrl).hostname === domain) return;
    const message = `its host is not the domain ${domain}, under which tunnels are served: set domain too`;
    context.addIssue({ code: "custom", path: ["publicUrl"], message });
  });

export type NodeConfig = z.output<typeof nodeConfigSchema>;
