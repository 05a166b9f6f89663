import { expect, test } from "bun:test";
import { FakeClock } from "../core/fake-clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import { memoryDuplexPair } from "../core/memory-duplex.ts";
import { errorReply } from "../http/error-page.ts";
import { Http1Service } from "./http1-service.ts";

function setUp(connectionsPerVisitor: number) {
  const service = new Http1Service({
    handler: () => new Promise(() => {}),
    errorPage: errorReply,
    clock: new FakeClock(),
    log: silentLogger,
    limits: { ...limits, connectionsPerVisitor },
  });
  const serve = (host: string): void =>
    service.serve(memoryDuplexPair()[0], { remote: { host, port: 1 }, scheme: "http" });
  return { service, serve };
}

/** How many of so many connections, one from each address, are held. */
function held(hosts: readonly string[]): number {
  const { service, serve } = setUp(5);
  for (const host of hosts) serve(host);
  return service.connectionCount;
}

test("the addresses of one IPv6 subscriber are one visitor, those of IPv4 are not", () => {
  const last = Array.from({ length: 100 }, (_, i) => i.toString(16));
  expect(held(last.map((n) => `2001:db8::${n}`))).toBe(10); // five to serve, and five to refuse with an answer
  expect(held(last.map((n) => `2001:db8:0:${n}::1`))).toBe(100);
  expect(held(last.map((_, i) => `192.0.2.${i}`))).toBe(100);
});

test("a visitor whose connections are gone may come back", () => {
  const { service, serve } = setUp(1);
  for (const host of ["2001:db8::1", "2001:db8::2", "2001:db8::3"]) serve(host);
  expect(service.connectionCount).toBe(2);
  service.abortAll(new SallyError("DRAINING"));
  expect(service.connectionCount).toBe(0);
  for (const host of ["2001:db8::3", "2001:db8::4", "2001:db8::5"]) serve(host);
  expect(service.connectionCount).toBe(2);
});
