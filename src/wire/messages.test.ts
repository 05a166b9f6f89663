import { describe, expect, test } from "bun:test";
import { utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { decodeMessage } from "./messages.ts";

function decodeClaim(fields: object): unknown {
  const tunnel = {
    name: "demo",
    originLabel: "localhost:3000",
    hostHeader: { kind: "preserve" },
    pathPrefix: "",
    shared: false,
    ...fields,
  };
  const claim = { type: "claim", requestId: 1, process: "p", tunnels: [tunnel] };
  try {
    return decodeMessage(utf8Encode(JSON.stringify(claim)));
  } catch (error) {
    return error;
  }
}

function expectRefused(fields: object, where: string): void {
  const error = decodeClaim(fields);
  expect(error).toBeInstanceOf(SallyError);
  if (!(error instanceof SallyError)) return;
  expect(error.code).toBe("PROTOCOL_VIOLATION");
  expect(error.message).toContain(where);
}

describe("a claim", () => {
  test("may have a path prefix and a Host value", () => {
    for (const pathPrefix of ["", "/app", "/a%20b/c"]) expect(decodeClaim({ pathPrefix })).toHaveProperty("tunnels");
    for (const value of ["example.com", "[::1]:3000", "a_b:80"]) {
      expect(decodeClaim({ hostHeader: { kind: "value", value } })).toHaveProperty("tunnels");
      expect(decodeClaim({ hostHeader: { kind: "rewrite", originHost: value } })).toHaveProperty("tunnels");
    }
  });

  test("with a path prefix that is none is refused, and the field named", () => {
    for (const pathPrefix of ["/a HTTP/1.1\r\nX: y\r\n", "/a b", "/\u2603", "/\u00e9", "app", "/a?b", "/a#b", "/%"]) {
      expectRefused({ pathPrefix }, "tunnels.0.pathPrefix");
    }
  });

  test("with a Host that is none is refused, and the field named", () => {
    for (const value of ["x\r\nX-Forwarded-For: 1.2.3.4", "\u2603", "a b", "", "a/b", "u@a", "a:b"]) {
      expectRefused({ hostHeader: { kind: "value", value } }, "tunnels.0.hostHeader.value");
      expectRefused({ hostHeader: { kind: "rewrite", originHost: value } }, "tunnels.0.hostHeader.originHost");
    }
  });
});
