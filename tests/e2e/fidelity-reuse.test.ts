/** When a connection to an origin may carry another request, and what happens when the origin ends it at a bad time. */

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { limits } from "../../src/core/limits.ts";
import { NodeProgram } from "../support/node-program.ts";
import type { RawSocket } from "../support/raw-socket.ts";
import { transports, VisitorPath } from "../support/visitor-path.ts";

setDefaultTimeout(90_000);

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** A whole reply with a length, from a visitor's connection. */
async function readAnswer(visitor: RawSocket): Promise<Answer> {
  const head = await visitor.readHead();
  const length = Number(/\r\nContent-Length: (\d+)\r\n/i.exec(head)?.[1] ?? 0);
  return { status: Number(head.slice(9, 12)), body: await visitor.read(length) };
}

/** A whole request with a length, from an origin's connection; undefined when the connection is over. */
async function readRequest(connection: RawSocket): Promise<string | undefined> {
  try {
    const head = await connection.readHead();
    return head + (await connection.read(Number(/\r\nContent-Length: (\d+)\r\n/i.exec(head)?.[1] ?? 0)));
  } catch {
    return undefined;
  }
}

const reply = (body: string): string => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

test("POSTs to a default Node server, spaced as long as it keeps connections, are each executed once", async () => {
  await using origin = new NodeProgram("counting-origin.mjs");
  const { port } = await origin.waitFor("port");
  const perPath = 12;
  const rounds = 3;
  const runs = transports.map(async (transport) => {
    await using path = await VisitorPath.open({ transport, target: Number(port) });
    const visitors = await Promise.all(Array.from({ length: perPath }, () => path.visit()));
    const answers = visitors.map(async (visitor, n) => {
      const spaceMs = 4_900 + (200 * n) / (perPath - 1);
      const mine: Answer[] = [];
      for (let round = 0; round < rounds; round++) {
        if (round > 0) await Bun.sleep(spaceMs); // about when the origin gives up
        const body = `${transport} ${n} ${round}`;
        visitor.write(`POST /p HTTP/1.1\r\nHost: ${path.host}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
        mine.push(await readAnswer(visitor));
      }
      return mine;
    });
    return (await Promise.all(answers)).flat();
  });
  const answers = (await Promise.all(runs)).flat();
  expect(answers).toHaveLength(2 * perPath * rounds);
  expect(answers.filter(({ status }) => status !== 200)).toEqual([]);
  const parsed = answers.map(({ body }) => JSON.parse(body) as { id: string; count: number });
  expect(parsed.filter(({ count }) => count !== 1)).toEqual([]);
  expect(new Set(parsed.map(({ id }) => id)).size).toBe(answers.length);
});

test("a request that an origin began to read before it broke off is not sent again, unless it is safe and came on a kept connection", async () => {
  await using origin = new NodeProgram("crashing-origin.mjs");
  const { port } = await origin.waitFor("port");
  await using path = await VisitorPath.open({ transport: "websocket", target: Number(port) });
  const executed = (): number => origin.lines.filter((line) => "executed" in line).length;
  for (const isWarm of [false, true]) {
    for (const method of ["POST", "DELETE", "GET"]) {
      const visitor = await path.visit();
      if (isWarm) {
        visitor.write(`GET /warm HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
        expect(await readAnswer(visitor)).toEqual({ status: 200, body: "warm" });
      }
      const before = executed();
      visitor.write(`${method} /pay HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`);
      const { status } = await readAnswer(visitor);
      await Bun.sleep(100);
      const times = isWarm && method === "GET" ? 2 : 1;
      expect([isWarm, method, status, executed() - before]).toEqual([isWarm, method, 502, times]);
      path.forget();
    }
  }
});

describe.each([...transports])("over %s", (transport) => {
  let path: VisitorPath;
  beforeAll(async () => {
    path = await VisitorPath.open({ transport });
  });
  afterAll(() => path[Symbol.asyncDispose]());
  afterEach(() => path.forget());

  const post = (id: string): string =>
    `POST /${id} HTTP/1.1\r\nHost: ${path.host}\r\nContent-Length: ${id.length}\r\n\r\n${id}`;
  const get = (id: string): string => `GET /${id} HTTP/1.1\r\nHost: ${path.host}\r\n\r\n`;

  /** Serves connections to the path's origin as they come, until the end of the test. */
  function serve(onConnection: (connection: RawSocket) => Promise<void>): void {
    path.origin.onConnection = (connection) => void onConnection(connection);
  }

  afterEach(() => {
    path.origin.onConnection = undefined;
  });

  test("an origin that ends each connection after one reply, without saying so, answers every POST once", async () => {
    const executed: string[] = [];
    serve(async (connection) => {
      const request = await readRequest(connection);
      if (request === undefined) return;
      const id = request.slice(request.indexOf("\r\n\r\n") + 4);
      executed.push(id);
      connection.end(reply(id));
    });
    const visitor = await path.visit();
    const expected: string[] = [];
    for (let n = 0; n < 60; n++) {
      expected.push(`n${n}`);
      visitor.write(post(`n${n}`));
      expect(await readAnswer(visitor)).toEqual({ status: 200, body: `n${n}` });
    }
    expect(executed).toEqual(expected);
  });

  test("an origin that ends idle connections at any moment executes no POST twice, and hardly one is lost", async () => {
    const idleMs = 150;
    const executed = new Map<string, number>();
    serve(async (connection) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      for (
        let request = await readRequest(connection);
        request !== undefined;
        request = await readRequest(connection)
      ) {
        clearTimeout(timer);
        const id = request.slice(request.indexOf("\r\n\r\n") + 4);
        executed.set(id, (executed.get(id) ?? 0) + 1);
        connection.write(reply(id));
        timer = setTimeout(() => connection.close(), idleMs);
      }
      clearTimeout(timer);
    });
    const visitors = await Promise.all(Array.from({ length: 10 }, () => path.visit()));
    const rounds = 20;
    const lost = await Promise.all(
      visitors.map(async (visitor, n) => {
        let count = 0;
        for (let round = 0; round < rounds; round++) {
          const id = `v${n}r${round}`;
          visitor.write(post(id));
          const answer = await readAnswer(visitor);
          if (answer.status === 200) expect(answer.body).toBe(id);
          else count++;
          await Bun.sleep(idleMs - 4 + ((n * 7 + round * 3) % 9)); // about when the origin ends it
        }
        return count;
      }),
    );
    expect([...executed.values()].filter((count) => count > 1)).toEqual([]);
    // A request may reach the system of an origin that closes without reading it: a reset does not tell, and 502 is honest.
    expect(lost.reduce((sum, count) => sum + count, 0)).toBeLessThan((visitors.length * rounds) / 10);
  });

  test.each(["end", "reset"] as const)(
    "an origin that leaves by %s after any part of its reply never makes a wrong one",
    async (how) => {
      const whole = reply("0123456789");
      const headEnd = whole.indexOf("\r\n\r\n") + 4;
      let cutAt = 0;
      const executed: string[] = [];
      serve(async (connection) => {
        for (
          let request = await readRequest(connection);
          request !== undefined;
          request = await readRequest(connection)
        ) {
          executed.push(request.slice(0, request.indexOf(" HTTP")));
          if (request.includes("/warm")) connection.write(reply("warm"));
          else {
            connection.write(whole.slice(0, cutAt));
            await connection.until(() => connection.queuedBytes === 0, "flush");
            connection[how]();
            return;
          }
        }
      });
      for (cutAt = 0; cutAt <= whole.length; cutAt++) {
        for (const isWarm of [false, true]) {
          executed.length = 0;
          const visitor = await path.visit();
          if (isWarm) {
            visitor.write(get("warm"));
            expect((await readAnswer(visitor)).body).toBe("warm");
          }
          visitor.write(post(`cut${cutAt}`));
          const { rest, wasReset } = await readUntilSettled(visitor);
          expect(executed.filter((one) => one.startsWith("POST"))).toHaveLength(1);
          if (cutAt === whole.length) expect(rest).toBe(whole);
          else if (cutAt < headEnd) expect(rest).toStartWith("HTTP/1.1 502 ");
          else {
            expect(wasReset).toBe(true);
            expect(whole.startsWith(rest)).toBe(true);
          }
          path.forget();
        }
      }
    },
  );

  test("an origin that leaves after any part of a request executes it at most once, and the visitor hears of it", async () => {
    for (const how of ["end", "reset"] as const) {
      let takes = 0;
      let whole = 0;
      serve(async (connection) => {
        if ((await readRequest(connection))?.includes("/warm") !== true) return;
        connection.write(reply("warm"));
        await connection
          .until(() => connection.unread.length >= takes || connection.hasEnded, "a part")
          .catch(() => {});
        if (connection.unread.endsWith("\r\n\r\nbody")) whole++;
        connection[how]();
      });
      for (takes of [1, 5, 20, 60, 100]) {
        whole = 0;
        const visitor = await path.visit();
        visitor.write(get("warm"));
        await readAnswer(visitor);
        const request = post("body");
        visitor.write(request.slice(0, -1));
        visitor.write(request.slice(-1));
        const { rest } = await readUntilSettled(visitor);
        expect(rest).toMatch(/^HTTP\/1\.1 502 /);
        expect(whole).toBeLessThanOrEqual(1);
        path.forget();
      }
    }
  });

  test("a connection that idles is ended by the edge, cleanly, before usual origins would", async () => {
    const visitor = await path.visit();
    visitor.write(get("idle"));
    const connection = await path.origin.accept();
    await connection.readHead();
    connection.write(reply("x"));
    await readAnswer(visitor);
    await connection.until(() => connection.hasEnded, "a clean end");
    expect(limits.pooledIdleMs).toBeLessThan(5_000); // what Node's servers wait
    expect(connection.wasReset).toBe(false);
  });

  test.each(["NTLM", "Negotiate"])(
    "connections that authenticate with %s serve their own visitor only",
    async (scheme) => {
      serve(async (connection) => {
        let user = "nobody";
        for (
          let request = await readRequest(connection);
          request !== undefined;
          request = await readRequest(connection)
        ) {
          const [, claim, step] = new RegExp(`\\r\\nAuthorization: ${scheme} (\\w+)-(\\d)`).exec(request) ?? [];
          if (claim !== undefined && step === "1") {
            connection.write(`HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: ${scheme} c\r\nContent-Length: 0\r\n\r\n`);
          } else {
            if (claim !== undefined) user = claim;
            connection.write(reply(user));
          }
        }
      });
      const [anna, bert, carl] = await Promise.all([path.visit(), path.visit(), path.visit()]);
      const ask = async (visitor: RawSocket, fields = ""): Promise<Answer> => {
        visitor.write(`GET /n HTTP/1.1\r\nHost: ${path.host}\r\n${fields}\r\n`);
        return await readAnswer(visitor);
      };
      // Each handshake needs two requests on one origin connection; they are interleaved, and a third visitor asks too.
      await ask(carl);
      expect((await ask(anna, `Authorization: ${scheme} anna-1\r\n`)).status).toBe(401);
      expect((await ask(bert, `Authorization: ${scheme} bert-1\r\n`)).status).toBe(401);
      expect((await ask(carl)).body).toBe("nobody");
      expect((await ask(bert, `Authorization: ${scheme} bert-3\r\n`)).body).toBe("bert");
      expect((await ask(anna, `Authorization: ${scheme} anna-3\r\n`)).body).toBe("anna");
      for (let n = 0; n < 20; n++) {
        const answers = await Promise.all([ask(anna), ask(bert), ask(carl)]);
        expect(answers.map(({ body }) => body)).toEqual(["anna", "bert", "nobody"]);
      }
      // When its visitor leaves, an authenticated connection goes too.
      anna.reset();
      for (let n = 0; n < 10; n++) expect((await ask(await path.visit())).body).toBe("nobody");
      expect((await ask(bert)).body).toBe("bert");
    },
  );
});

/** Everything that comes until the reply is whole, or the connection is over. */
async function readUntilSettled(visitor: RawSocket): Promise<{ rest: string; wasReset: boolean }> {
  const isWhole = (): boolean => {
    const { unread } = visitor;
    const length = Number(/\r\nContent-Length: (\d+)\r\n/i.exec(unread)?.[1] ?? Number.NaN);
    const headEnd = unread.indexOf("\r\n\r\n") + 4;
    return headEnd > 4 && unread.length >= headEnd + length;
  };
  await visitor.until(() => isWhole() || visitor.wasReset || visitor.hasEnded, "an answer or an end");
  return { rest: visitor.unread, wasReset: visitor.wasReset };
}
