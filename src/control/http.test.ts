import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { problem } from "../api/schemas.ts";
import { utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { silentLogger } from "../core/log.ts";
import type { Body } from "../http/body.ts";
import { fakeCall, fakeExchange } from "./fake-exchange.ts";
import { ControlError, doneReply, jsonReply, readJson, textReply, withProblems } from "./http.ts";

const json = ["content-type", "Application/JSON; charset=utf-8"];

/** A body whose length is not known from the head. */
class ChunkedBody implements Body {
  readonly length = undefined;
  readonly trailers = undefined;
  readonly #chunk: Uint8Array;
  isCancelled = false;
  #left: number;

  constructor(chunk: Uint8Array, count: number) {
    this.#chunk = chunk;
    this.#left = count;
  }

  read(): Uint8Array | null {
    return this.#left-- > 0 ? this.#chunk : null;
  }

  cancel(): void {
    this.isCancelled = true;
  }
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    return error instanceof SallyError ? error.code : String(error);
  }
}

describe("bodies", () => {
  test("of unknown length are read up to the limit and no further", async () => {
    const piece = utf8Encode(" ".repeat(1_024));
    const exchange = fakeExchange({ headers: json });
    const full = new ChunkedBody(piece, limits.apiBodyBytes / piece.length);
    expect(await codeOf(readJson({ ...exchange, body: full }, z.unknown()))).toBe("BAD_REQUEST"); // spaces are no JSON
    const over = new ChunkedBody(piece, 1_000);
    expect(await codeOf(readJson({ ...exchange, body: over }, z.unknown()))).toBe("BODY_TOO_LARGE");
    expect(over.isCancelled).toBe(true);
  });

  test("are checked against the schema", async () => {
    const exchange = fakeExchange({ headers: json, body: '{"a":1}' });
    expect(await readJson(exchange, z.strictObject({ a: z.number() }))).toEqual({ a: 1 });
  });
});

describe("replies", () => {
  test("are never cached nor guessed at", async () => {
    const { headers } = await fakeCall(async () => jsonReply({}), {});
    expect([headers.get("cache-control"), headers.get("x-content-type-options")]).toEqual(["no-store", "nosniff"]);
  });

  test("to a refusal say what to send; to a bug, nothing of it", async () => {
    const refused = withProblems(async () => {
      throw new SallyError("AUTH_FAILED");
    }, silentLogger);
    expect((await fakeCall(refused, {})).headers.get("www-authenticate")).toBe("Bearer");
    const broken = withProblems(async () => {
      throw new SallyError("STORE_FAILED", "/home/ada/secret.db is damaged");
    }, silentLogger);
    expect(await fakeCall(broken, {})).toMatchObject({ status: 500, code: "STORE_FAILED" });
    expect((await fakeCall(broken, {})).text).not.toContain("secret.db");
    const full = withProblems(
      async () => {
        throw new SallyError("STORE_FAILED", "registry.sqlite cannot be used (disk is full)");
      },
      silentLogger,
      ["STORE_FAILED"],
    );
    expect((await fakeCall(full, {})).text).toContain("disk is full");
  });

  test("to a refusal look as the edge's own do, for programs and for people", async () => {
    const refused = withProblems(async () => {
      throw new ControlError("AUTH_FAILED", "<b>The clocks</b> differ.", { nowMs: 7 });
    }, silentLogger);
    const program = await fakeCall(refused, {});
    expect(program.headers.get("content-type")).toBe("application/problem+json");
    expect(program.headers.get("sally-request-id")).toBe("x1");
    expect(JSON.parse(program.text)).toMatchObject({
      type: "urn:sallyport:error:AUTH_FAILED",
      status: 401,
      detail: "<b>The clocks</b> differ.",
      code: "AUTH_FAILED",
      requestId: "x1",
      nowMs: 7,
    });
    expect(problem.parse(JSON.parse(program.text))).toMatchObject({ code: "AUTH_FAILED", requestId: "x1", nowMs: 7 });
    const person = await fakeCall(refused, { headers: ["Accept", "text/html,*/*;q=0.8"] });
    expect(person.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect([person.code, person.headers.get("sally-request-id")]).toEqual(["AUTH_FAILED", "x1"]);
    expect(person.text).toContain("&lt;b&gt;The clocks&lt;/b&gt; differ.");
  });

  test("have their status in words", async () => {
    const replies = [jsonReply({}), jsonReply({}, 201), doneReply(), textReply(503, "text/plain", "x")];
    const words = replies.map((reply) => reply.head.reason);
    expect(words).toEqual(["OK", "Created", "No Content", "Service Unavailable"]);
  });
});
