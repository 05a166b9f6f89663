import { describe, expect, test } from "bun:test";
import { SallyError } from "../core/errors.ts";
import { isLoopback, parseEdgeUrl } from "./edge-address.ts";
import type { Environment } from "./load-config.ts";

const environment: Environment = {
  edge: undefined,
  tokenFile: undefined,
  home: "/h",
  proxyUrl: undefined,
  noProxy: [],
  noColor: false,
  isDumb: false,
};

describe("the address of a node", () => {
  test.each([
    ["https://edge.example", "edge.example", 7443, "edge.example:7443"],
    ["https://edge.example/", "edge.example", 7443, "edge.example:7443"],
    ["https://EDGE.example:9000", "edge.example", 9000, "edge.example:9000"],
    ["https://edge.example:443", "edge.example", 443, "edge.example:443"],
    ["https://edge.example:443/", "edge.example", 443, "edge.example:443"],
    ["https://10.0.0.1:7443", "10.0.0.1", 7443, "10.0.0.1:7443"],
    ["https://[::1]:7443", "::1", 7443, "[::1]:7443"],
    ["https://[2001:db8::1]", "2001:db8::1", 7443, "[2001:db8::1]:7443"],
  ])("%s", (text, host, port, authority) => {
    expect(parseEdgeUrl(text, environment)).toEqual({ url: text, host, port, authority, proxyUrl: undefined });
  });

  test.each([
    "edge.example",
    "edge.example:7443",
    "http://edge.example",
    "https://edge.example/path",
    "https://edge.example?x",
    "https://u:p@edge.example",
    "https://",
    "",
  ])("%p is none", (text) => {
    let error: unknown;
    try {
      parseEdgeUrl(text, environment);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SallyError);
    expect(error).toMatchObject({ code: "USAGE" });
  });

  test("is reached through the proxy, unless it is on this machine or NO_PROXY names it", () => {
    const proxied = { ...environment, proxyUrl: "http://proxy:3128", noProxy: ["inside.example"] };
    const proxyOf = (url: string): string | undefined => parseEdgeUrl(url, proxied).proxyUrl;
    expect(proxyOf("https://edge.example")).toBe("http://proxy:3128");
    for (const host of [
      "inside.example",
      "a.inside.example",
      "localhost",
      "tunnels.localhost",
      "127.0.0.1",
      "127.8.9.1",
      "[::1]",
    ]) {
      expect([host, proxyOf(`https://${host}`)]).toEqual([host, undefined]);
    }
    expect([isLoopback("128.0.0.1"), isLoopback("localhost.example"), isLoopback("127.0.0.1.example")]).toEqual([
      false,
      false,
      false,
    ]);
  });
});
