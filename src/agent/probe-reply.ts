/** The agent's own answer to a probe: it proves the path through public listener, node and link, not the origin. */

import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { IncomingStream } from "../wire/link.ts";

const body = "sally-probe";
const reply = new TextEncoder().encode(
  `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
);

/** Answers the first request on the stream, then ends it. */
export function answerProbe(stream: IncomingStream): void {
  let head = "";
  let isAnswered = false;
  stream.handler = {
    onData(chunk) {
      stream.consume(chunk.length);
      if (isAnswered) return;
      head += String.fromCharCode(...chunk.subarray(0, limits.probeHeadBytes + 1 - head.length));
      if (head.includes("\r\n\r\n")) {
        isAnswered = true;
        stream.write(reply);
        stream.end();
      } else if (head.length > limits.probeHeadBytes) {
        stream.reset(new SallyError("HEADERS_TOO_LARGE"));
      }
    },
    onEnd: () => stream.end(),
    onDrain() {},
    onClose() {},
  };
  stream.accept();
}
