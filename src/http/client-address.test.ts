import { expect, test } from "bun:test";
import { clientAddress } from "./client-address.ts";
import { HeaderList } from "./header-list.ts";

const isTrusted = (address: string): boolean => address.startsWith("10.") || address === "fd00::1";

function client(remote: string, ...forwarded: string[]): string {
  return clientAddress(remote, new HeaderList(forwarded.flatMap((value) => ["X-Forwarded-For", value])), isTrusted);
}

test("the connection's address counts when nobody trusted named another", () => {
  expect(client("192.0.2.1", "203.0.113.5")).toBe("192.0.2.1");
  expect(client("10.0.0.1")).toBe("10.0.0.1");
});

test("a trusted proxy's last entry counts, and what the client wrote before it does not", () => {
  expect(client("10.0.0.1", "203.0.113.5")).toBe("203.0.113.5");
  expect(client("10.0.0.1", "198.51.100.1, 203.0.113.5")).toBe("203.0.113.5");
  expect(client("10.0.0.1", "198.51.100.1", "203.0.113.5 , 10.0.0.2")).toBe("203.0.113.5");
  expect(client("fd00::1", "2001:db8::1")).toBe("2001:db8::1");
});

test("ports and brackets are taken off", () => {
  expect(client("10.0.0.1", "203.0.113.5:4711")).toBe("203.0.113.5");
  expect(client("10.0.0.1", "[2001:db8::1]:4711")).toBe("2001:db8::1");
  expect(client("10.0.0.1", "[2001:db8::1]")).toBe("2001:db8::1");
});

test("what is no address ends the search at the proxy that wrote it", () => {
  for (const odd of ["unknown", "", "_hidden", "1.2.3", "1.2.3.400", "[::1", "x:y", "203.0.113.5:x", "::1]/?"]) {
    expect(client("10.0.0.1", odd)).toBe("10.0.0.1");
    expect(client("10.0.0.1", `${odd}, 10.0.0.2`)).toBe("10.0.0.2");
  }
});
