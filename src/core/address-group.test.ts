import { expect, test } from "bun:test";
import { addressGroup } from "./address-group.ts";

test("addresses of one IPv6 subscriber count together, however they are written", () => {
  const group = addressGroup("2001:db8:0:7::1");
  expect(addressGroup("2001:DB8::7:a:b:c:d")).toBe(group);
  expect(addressGroup("2001:0db8:0000:0007:1:2:3:4")).toBe(group);
  expect(addressGroup("2001:db8:0:8::1")).not.toBe(group);
  expect(addressGroup("::1")).toBe("0:0:0:0");
  expect(addressGroup("192.0.2.1")).toBe("192.0.2.1");
  expect(addressGroup("::ffff:192.0.2.1")).toBe("192.0.2.1");
});
