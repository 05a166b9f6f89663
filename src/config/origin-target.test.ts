import { describe, expect, test } from "bun:test";
import { limits } from "../core/limits.ts";
import { SallyError } from "../core/errors.ts";
import { parseOriginTarget } from "./origin-target.ts";

describe("a target", () => {
  test("may be a port alone", () => {
    expect(parseOriginTarget("3000")).toEqual({
      endpoint: { kind: "tcp", host: "localhost", port: 3000 },
      isTls: false,
      pathPrefix: "",
      label: "localhost:3000",
      hostHeader: "localhost:3000",
    });
  });

  test("may be a host and a port, with brackets around IPv6", () => {
    expect(parseOriginTarget("[::1]:3000").endpoint).toEqual({ kind: "tcp", host: "::1", port: 3000 });
    expect(parseOriginTarget("[::1]:3000").label).toBe("[::1]:3000");
  });

  test("may be a URL: default ports, prefix without its last slash, TLS", () => {
    expect(parseOriginTarget("https://dev.example/app/")).toEqual({
      endpoint: { kind: "tcp", host: "dev.example", port: 443 },
      isTls: true,
      pathPrefix: "/app",
      label: "dev.example:443",
      hostHeader: "dev.example",
    });
    expect(parseOriginTarget("http://[::1]:81").endpoint).toEqual({ kind: "tcp", host: "::1", port: 81 });
  });

  test("may be a unix socket", () => {
    expect(parseOriginTarget("unix:/run/app.sock").endpoint).toEqual({ kind: "unix", path: "/run/app.sock" });
  });

  test("may name a host that looks like a scheme", () => {
    expect(parseOriginTarget("ftp:3").endpoint).toEqual({ kind: "tcp", host: "ftp", port: 3 });
  });

  test("whose prefix or host cannot stand in a head is refused with what to write instead", () => {
    const message = (text: string): string => {
      try {
        parseOriginTarget(text);
        return "taken";
      } catch (error) {
        return (error as SallyError).message; // the next test looks at its class
      }
    };
    const longest = `http://localhost:3000/${"a".repeat(limits.pathPrefixChars - 1)}`;
    expect(parseOriginTarget(longest).pathPrefix).toHaveLength(limits.pathPrefixChars);
    expect(message(`${longest}a`)).toContain("its path has more than");
    expect(message(`http://${"a".repeat(limits.hostFieldChars + 1)}:1/`)).toMatch(/its host is too long|malformed/);
    expect(message("http://localhost:3000/a|b")).toContain("percent-encode");
    expect(message("http://localhost:3000/100%")).toContain("percent-encode");
    expect(message("http://localhost:3000/a\r\nX: y")).toContain("control character");
    expect(message("\u2603:3000")).toContain("xn--");
    expect(message("http://{a}/")).toContain("xn--");
    expect(parseOriginTarget("http://localhost:3000/a b/\u00e9").pathPrefix).toBe("/a%20b/%C3%A9");
    expect(parseOriginTarget("http://\u2603/").hostHeader).toBe("xn--n3h");
  });

  test("with 100,000 slashes is read at once", () => {
    expect(() => parseOriginTarget(`http://a${"/".repeat(100_000)}b`)).toThrow("its path has more than");
  });

  for (const bad of [
    "",
    "0",
    "65536",
    "localhost",
    "unix:",
    "http://",
    "http://a:b@c",
    "http://c/?q",
    "a b:3",
    "a\n:3",
  ]) {
    test(`${JSON.stringify(bad)} is refused with the forms that work`, () => {
      let thrown: unknown;
      try {
        parseOriginTarget(bad);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(SallyError);
      expect((thrown as SallyError).code).toBe("USAGE"); // checked the line before
    });
  }
});
