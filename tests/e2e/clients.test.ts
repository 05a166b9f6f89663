/** Clients as people use them, on a Node server behind the whole path. The ws package is in upgrade.test.ts. */

import { createHash, randomBytes } from "node:crypto";
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { NodeProgram } from "../support/node-program.ts";
import { Scratch, startAgent, startNode } from "../support/sally.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(90_000);

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe.each([...transports])("over %s", (transport) => {
  test("Node's fetch and http do everything through it", async () => {
    await using origin = new NodeProgram("feature-origin.mjs");
    const { port } = await origin.waitFor("port");
    await using path = await VisitorPath.open({ transport, target: Number(port) });
    await using visitor = new NodeProgram("node-visitor.mjs", [path.agent.url]);
    await visitor.waitFor("done", 60_000);
    const said = Object.assign({}, ...visitor.lines) as Record<string, unknown>;
    expect(said).toMatchObject({
      json: { host: path.host, url: "/json?a=%2F..%2f&&b" },
      gzip: 60_000,
      cookies: ["a=1; Path=/", "b=2, with a comma", "c=3"],
      redirected: "/json?from=redirect",
      notModified: 304,
      streamed: true,
      echoed: true,
      parallel: true,
      hanging: "AbortError",
      first: "first\n",
      second: "AbortError",
      hints: {
        status: 200,
        body: "hinted",
        interim: [[103, "Link", "</a.css>; rel=preload, </b.js>; rel=preload"], [102]],
      },
      trailers: { status: 200, body: "body", trailers: ["X-Checksum", "abc", "X-Seen", '["X-Sum","1"]'] },
      expected: { status: 200, body: "expected", interim: ["continue", [100]] },
      refused: { status: 413, body: "", interim: [] },
      head: { status: 200, body: "" },
    });
    expect(said["reused"]).toBeGreaterThanOrEqual(16);
    // The origin heard of both aborts.
    expect((await origin.waitFor("left"))["left"]).toBe("aborted");
    expect((await origin.waitFor("streamLeft"))["streamLeft"]).toBe("aborted");
  });

  test("Bun's fetch works through it, and its abort reaches the origin", async () => {
    await using origin = new NodeProgram("feature-origin.mjs");
    const { port } = await origin.waitFor("port");
    await using path = await VisitorPath.open({ transport, target: Number(port) });
    const ask = (where: string, options: Omit<RequestInit, "headers"> = {}): Promise<Response> =>
      fetch(`${path.node.http}${where}`, { ...options, headers: { Host: path.host } });
    expect(await (await ask("/json?x=%2f")).json()).toEqual({ host: path.host, url: "/json?x=%2f" });
    expect((await (await ask("/gzip")).text()).length).toBe(60_000);
    const bytes = randomBytes(5_000_000);
    const echoed = await ask("/echo", { method: "POST", body: bytes });
    expect(sha256(await echoed.bytes())).toBe(sha256(bytes));
    const giveUp = new AbortController();
    const hanging = ask("/hang", { signal: giveUp.signal }).catch((error: Error) => error.name);
    await origin.waitFor("hanging");
    giveUp.abort();
    expect(await hanging).toBe("AbortError");
    expect((await origin.waitFor("left"))["left"]).toBe("aborted");
  });

  test("an EventSource goes on where it was, though the agent is killed and started again", async () => {
    await using origin = new NodeProgram("feature-origin.mjs");
    const { port } = await origin.waitFor("port");
    await using node = await startNode();
    using home = new Scratch();
    const settings = { node, target: Number(port), name: "demo", transport, home: home.path };
    await using agent = await startAgent(settings);
    await using visitor = new NodeProgram("events-visitor.mjs", [`${agent.url}/events`]);
    await visitor.waitFor("event20");
    agent.process.kill("SIGKILL");
    // It is back before the client tries again: a reply that is not 200 would end the EventSource for good.
    await using _again = await startAgent(settings);
    const ids = (): number[] => visitor.lines.filter((line) => "id" in line).map((line) => Number(line["id"]));
    const before = Math.max(...ids());
    await visitor.waitFor(`event${before + 20}`, 40_000);
    // None is missing, none came twice.
    expect(ids()).toEqual(Array.from({ length: ids().length }, (_, n) => n + 1));
    expect(origin.lines.filter((line) => "eventsFrom" in line).map((line) => Number(line["eventsFrom"]) > 0)).toEqual([
      false,
      true,
    ]);
    expect(visitor.lines.filter((line) => "opened" in line)).toHaveLength(2);
  });
});
