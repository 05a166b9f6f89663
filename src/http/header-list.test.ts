import { expect, test } from "bun:test";
import fc from "fast-check";
import { HeaderList, isNamed } from "./header-list.ts";

test("set replaces the first field in place, drops its duplicates, or appends", () => {
  const headers = new HeaderList(["A", "1", "b", "2", "a", "3"]);
  headers.set("a", "9");
  headers.set("C", "4");
  expect(headers.raw).toEqual(["A", "9", "b", "2", "C", "4"]);
});

test("get, getAll, has and delete ignore case and keep order", () => {
  const headers = new HeaderList(["X-A", "1", "x-a", "2", "Y", "3"]);
  expect(headers.get("x-a")).toBe("1");
  expect(headers.getAll("x-a")).toEqual(["1", "2"]);
  headers.delete("x-a");
  expect([...headers]).toEqual([["Y", "3"]]);
  expect(headers.has("x-a")).toBe(false);
});

test("names are compared as toLowerCase would, for ASCII", () => {
  const ascii = fc.string({
    unit: fc.constantFrom("a", "A", "z", "Z", "-", "_", "@", "[", "`", "{", "0", "K"),
    maxLength: 6,
  });
  fc.assert(
    fc.property(
      ascii,
      ascii,
      (name, other) => isNamed(name, other.toLowerCase()) === (name.toLowerCase() === other.toLowerCase()),
    ),
  );
  expect(isNamed("\u212a", "k")).toBe(false); // the Kelvin sign is not a k here
});
