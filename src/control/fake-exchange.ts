/** An exchange without a connection, for tests of handlers. */

import { utf8Decode, utf8Encode } from "../core/bytes.ts";
import { bytesBody } from "../http/body.ts";
import type { Exchange, Handler } from "../http/exchange.ts";
import { HeaderList } from "../http/header-list.ts";

export interface FakeRequest {
  readonly method?: string;
  readonly target?: string;
  readonly authority?: string;
  readonly headers?: readonly string[];
  readonly body?: string;
  readonly remote?: string;
}

export interface FakeReply {
  readonly status: number;
  readonly headers: HeaderList;
  readonly text: string;
  /** The error code, when the reply is a problem. */
  readonly code: string | undefined;
}

export function fakeExchange(request: FakeRequest): Exchange {
  const { method = "GET", target = "/", authority = "127.0.0.1:7080", headers = [], body = "" } = request;
  return {
    id: "x1",
    request: { method, target, minorVersion: 1, headers: new HeaderList([...headers]) },
    body: bytesBody(utf8Encode(body)),
    wantsUpgrade: false,
    scheme: "http",
    connection: { id: 1, remote: { host: request.remote ?? "127.0.0.1", port: 50_000 }, onClose() {} },
    authority,
    startedMs: 0,
    inform() {},
    onAbort() {},
  };
}

export async function fakeCall(handler: Handler, request: FakeRequest): Promise<FakeReply> {
  const reply = await handler(fakeExchange(request));
  if (reply.kind === "upgrade") throw new Error("an upgrade was not expected");
  const bytes = await reply.body.read();
  const { status, headers } = reply.head;
  return { status, headers, text: bytes === null ? "" : utf8Decode(bytes), code: headers.get("sally-error") };
}
