import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { SallyError } from "../core/errors.ts";
import { agentSettings, bypassesProxy, type Environment, parseConfig, readEnvironment } from "./load-config.ts";

const names = [
  "SALLY_EDGE",
  "SALLY_TOKEN_FILE",
  "SALLY_HOME",
  "HTTPS_PROXY",
  "https_proxy",
  "NO_PROXY",
  "no_proxy",
  "NO_COLOR",
  "TERM",
];

/** What is read while the environment is exactly this. */
function readWith(env: Record<string, string>): Environment {
  const before = new Map(names.map((name) => [name, process.env[name]]));
  try {
    for (const name of names) delete process.env[name];
    Object.assign(process.env, env);
    return readEnvironment();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

describe("the environment", () => {
  test("is empty by default", () => {
    const { home, ...rest } = readWith({});
    expect(home).toEndWith("/.sally");
    expect(rest).toEqual({
      edge: undefined,
      tokenFile: undefined,
      proxyUrl: undefined,
      noProxy: [""],
      noColor: false,
      isDumb: false,
    });
    expect(agentSettings({ home, ...rest })).toEqual({});
  });

  test("that is set to nothing is not set", () => {
    const read = readWith({ SALLY_EDGE: "", SALLY_TOKEN_FILE: "", SALLY_HOME: "", HTTPS_PROXY: "", NO_COLOR: "" });
    expect(read).toMatchObject({ edge: undefined, tokenFile: undefined, proxyUrl: undefined, noColor: false });
  });

  test("gives an agent its node and its token", () => {
    const read = readWith({ SALLY_EDGE: "https://e", SALLY_TOKEN_FILE: "/t", SALLY_HOME: "/h" });
    expect(agentSettings(read)).toEqual({ edge: "https://e", tokenFile: "/t" });
    expect(read.home).toBe("/h");
  });

  test("has proxies in either case, the lower one first", () => {
    expect(readWith({ HTTPS_PROXY: "http://a" }).proxyUrl).toBe("http://a");
    expect(readWith({ HTTPS_PROXY: "http://a", https_proxy: "http://b" }).proxyUrl).toBe("http://b");
    expect(readWith({ NO_PROXY: "One.example, .two.example" }).noProxy).toEqual(["one.example", ".two.example"]);
  });

  test("says whether colours are wanted and whether the cursor can move", () => {
    expect(readWith({ NO_COLOR: "1" })).toMatchObject({ noColor: true, isDumb: false });
    expect(readWith({ TERM: "dumb" })).toMatchObject({ noColor: true, isDumb: true });
    expect(readWith({ TERM: "xterm" })).toMatchObject({ noColor: false, isDumb: false });
  });
});

describe("NO_PROXY", () => {
  test.each([
    ["edge.example", ["edge.example"], true],
    ["EDGE.example", ["edge.example"], true],
    ["a.edge.example", ["edge.example"], true],
    ["a.edge.example", [".edge.example"], true],
    ["a.edge.example", ["*.edge.example"], true],
    ["edge.example", [".edge.example"], true],
    ["badedge.example", ["edge.example"], false],
    ["edge.example.evil", ["edge.example"], false],
    ["anything", ["*"], true],
    ["anything", [""], false],
    ["anything", [], false],
  ] as const)("%p with %p: %p", (host, noProxy, expected) => {
    expect(bypassesProxy(host, noProxy)).toBe(expected);
  });
});

describe("settings", () => {
  const schema = z.object({ port: z.number(), deep: z.object({ on: z.boolean() }).strict() }).strict();

  test("that are right come back parsed", () => {
    expect(parseConfig(schema, { port: 1, deep: { on: true } }, "x")).toEqual({ port: 1, deep: { on: true } });
  });

  test("that are wrong are all named, with the place they came from", () => {
    let error: unknown;
    try {
      parseConfig(schema, { port: "1", deep: { on: 1, off: 2 }, more: 3 }, "sally.yaml");
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SallyError);
    expect(error).toMatchObject({ code: "USAGE" });
    for (const part of ["sally.yaml: ", "port: ", "deep.on: ", "off", "more"]) expect(String(error)).toContain(part);
  });
});
