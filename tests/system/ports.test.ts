import { expect, test } from "bun:test";
import { limits } from "../../src/core/limits.ts";
import { Scratch, SallyProcess } from "../support/sally.ts";
import { TwoHosts } from "./rig/two-hosts.ts";

/** As many as the tries, so that each could be another one. */
const firstPort = 42_000;
const lastPort = firstPort + limits.portTries - 1;

test("a node that is to choose its tunnel port gives up when none is free for both TCP and UDP", async () => {
  await using hosts = await TwoHosts.open();
  const { edge } = hosts;
  await edge.run(["sh", "-c", `echo ${firstPort} ${lastPort} > /proc/sys/net/ipv4/ip_local_port_range`]);
  const ports = Array.from({ length: limits.portTries }, (_, at) => String(firstPort + at));
  await using taken = edge.start(["udp-ports.fixture.ts", ...ports]);
  await taken.waitFor("taken");
  using data = new Scratch();
  const addresses = ["--http", "127.0.0.1:8080", "--tunnel", "127.0.0.1:0", "--admin", "127.0.0.1:8081"];
  await using node = new SallyProcess(["edge", "--data", data.path, "--json", ...addresses], { wrap: edge.wrap });
  expect(await node.exited).toBe(1);
  expect(node.events.at(-1)).toMatchObject({ event: "error", code: "ADDRESS_IN_USE" });
});

test("a port where nobody listens is refused, also where the system would connect a socket to itself", async () => {
  await using hosts = await TwoHosts.open();
  const { edge } = hosts;
  const port = firstPort + 2; // the system prefers every second one
  await edge.run(["sh", "-c", `echo ${firstPort} ${firstPort + 3} > /proc/sys/net/ipv4/ip_local_port_range`]);
  await using connects = edge.start(["connects.fixture.ts", String(port), "30"]);
  const { ends } = await connects.waitFor("done");
  expect(new Set(ends as string[])).toEqual(new Set([`CONNECT_FAILED: nothing listens on 127.0.0.1:${port}`]));
});
