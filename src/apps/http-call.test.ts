import { describe, expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { type MemoryDuplex, memoryDuplexPair } from "../core/memory-duplex.ts";
import { callHttp, type HttpAnswer, type HttpCall } from "./http-call.ts";

const call: HttpCall = {
  method: "POST",
  path: "/_sally/enrol",
  host: "edge.example:7443",
  headers: { "x-a": "b" },
  body: '{"ä":1}',
};

interface Served {
  readonly answer: Promise<HttpAnswer>;
  readonly server: MemoryDuplex;
  readonly received: () => string;
}

/** A call whose server says `reply`, in pieces of `chunkBytes`, when it has the whole request. */
function serve(
  reply: string,
  { chunkBytes = 65_536, ends = false, signal = new AbortController().signal } = {},
): Served {
  const [client, server] = memoryDuplexPair({ nextChunkBytes: () => chunkBytes });
  let received = "";
  server.handler = {
    onData(chunk) {
      received += utf8Decode(chunk);
      server.consume(chunk.length);
      if (!received.endsWith("}") && !received.endsWith("\r\n\r\n")) return;
      server.write(utf8Encode(reply));
      if (ends) server.end();
    },
    onEnd() {},
    onDrain() {},
    onClose() {},
  };
  return { answer: callHttp(client, call, signal), server, received: () => received };
}

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => "answered",
    (error: unknown) => (error instanceof SallyError ? error.code : error),
  );
}

describe("one HTTP call", () => {
  test("sends head and body, and closes the connection with the answer", async () => {
    const { answer, received } = serve("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-B: c\r\n\r\nyes");
    const { status, headers, body } = await answer;
    expect([status, body, headers.get("x-b")]).toEqual([200, "yes", "c"]);
    expect(received()).toBe(
      'POST /_sally/enrol HTTP/1.1\r\nHost: edge.example:7443\r\nConnection: close\r\nx-a: b\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"ä":1}',
    );
  });

  test.each([1, 2, 7, 1_000])("reads every framing in pieces of %p bytes", async (chunkBytes) => {
    const chunked =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nye\r\n1\r\ns\r\n0\r\n\r\n";
    expect(await serve(chunked, { chunkBytes }).answer).toMatchObject({ status: 201, body: "yes" });
    expect(await serve("HTTP/1.1 404 No\r\n\r\nuntil the end", { chunkBytes, ends: true }).answer).toMatchObject({
      status: 404,
      body: "until the end",
    });
    expect(await serve("HTTP/1.1 204 Done\r\nContent-Length: 0\r\n\r\n", { chunkBytes }).answer).toMatchObject({
      status: 204,
      body: "",
    });
  });

  test("does not take a part for the whole", async () => {
    expect(await codeOf(serve("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nyes", { ends: true }).answer)).toBe(
      "LINK_LOST",
    );
    expect(
      await codeOf(serve("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n", { ends: true }).answer),
    ).toBe("LINK_LOST");
    expect(await codeOf(serve("HTTP/1.1 200 OK\r\nConte", { ends: true }).answer)).toBe("LINK_LOST");
    expect(await codeOf(serve("", { ends: true }).answer)).toBe("LINK_LOST");
  });

  test("refuses what is not HTTP, and what has no end", async () => {
    expect(await codeOf(serve("SSH-2.0-OpenSSH_9.9\r\n\r\n").answer)).not.toBe("answered");
    const head = "HTTP/1.1 200 OK\r\n\r\n";
    const whole = serve(head + "a".repeat(limits.httpAnswerBytes - head.length), { ends: true });
    expect((await whole.answer).body.length).toBe(limits.httpAnswerBytes - head.length);
    const endless = serve(head + "a".repeat(limits.httpAnswerBytes - head.length + 1));
    expect(await codeOf(endless.answer)).toBe("PROTOCOL_VIOLATION");
  });

  test("that nobody answers ends with the signal: as a time-out, or as the reason says", async () => {
    expect(await codeOf(serve("", { signal: AbortSignal.timeout(1) }).answer)).toBe("CONNECT_TIMEOUT");
    expect(await codeOf(serve("", { signal: AbortSignal.abort(new SallyError("DRAINING")) }).answer)).toBe("DRAINING");
    expect(await codeOf(serve("", { signal: AbortSignal.abort() }).answer)).toBe("CANCELLED");
  });
});
