import { describe, expect, test } from "bun:test";
import { createPaint, createSink, printable, withoutTokens } from "./output.ts";

const token = `sally_${Buffer.alloc(32, 9).toString("base64url")}.${"ab".repeat(32)}`;

describe("text for people", () => {
  test("keeps what is printed and replaces what steers a terminal or hides text", () => {
    expect(printable("GET /straße?q=日本 ✓")).toBe("GET /straße?q=日本 ✓");
    const steering = [
      "\u001b[2J",
      "\u009b2J",
      "\u0007",
      "\r",
      "\n",
      "\t",
      "\u007f",
      "\u0000",
      "\u202e",
      "\u2066",
      "\u200f",
      "\u2028",
    ];
    for (const text of steering) expect(printable(`a${text[0]}b`)).toBe("a\uFFFDb");
  });

  test("has colours only where they are wanted", () => {
    expect(createPaint(true).red("x")).toBe("\u001b[31mx\u001b[39m");
    expect(createPaint(false).red("x")).toBe("x");
  });

  test("never repeats a join token that was put in a wrong place", () => {
    expect(withoutTokens(`unknown option '--token=${token}'`)).toBe("unknown option '--token=sally_…'");
    expect(withoutTokens(`"${token.slice(0, 40)}" is not a target`)).toBe('"sally_…" is not a target');
    expect(withoutTokens("sally_home and sally http 3000")).toBe("sally_home and sally http 3000");
  });
});

describe("a log line", () => {
  function lines(isJson: boolean): { log: ReturnType<typeof createSink>; written: string[] } {
    const written: string[] = [];
    return {
      log: createSink({ isJson, paint: createPaint(false), write: (line) => void written.push(line) }),
      written,
    };
  }

  test("for people has time, level, message and fields", () => {
    const { log, written } = lines(false);
    log("warn", "link refused", { remote: "127.0.0.1:1", error: "two words", code: undefined, tries: 3 });
    expect(written[0]).toMatch(
      /^\d\d:\d\d:\d\d\.\d\d\d warn {2}link refused remote=127\.0\.0\.1:1 error="two words" tries=3\n$/,
    );
  });

  test("cannot be forged or steered by what is in a field", () => {
    const { log, written } = lines(false);
    log("info", "a\nb", { name: "x\n12:00:00.000 error forged\u001b[2J" });
    expect(written).toHaveLength(1);
    expect(written[0]!.indexOf("\n")).toBe(written[0]!.length - 1);
    expect(written[0]).not.toContain("\u001b");
  });

  test("for programs is one JSON object", () => {
    const { log, written } = lines(true);
    log("error", "a\nb", { name: "x\ny" });
    expect(written[0]!.split("\n")).toHaveLength(2);
    expect(JSON.parse(written[0]!)).toMatchObject({
      level: "error",
      message: "a\nb",
      name: "x\ny",
      time: expect.any(String),
    });
  });
});
