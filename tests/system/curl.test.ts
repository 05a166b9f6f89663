/** curl as a visitor, over both transports. */

import { randomBytes, createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { NodeProgram } from "../support/node-program.ts";
import { Scratch } from "../support/sally.ts";
import { until } from "../support/until.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(60_000);

interface Curled {
  readonly code: number;
  readonly out: string;
  readonly notes: string;
}

describe.each([...transports])("over %s", (transport) => {
  let origin: NodeProgram;
  let path: VisitorPath;
  let raw: VisitorPath;
  beforeAll(async () => {
    origin = new NodeProgram("feature-origin.mjs");
    path = await VisitorPath.open({ transport, target: Number((await origin.waitFor("port"))["port"]) });
    raw = await VisitorPath.open({ transport });
  });
  afterAll(async () => {
    await raw[Symbol.asyncDispose]();
    await path[Symbol.asyncDispose]();
    await origin[Symbol.asyncDispose]();
  });

  async function curl(args: readonly string[], { host } = path): Promise<Curled> {
    const command = ["curl", "-sS", "-v", "--resolve", `${host}:127.0.0.1`, "--max-time", "30", ...args];
    const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [out, notes, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { code, out, notes };
  }
  const url = (where: string, { host } = path): string => `http://${host}${where}`;

  test("gets, follows, decodes, asks for heads and keeps its connection", async () => {
    expect((await curl([url("/json?a=%2F")])).out).toBe(JSON.stringify({ host: path.host, url: "/json?a=%2F" }));
    expect((await curl(["-L", url("/redirect")])).out).toContain("/json?from=redirect");
    expect(Buffer.byteLength((await curl(["--compressed", url("/gzip")])).out)).toBe(80_000);
    expect((await curl(["-I", url("/etag")])).out).toStartWith("HTTP/1.1 200 OK\r\n");
    expect((await curl(["-0", url("/json")])).out).toContain(path.host);
    expect(
      (await curl(["-H", 'If-None-Match: "tag"', "-o", "/dev/null", "-w", "%{http_code}", url("/etag")])).out,
    ).toBe("304");
    const twice = await curl([url("/json"), url("/json?again")]);
    expect(twice.notes).toContain("Re-using existing");
  });

  test("sends what people type: dots, UTF-8, unusual characters", async () => {
    for (const [typed, target] of [
      ["/a/../b/./c", "/a/../b/./c"],
      ["/?größe=tür", "/?gr\xc3\xb6\xc3\x9fe=t\xc3\xbcr"],
      ["//x//", "//x//"],
      ['/"<>|^`{}\\', '/"<>|^`{}\\'],
    ] as const) {
      const running = curl(["--path-as-is", "--globoff", url(typed, raw)], raw);
      const connection = await raw.origin.accept();
      expect(await connection.readHead()).toStartWith(`GET ${target} HTTP/1.1\r\n`);
      connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      expect((await running).out).toBe("ok");
    }
  });

  test("uploads with 100-continue, with a length and chunked", async () => {
    using scratch = new Scratch();
    const bytes = randomBytes(3_000_000);
    await Bun.write(scratch.join("body"), bytes);
    const expected = createHash("sha256").update(bytes).digest("hex");
    for (const args of [
      ["-H", "Expect: 100-continue", "--data-binary", `@${scratch.join("body")}`],
      ["-H", "Transfer-Encoding: chunked", "-T", scratch.join("body")],
      ["-T", scratch.join("body")],
    ]) {
      expect((await curl([...args, url("/hash")])).out).toBe(expected);
    }
    const refused = await curl([
      "-H",
      "Expect: 100-continue",
      "-H",
      "X-Refuse: 1",
      "-T",
      scratch.join("body"),
      url("/hash"),
    ]);
    expect(refused.notes).toContain("HTTP/1.1 413");
    expect(refused.code).toBe(0);
  });

  test("shows early hints and trailers", async () => {
    const hints = await curl([url("/hints")]);
    expect(hints.notes).toContain("< HTTP/1.1 103 Early Hints");
    expect(hints.out).toBe("hinted");
    const trailers = await curl(["-i", "-d", "x", url("/trailers")]);
    expect(trailers.out).toContain("X-Checksum: abc\r\n");
  });

  test("that is stopped in mid-stream is noticed by the origin", async () => {
    const before = origin.lines.filter((line) => "streamLeft" in line).length;
    const stopped = await curl(["-N", "--max-time", "1", url("/stream")]);
    expect([stopped.code, stopped.out]).toEqual([28, "first\n"]);
    const left = (): number => origin.lines.filter((line) => "streamLeft" in line).length;
    await until("the origin to notice", () => left() > before, 5_000);
    expect(left()).toBe(before + 1);
  });

  test("asks for HTTP/2 in vain, and is served with 1.1", async () => {
    expect((await curl(["--http2", "-w", " %{http_version}", url("/json")])).out).toEndWith(" 1.1");
    expect((await curl(["--http2-prior-knowledge", url("/json")])).code).not.toBe(0);
  });

  test("sees a reply that breaks off as an error", async () => {
    const running = curl([url("/cut", raw)], raw);
    const connection = await raw.origin.accept();
    await connection.readHead();
    connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
    await connection.until(() => connection.queuedBytes === 0, "flush");
    connection.end();
    const { code, out } = await running;
    expect(out === "part" || out === "").toBe(true);
    expect([18, 56]).toContain(code);
  });
});
