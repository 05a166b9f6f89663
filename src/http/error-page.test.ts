import { expect, test } from "bun:test";
import { utf8Decode } from "../core/bytes.ts";
import { type ErrorCode, errorTable, SallyError } from "../core/errors.ts";
import { type ErrorPageContext, errorReply, reasonPhrase } from "./error-page.ts";
import { encodeReplyHead } from "./http1/head-writer.ts";

async function render(error: SallyError, context: Partial<ErrorPageContext> = {}) {
  const { head, body } = errorReply(error, { id: "r1", accept: undefined, ...context });
  const bytes = (await body.read()) ?? new Uint8Array(0);
  return { head, text: utf8Decode(bytes), type: head.headers.get("content-type") };
}

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

test("a browser gets a page that names the cause and what to try", async () => {
  const error = new SallyError(
    "ORIGIN_REFUSED",
    "nothing listens on localhost:3000: start your app or pass another port",
  );
  const { head, text, type } = await render(error, { accept: browser });
  expect(type).toBe("text/html; charset=utf-8");
  expect(head.status).toBe(502);
  expect(head.headers.get("sally-error")).toBe("ORIGIN_REFUSED");
  expect(text).toContain("nothing listens on localhost:3000: start your app or pass another port");
  expect(text).toContain("r1");
});

test("the Date field is the wall clock's, where it is known", async () => {
  const { head } = await render(new SallyError("TUNNEL_OFFLINE"), { nowMs: Date.UTC(2026, 10, 5, 7, 8, 9) });
  expect(head.headers.get("date")).toBe("Thu, 05 Nov 2026 07:08:09 GMT");
  expect((await render(new SallyError("TUNNEL_OFFLINE"))).head.headers.has("date")).toBe(false);
});

const forPrograms = [
  undefined,
  "",
  "*/*",
  "application/json",
  "application/*",
  "text/html;q=0",
  "text/html;q=0.5, application/json",
  "text/*;q=0.4, application/*;q=0.5",
  "text/*, text/html;q=0",
];
test.each(forPrograms)("Accept %p gets problem JSON", async (accept) => {
  const { text, type } = await render(new SallyError("TUNNEL_UNKNOWN"), { accept });
  expect(type).toBe("application/problem+json");
  expect(JSON.parse(text)).toMatchObject({ status: 404, code: "TUNNEL_UNKNOWN", requestId: "r1" });
});

const forPeople = [
  "text/html",
  "TEXT/HTML;q=0.3",
  "application/json;q=0.1, text/html",
  "text/*;q=0.5, application/json;q=0.4",
];
test.each(forPeople)("Accept %p gets HTML", async (accept) => {
  expect((await render(new SallyError("INTERNAL"), { accept })).type).toStartWith("text/html");
});

test("nothing from outside becomes markup or a field", async () => {
  const evil = `</title><script>alert("1")</script><img src=x onerror='a'>&`;
  for (const accept of [browser, undefined]) {
    const details = { [evil]: evil, Host: evil };
    const { head, text } = await render(new SallyError("BAD_REQUEST", evil), {
      id: `${evil}\r\nX: y`,
      accept,
      details,
    });
    expect(text).not.toContain("<script");
    expect(text).not.toContain("<img");
    if (accept !== undefined) expect(text).not.toContain("onerror='");
    expect(head.headers.get("sally-request-id")).not.toMatch(/[<>\r\n "']/);
    encodeReplyHead(head);
  }
});

test("every row of the error table has a page and the words of its status", () => {
  for (const code of Object.keys(errorTable) as ErrorCode[]) {
    const { head } = errorReply(new SallyError(code), { id: "x", accept: browser });
    expect(head.status).toBe(errorTable[code].status);
    expect(reasonPhrase(head.status)).not.toBe("Error");
  }
});
