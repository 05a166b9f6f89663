/** nginx as the origin, over its unix socket: curl gets the same from it directly and through the tunnel. */

import { createHash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { Scratch, startAgent, startNode, type TestAgent, type TestNode } from "../support/sally.ts";
import { until } from "../support/until.ts";
import { transports } from "../support/visitor-path.ts";
import { Nginx } from "./rig/nginx.ts";

setDefaultTimeout(60_000);

const text = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`).join("");
const server = `
  server_name_in_redirect on; absolute_redirect off; etag on;
  location /plain { gzip off; }
  location /packed { gzip on; gzip_types text/plain; gzip_min_length 1; default_type text/plain; try_files /plain =404; }
  location = /moved { return 308 /plain?from=moved; }
  location = /empty { return 204; }
  location = /teapot { add_header X-Twice one always; add_header X-Twice two always; return 418 "short and stout"; }
  location = /trailers { add_trailer X-Sum "seventeen"; default_type text/plain; try_files /plain =404; }
  location = /cookies { add_header Set-Cookie "a=1; Path=/"; add_header Set-Cookie "b=2"; return 200 "ok"; }
  location /upload/ { dav_methods PUT DELETE; create_full_put_path on; client_body_buffer_size 16k; }
  location /slow { limit_rate 64k; try_files /plain =404; }
`;

interface Answer {
  readonly code: number;
  readonly head: readonly string[];
  readonly sha256: string;
  readonly bytes: number;
}

/** Fields that belong to one connection, or to the moment. */
const ownFields = /^(connection|keep-alive|transfer-encoding|date):/i;
/** nginx draws it for each answer. */
const boundary = /(?<=boundary=|--)\d{20}/g;

async function curl(args: readonly string[]): Promise<Answer> {
  using scratch = new Scratch();
  const [head, body] = [scratch.join("head"), scratch.join("body")];
  const command = ["curl", "-sS", "--max-time", "40", "-D", head, "-o", body, ...args];
  const child = Bun.spawn(command, { stdio: ["ignore", "ignore", "ignore"] });
  const code = await child.exited;
  const isBody = (await Bun.file(body).exists()) && !args.includes("-I"); // curl writes the head there too
  const text = isBody ? Buffer.from(await Bun.file(body).bytes()).toString("latin1") : "";
  const bytes = Buffer.from(text.replaceAll(boundary, "BOUNDARY"), "latin1");
  const lines = (await Bun.file(head).text())
    .replaceAll(boundary, "BOUNDARY")
    .split("\r\n")
    .filter((line) => !ownFields.test(line));
  return { code, head: lines, sha256: createHash("sha256").update(bytes).digest("hex"), bytes: bytes.length };
}

describe.each([...transports])("over %s", (transport) => {
  let nginx: Nginx;
  let node: TestNode;
  let agent: TestAgent;
  let stack: AsyncDisposableStack;
  beforeAll(async () => {
    stack = new AsyncDisposableStack();
    nginx = stack.use(await Nginx.start({ server }));
    await Bun.write(join(nginx.root, "plain"), text);
    node = stack.use(await startNode());
    agent = stack.use(await startAgent({ node, target: `unix:${nginx.socket}`, name: "demo", transport }));
  });
  afterAll(() => stack.disposeAsync());

  const tunnelled = (path: string): string[] => ["-H", `Host: demo.localhost:${node.port}`, `${node.http}${path}`];
  const direct = (path: string): string[] => {
    const host = `Host: demo.localhost:${node.port}`;
    return ["--unix-socket", nginx.socket, "-H", host, `http://nginx${path}`];
  };

  test.each([
    ["a file", "/plain", []],
    ["its head", "/plain", ["-I"]],
    ["a part of it", "/plain", ["-r", "1000-1999"]],
    ["several parts", "/plain", ["-r", "0-9,100-109"]],
    ["a part beyond its end", "/plain", ["-r", "99999999-"]],
    ["what it has already", "/plain", ["-H", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"]],
    ["a file that is compressed on the way", "/packed", ["-H", "Accept-Encoding: gzip"]],
    ["a redirect", "/moved", []],
    ["no content", "/empty", []],
    ["an unusual status and a field twice", "/teapot", []],
    ["two cookies", "/cookies", []],
    ["a page that is not there", "/nothing", []],
    ["a method that is not allowed", "/plain", ["-X", "POST", "-d", "x=1"]],
    ["a file over HTTP/1.0", "/plain", ["-0"]],
    ["a target with dots and escapes", "/a/../%70lain?x=%2f&y=//", ["--path-as-is"]],
  ] as const)("%s", async (_what, path, args) => {
    const [through, expected] = [await curl([...args, ...tunnelled(path)]), await curl([...args, ...direct(path)])];
    expect(through.code).toBe(expected.code);
    expect([through.bytes, through.sha256]).toEqual([expected.bytes, expected.sha256]);
    expect(through.head).toEqual(expected.head);
  });

  test("trailers", async () => {
    const { head, bytes } = await curl(["-H", "TE: trailers", ...tunnelled("/trailers")]);
    expect(bytes).toBe(text.length);
    expect(head).toContain("X-Sum: seventeen");
  });

  test("uploads: with a length, chunked, and with 100-continue", async () => {
    using scratch = new Scratch();
    const bytes = randomBytes(5_000_000);
    await Bun.write(scratch.join("body"), bytes);
    for (const [name, args] of [
      ["length", ["-H", "Expect:"]],
      ["chunked", ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]],
      ["continue", ["-H", "Expect: 100-continue", "--expect100-timeout", "30"]],
    ] as const) {
      const put = await curl([...args, "-T", scratch.join("body"), ...tunnelled(`/upload/${name}`)]);
      expect([put.code, put.head[0]]).toEqual([
        0,
        name === "continue" ? "HTTP/1.1 100 Continue" : "HTTP/1.1 201 Created",
      ]);
      expect(Buffer.compare(await Bun.file(join(nginx.root, "upload", name)).bytes(), bytes)).toBe(0);
      const again = await curl(["-X", "DELETE", ...tunnelled(`/upload/${name}`)]);
      expect(again.head[0]).toBe("HTTP/1.1 204 No Content");
    }
  });

  test("a hundred requests on one connection", async () => {
    const urls = Array.from({ length: 100 }, () => [`${node.http}/plain`, "-o", "/dev/null"]).flat();
    const format = ["-H", `Host: demo.localhost:${node.port}`, "-w", "%{http_code} %{num_connects}\n"];
    const child = Bun.spawn(["curl", "-sS", ...format, ...urls], { stdio: ["ignore", "pipe", "ignore"] });
    const lines = (await child.stdout.text()).trim().split("\n");
    expect(lines).toEqual(["200 1", ...Array.from({ length: 99 }, () => "200 0")]);
  });

  test("a visitor who leaves in the middle frees the stream", async () => {
    const { code } = await curl(["--max-time", "1", ...tunnelled("/slow")]);
    expect(code).toBe(28);
    const adminToken = (await Bun.file(join(node.data, "admin.token")).text()).trim();
    await until("no stream is open", async () => {
      const answer = await fetch(`${node.admin}/metrics`, { headers: { authorization: `Bearer ${adminToken}` } });
      return /^sally_streams 0$/m.test(await answer.text());
    });
    expect(agent.process.hasEnded).toBe(false);
  });
});
