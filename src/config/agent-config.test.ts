import { expect, test } from "bun:test";
import { tunnelConfigSchema } from "./agent-config.ts";

test("the Host that an origin sees is kept, rewritten or a host with an optional port", () => {
  for (const host of ["preserve", "rewrite", "app.test", "app.test:8080", "[::1]:3000", "a_b"]) {
    expect(tunnelConfigSchema.parse({ target: 3000, host }).host).toBe(host);
  }
  for (const host of ["", "a b", "x\r\nX-Forwarded-For: 1.2.3.4", "\u2603", "http://a", "a/b", "a:b", "[a"]) {
    const { success, error } = tunnelConfigSchema.safeParse({ target: 3000, host });
    expect(success).toBe(false);
    expect(error?.message).toContain("use preserve, rewrite or a host name");
  }
});
