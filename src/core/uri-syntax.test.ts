import { expect, test } from "bun:test";
import { isHostField, isPathPrefix } from "./uri-syntax.ts";

/** What must stand in neither: it would end a line, a target or a part of one, or is no ASCII. */
const strangers = [
  "\r",
  "\n",
  "\r\nX: y",
  "\0",
  "\t",
  " ",
  "\u007f",
  "\u00e9",
  "\u2603",
  '"',
  "<",
  "\\",
  "^",
  "`",
  "{",
  "|",
];

test("a path prefix is empty or an absolute path", () => {
  for (const good of ["", "/", "/app", "/a/b", "/a//b/", "/%20", "/a%2Fb", "/-._~!$&'()*+,;=:@"]) {
    expect(isPathPrefix(good), good).toBe(true);
  }
  for (const bad of ["app", "a/b", "/a?b", "/a#b", "/%", "/%2", "/%zz", "http://a/b", "*"]) {
    expect(isPathPrefix(bad), bad).toBe(false);
  }
  for (const stranger of strangers) {
    for (const bad of [`/a${stranger}`, `/${stranger}b`, `${stranger}/a`]) expect(isPathPrefix(bad), bad).toBe(false);
  }
});

test("a Host is a name or an address, with or without a port", () => {
  for (const good of [
    "a",
    "a.example",
    "a_b.example.",
    "127.0.0.1:80",
    "[::1]",
    "[::1]:65535",
    "xn--n3h:3000",
    "a%20b",
  ]) {
    expect(isHostField(good), good).toBe(true);
  }
  for (const bad of [
    "",
    ":80",
    "a:",
    "a:b",
    "a:123456",
    "a:1:2",
    "::1",
    "[::1",
    "[]",
    "[::1]x",
    "u@a",
    "a/b",
    "a,[::1]",
  ]) {
    expect(isHostField(bad), bad).toBe(false);
  }
  for (const stranger of strangers) {
    for (const bad of [`a${stranger}`, `a${stranger}b`, `${stranger}a`]) expect(isHostField(bad), bad).toBe(false);
  }
});

test("both take time in proportion to the length", () => {
  const before = process.cpuUsage();
  for (const run of ["/", "a", "/a", "%20", ".", ":", "%"]) {
    isPathPrefix(`/${run.repeat(100_000)}\r`);
    isHostField(`${run.repeat(100_000)}\r`);
  }
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1_000).toBeLessThan(500);
});
