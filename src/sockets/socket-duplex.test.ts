import { describe, expect, test } from "bun:test";
import type { DuplexHandler } from "../core/duplex.ts";
import { FakeClock } from "../core/fake-clock.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { endThenLinger } from "./linger.ts";
import { SocketDuplex, type RawSocket } from "./socket-duplex.ts";

/** A socket that takes as many bytes as it is told to. */
class FakeSocket implements RawSocket {
  room = Number.POSITIVE_INFINITY;
  sent: number[] = [];
  calls: string[] = [];
  writes = 0;
  readonly data: SocketDuplex;
  constructor(data?: SocketDuplex) {
    this.data = data ?? new SocketDuplex(this);
  }
  write(chunk: Uint8Array): number {
    this.writes++;
    if (this.room < 0) return -1;
    const taken = Math.min(this.room, chunk.length);
    this.room -= taken;
    this.sent.push(...chunk.subarray(0, taken));
    return taken;
  }
  flush(): void {}
  shutdown(): void {
    this.calls.push("shutdown");
  }
  close(): void {
    this.calls.push("close");
  }
  terminate(): void {
    this.calls.push("terminate");
  }
  pause(): void {
    this.calls.push("pause");
  }
  resume(): void {
    this.calls.push("resume");
  }
  drain(): void {
    SocketDuplex.events.drain(this);
  }
  receive(length: number): void {
    SocketDuplex.events.data(this, new Uint8Array(length));
  }
}

function listenTo(duplex: SocketDuplex, consumes = true) {
  const heard: string[] = [];
  const handler: DuplexHandler = {
    onData(chunk) {
      heard.push(`data ${chunk.length}`);
      if (consumes) duplex.consume(chunk.length);
    },
    onEnd: () => void heard.push("end"),
    onDrain: () => void heard.push("drain"),
    onClose: (error) => void heard.push(`close ${error?.code}`),
  };
  duplex.handler = handler;
  return heard;
}

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe("writing", () => {
  test("what the socket does not take is sent in order when it drains", () => {
    const socket = new FakeSocket();
    listenTo(socket.data);
    socket.room = 2;
    expect(socket.data.write(bytes(1, 2, 3))).toBe(true);
    socket.data.write(bytes(4));
    socket.data.write(bytes(5, 6));
    expect(socket.data.queuedBytes).toBe(4);
    socket.room = 1;
    socket.drain();
    socket.room = 99;
    const before = socket.writes;
    socket.drain();
    expect(socket.sent).toEqual([1, 2, 3, 4, 5, 6]);
    expect(socket.writes - before).toBe(1);
    expect(socket.data.queuedBytes).toBe(0);
  });

  test("above the high mark the writer is told to wait, and called once below the low mark", () => {
    const socket = new FakeSocket();
    const heard = listenTo(socket.data);
    socket.room = 0;
    expect(socket.data.write(new Uint8Array(limits.socketQueueHighBytes))).toBe(true);
    expect(socket.data.write(bytes(1))).toBe(false);
    socket.room = limits.socketQueueHighBytes - limits.socketQueueLowBytes;
    socket.drain();
    expect(heard).toEqual([]);
    socket.room = 1;
    socket.drain();
    expect(heard).toEqual(["drain"]);
    socket.room = Number.POSITIVE_INFINITY;
    socket.drain();
    expect(heard).toEqual(["drain"]);
  });

  test("end waits for the queue, and nothing is accepted after it", () => {
    const socket = new FakeSocket();
    listenTo(socket.data);
    socket.room = 0;
    socket.data.write(bytes(1));
    socket.data.end();
    socket.data.write(bytes(2));
    expect(socket.calls).toEqual([]);
    socket.room = 9;
    socket.drain();
    socket.data.end();
    expect(socket.calls).toEqual(["shutdown"]);
    expect(socket.sent).toEqual([1]);
  });

  test("bytes written before the socket is open are kept", () => {
    const duplex = new SocketDuplex(undefined);
    const socket = new FakeSocket(duplex);
    duplex.write(bytes(1, 2));
    duplex.end();
    SocketDuplex.events.open(socket);
    expect(socket.sent).toEqual([1, 2]);
    expect(socket.calls).toEqual(["shutdown"]);
  });
});

describe("reading", () => {
  test("unread bytes above the mark pause the socket; below half of it, it goes on", () => {
    const socket = new FakeSocket();
    listenTo(socket.data, false);
    socket.receive(limits.socketReadHighBytes);
    expect(socket.calls).toEqual([]);
    socket.receive(1);
    expect(socket.calls).toEqual(["pause"]);
    socket.data.consume(limits.socketReadHighBytes / 2 + 1);
    expect(socket.calls).toEqual(["pause"]);
    socket.data.consume(1);
    expect(socket.calls).toEqual(["pause", "resume"]);
  });

  test("what came before anybody listened is delivered in order", async () => {
    const socket = new FakeSocket();
    socket.receive(3);
    SocketDuplex.events.end(socket);
    SocketDuplex.events.close(socket, new Error("gone"));
    const heard = listenTo(socket.data);
    expect(heard).toEqual([]);
    await Promise.resolve();
    expect(heard).toEqual(["data 3", "end", "close LINK_LOST"]);
  });
});

describe("closing", () => {
  test("is clean only after both sides ended", () => {
    const clean = new FakeSocket();
    const heardClean = listenTo(clean.data);
    clean.data.end();
    SocketDuplex.events.close(clean);
    SocketDuplex.events.close(clean);
    expect(heardClean).toEqual(["end", "close undefined"]);

    const cut = new FakeSocket();
    const heardCut = listenTo(cut.data);
    SocketDuplex.events.end(cut);
    SocketDuplex.events.close(cut);
    expect(heardCut).toEqual(["end", "close LINK_LOST"]);
  });

  test("counts what a lost connection did not take, of plain sockets only", () => {
    for (const carrier of ["tcp", "unix", "tls"] as const) {
      const duplex = new SocketDuplex(undefined, "ORIGIN_RESET", carrier);
      const socket = new FakeSocket(duplex);
      SocketDuplex.events.open(socket);
      socket.room = 5;
      duplex.write(new Uint8Array(8));
      expect([duplex.unreceivedBytes, duplex.refusedBytes]).toEqual([3, 0]);
      socket.room = -1;
      socket.drain();
      duplex.write(new Uint8Array(4));
      const refused = carrier === "tls" ? 0 : 7;
      expect([carrier, duplex.unreceivedBytes, duplex.refusedBytes]).toEqual([carrier, refused, refused]);
    }
  });

  test("reports the code that the owner asked for", () => {
    const duplex = new SocketDuplex(undefined, "ORIGIN_RESET");
    const socket = new FakeSocket(duplex);
    const heard = listenTo(duplex);
    SocketDuplex.events.close(socket, new Error("read ECONNRESET"));
    expect(heard).toEqual(["close ORIGIN_RESET"]);
  });

  test("a bug in a handler ends the connection as INTERNAL, a broken TLS session as a lost one", () => {
    for (const [message, code] of [
      ["assertion failed: x", "INTERNAL"],
      ["OpenSSL BAD_DECRYPT via OPENSSL_internal", "LINK_LOST"],
    ] as const) {
      const socket = new FakeSocket();
      const heard = listenTo(socket.data);
      SocketDuplex.events.error(socket, new Error(message));
      expect(heard).toEqual([`close ${code}`]);
      expect(socket.calls).toEqual(["terminate"]);
    }
  });

  test("reset aborts once, drops the queue and silences every event", () => {
    const socket = new FakeSocket();
    const heard = listenTo(socket.data);
    socket.room = 0;
    socket.data.write(bytes(1));
    socket.data.reset(new SallyError("CANCELLED"));
    socket.data.reset(new SallyError("CANCELLED"));
    socket.receive(1);
    SocketDuplex.events.close(socket, new Error("x"));
    expect(socket.calls).toEqual(["terminate"]);
    expect(socket.data.queuedBytes).toBe(0);
    expect(socket.data.write(bytes(1))).toBe(true);
    expect(heard).toEqual([]);
  });

  test("a socket that closes while it is written to reports through its close event only", () => {
    const socket = new FakeSocket();
    const heard = listenTo(socket.data);
    socket.room = -1;
    expect(socket.data.write(bytes(1))).toBe(true);
    expect(heard).toEqual([]);
    SocketDuplex.events.close(socket);
    expect(heard).toEqual(["close LINK_LOST"]);
  });
});

describe("endThenLinger", () => {
  test("waits while the queue moves, then gives up a peer that does not end, without a reset", () => {
    const clock = new FakeClock();
    const socket = new FakeSocket();
    let done = 0;
    socket.room = 0;
    socket.data.write(bytes(1, 2, 3));
    endThenLinger(socket.data, { clock, lingerMs: 100, onDone: () => done++ });
    socket.room = 1;
    socket.drain();
    clock.advance(100);
    expect(socket.calls).toEqual([]);
    socket.room = 9;
    socket.drain();
    clock.advance(100);
    expect(socket.calls).toEqual(["shutdown"]);
    clock.advance(100);
    expect(socket.calls).toEqual(["shutdown", "close"]);
    expect([done, clock.pending]).toEqual([1, 0]);
  });

  test("resets a peer that takes nothing", () => {
    const clock = new FakeClock();
    const socket = new FakeSocket();
    socket.room = 0;
    socket.data.write(bytes(1, 2, 3));
    endThenLinger(socket.data, { clock, lingerMs: 100 });
    clock.advance(100);
    expect(socket.calls).toEqual(["terminate"]);
  });

  test("is over when the peer ends", () => {
    const clock = new FakeClock();
    const socket = new FakeSocket();
    let done = 0;
    endThenLinger(socket.data, { clock, lingerMs: 100, onDone: () => done++ });
    SocketDuplex.events.close(socket);
    expect([done, clock.pending]).toEqual([1, 0]);
  });
});
