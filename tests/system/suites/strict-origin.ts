/**
 * An HTTP/1.1 origin that believes nothing: it takes apart what arrives byte by byte and notes whatever a proxy must
 * never pass on, because two readers could disagree about where it ends. Behind it there is nothing to protect, so it
 * goes on answering 200 where it can.
 */

import type { SuiteOrigin } from "./suite.ts";

interface Connection {
  pending: Buffer;
}

interface Framing {
  /** Length of the whole message in bytes; undefined until it is all there. */
  readonly end: number | undefined;
}

const reply = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nok\n";
const complaintsMax = 100;

export function startStrictOrigin(): SuiteOrigin {
  const complaints: string[] = [];
  let requestCount = 0;
  const complain = (text: string): void => {
    if (complaints.length < complaintsMax) complaints.push(text);
  };
  const server = Bun.listen<Connection>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.data = { pending: Buffer.alloc(0) };
      },
      data(socket, chunk) {
        const connection = socket.data;
        connection.pending = Buffer.concat([connection.pending, chunk]);
        for (;;) {
          const end = messageEnd(connection.pending, complain);
          if (end === undefined) return;
          requestCount++;
          connection.pending = connection.pending.subarray(end);
          socket.write(reply);
        }
      },
      close(socket) {
        const rest = socket.data.pending;
        if (rest.length > 0) complain(`bytes that are no request: ${quote(rest.toString("latin1"))}`);
      },
    },
  });
  return {
    port: server.port,
    complaints,
    get requestCount() {
      return requestCount;
    },
    stop: () => server.stop(true),
  };
}

/** Where the first message ends, or undefined while it is incomplete. */
function messageEnd(bytes: Buffer, complain: (text: string) => void): number | undefined {
  const headEnd = bytes.indexOf("\r\n\r\n");
  if (headEnd < 0) return undefined;
  const head = bytes.toString("latin1", 0, headEnd);
  const framing = frame(bytes, head, headEnd + 4);
  if (framing.end === undefined) return undefined;
  for (const text of objections(head)) complain(`${text}: ${quote(head)}`);
  return framing.end;
}

function frame(bytes: Buffer, head: string, start: number): Framing {
  if (/^transfer-encoding:\s*chunked\s*$/im.test(head)) return { end: chunkedEnd(bytes, start) };
  const length = Number(/^content-length:\s*(\d+)/im.exec(head)?.[1] ?? 0);
  return { end: bytes.length >= start + length ? start + length : undefined };
}

function chunkedEnd(bytes: Buffer, start: number): number | undefined {
  let at = start;
  for (;;) {
    const lineEnd = bytes.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(bytes.toString("latin1", at, lineEnd), 16);
    // A size that is none ends the message here: what follows is then reported as no request.
    if (Number.isNaN(size)) return lineEnd + 2;
    at = lineEnd + 2;
    if (size === 0) {
      const end = bytes.indexOf("\r\n\r\n", at - 2);
      return end < 0 ? undefined : end + 4;
    }
    at += size + 2;
    if (at > bytes.length) return undefined;
  }
}

function objections(head: string): string[] {
  const [requestLine = "", ...fields] = head.split("\r\n");
  const names = fields.map((field) => field.slice(0, field.indexOf(":")).toLowerCase());
  const values = (name: string): string[] =>
    fields.filter((_, index) => names[index] === name).map((field) => field.slice(name.length + 1).trim());
  const lengths = values("content-length");
  const encodings = values("transfer-encoding");
  return [
    /^(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) \S+ HTTP\/1\.1$/.test(requestLine) ? "" : "a strange request line",
    lengths.length > 1 ? "two content lengths" : "",
    lengths.some((value) => !/^\d+$/.test(value)) ? "a content length that is no number" : "",
    encodings.length > 0 && lengths.length > 0 ? "a length and a transfer encoding" : "",
    encodings.length > 1 || encodings.some((value) => value.toLowerCase() !== "chunked") ? "a strange encoding" : "",
    fields.some((field) => !/^[!#$%&'*+\-.^_`|~\w]+:/.test(field)) ? "a field without a proper name" : "",
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    /[\0\r\n]/.test(head.replaceAll("\r\n", "")) ? "a bare CR, LF or NUL" : "",
  ].filter((text) => text !== "");
}

function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
