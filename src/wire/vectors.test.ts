/** The test vectors of docs/protocol.md are what the code says: each row of its table is compared. */

import { expect, test } from "bun:test";
import { hexEncode, utf8Encode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Duplex } from "../core/duplex.ts";
import { idleHandler } from "../core/duplex.ts";
import { encodeTranscript } from "./handshake.ts";
import { laneMac } from "./lane-join.ts";
import { LaneSender } from "./lane-sender.ts";
import { encodeMessage } from "./messages.ts";
import type { WireStream } from "./wire-stream.ts";

function bytesSaid(say: (sender: LaneSender) => void): string {
  let said = "";
  const carrier: Duplex = {
    handler: idleHandler,
    queuedBytes: 0,
    write: (chunk) => ((said += hexEncode(chunk)), true),
    end() {},
    reset() {},
    consume() {},
  };
  const sender = new LaneSender({ carrier, limits, schedule() {}, onFlushed() {}, onOverflow() {} });
  say(sender);
  sender.flush();
  return said;
}

async function vectors(): Promise<Record<string, string>> {
  const stream = { id: 2, sendCredit: 100 } as WireStream; // all that trySend looks at
  const visitor = { host: "192.0.2.7", port: 50_000 };
  return {
    "OPEN http": bytesSaid((sender) => sender.open(2, { tunnel: "demo", protocol: "http" })),
    "OPEN raw": bytesSaid((sender) => sender.open(4, { tunnel: "demo", protocol: "raw", visitor })),
    OPENED: bytesSaid((sender) => sender.opened(2)),
    REFUSED: bytesSaid((sender) => sender.refused(2, new SallyError("ORIGIN_REFUSED", "nothing listens"))),
    DATA: bytesSaid((sender) => void sender.trySend(stream, utf8Encode("hello"))),
    CREDIT: bytesSaid((sender) => sender.credit(2, 32_768, 5)),
    "CREDIT lane": bytesSaid((sender) => sender.credit(0, 1_320, 0)),
    FIN: bytesSaid((sender) => sender.fin(2, 5_000_000_000)),
    RESET: bytesSaid((sender) => sender.reset(2, new SallyError("CANCELLED"), 7)),
    PING: bytesSaid((sender) => sender.ping(1_234.5)),
    "GOAWAY drain": bytesSaid((sender) => sender.goaway(0, "")),
    GOAWAY: bytesSaid((sender) => sender.goaway(52, "too much")),
    CONTROL: bytesSaid((sender) => sender.control(1, encodeMessage({ type: "headroom", value: 0.5 }))),
    CONTROL_ACK: bytesSaid((sender) => sender.acknowledgeControl(1)),
    "lane MAC": hexEncode(await laneMac("link-1", 3, new Uint8Array(32).fill(7))),
    transcript: hexEncode(
      encodeTranscript({
        signer: "dialler",
        version: 1,
        helloHash: new Uint8Array(32).fill(0x11),
        roles: { dialler: "agent", acceptor: "node" },
        nonces: { dialler: new Uint8Array(32).fill(0x22), acceptor: new Uint8Array(32).fill(0x33) },
        fingerprints: { dialler: "44".repeat(32), acceptor: "55".repeat(32) },
        processes: { dialler: "a1", acceptor: "n1" },
        host: "edge.example",
        isProxied: false,
        exporter: new Uint8Array(32).fill(0x66),
      }),
    ),
  };
}

test("every test vector of docs/protocol.md is what the code produces", async () => {
  const page = await Bun.file(new URL("../../docs/protocol.md", import.meta.url)).text();
  const rows = Object.fromEntries(
    [...page.matchAll(/^\| ([^|]+) \| `([0-9a-f]+)` \|$/gm)].map(([, name, hex]) => [name, hex]),
  );
  expect(rows).toEqual(await vectors());
});

test("the numbers in docs/protocol.md are those of the limits", async () => {
  const page = await Bun.file(new URL("../../docs/protocol.md", import.meta.url)).text();
  const rows = [...page.matchAll(/^\| [^|]+ \| `(\w+)` \| ([\d,]+) \|/gm)];
  expect(rows.length).toBeGreaterThan(15);
  for (const [, name, value] of rows) {
    expect([name, Number(value!.replaceAll(",", ""))]).toEqual([name, limits[name as keyof typeof limits]]);
  }
});
