import { describe, expect, test } from "bun:test";
import { utf8Decode, utf8Encode } from "../../core/bytes.ts";
import type { SallyError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { Body } from "../../http/body.ts";
import { FakeExchange, FedBody } from "../fake-exchange.ts";
import { demoTunnel, settle } from "../test-rig.ts";
import { RequestHeadWriter } from "./request-head.ts";
import { RequestSender, type RequestSink } from "./request-sender.ts";

class Sink implements RequestSink {
  readonly writes: Uint8Array[] = [];
  isFull = false;

  write(bytes: Uint8Array): boolean {
    this.writes.push(bytes);
    return !this.isFull;
  }

  /** What came behind the head. */
  get bodyText(): string {
    const text = this.writes.map((bytes) => utf8Decode(bytes)).join("");
    return text.slice(text.indexOf("\r\n\r\n") + 4);
  }
}

class Owner {
  readonly events: string[] = [];
  bodyMoved(): void {}
  bodySent(): void {
    this.events.push("sent");
  }
  bodyFailed(error: SallyError): void {
    this.events.push(error.code);
  }
  bodyCut(): void {
    this.events.push("cut");
  }
}

function senderOf(body: Body): { sender: RequestSender; owner: Owner } {
  const owner = new Owner();
  const head = new RequestHeadWriter().write(new FakeExchange({ method: "POST", body }), demoTunnel);
  return { sender: new RequestSender(head, body, limits, owner), owner };
}

describe("a request's body on its way", () => {
  test("waits while the stream is full", async () => {
    const body = new FedBody([utf8Encode("a"), utf8Encode("b"), utf8Encode("c")], 3);
    const { sender, owner } = senderOf(body);
    const sink = new Sink();
    sink.isFull = true;
    sender.attach(sink);
    expect(body.readCount).toBe(1);
    sender.resume();
    expect(body.readCount).toBe(2);
    sink.isFull = false;
    sender.resume();
    expect(sink.bodyText).toBe("abc");
    expect(owner.events).toEqual(["sent"]);
  });

  test("large chunks are not copied to be framed", () => {
    const piece = new Uint8Array(20_000);
    const { sender } = senderOf(new FedBody([piece]));
    const sink = new Sink();
    sender.attach(sink);
    expect(sink.writes.map((bytes) => bytes.length)).toEqual([sink.writes[0]!.length, 6, 20_000, 2]);
    expect(sink.writes[2]).toBe(piece);
  });

  test("is kept for a replay until a reply begins", () => {
    const { sender } = senderOf(new FedBody([utf8Encode("abc")], 6));
    sender.attach(new Sink());
    expect(sender.canReplay).toBe(true);
    sender.detach();
    const second = new Sink();
    sender.attach(second);
    expect(second.bodyText).toBe("abc");
    sender.forget();
    expect(sender.canReplay).toBe(false);
  });

  test("in too many pieces is not kept", async () => {
    const body = new FedBody();
    const { sender } = senderOf(body);
    sender.attach(new Sink());
    for (let i = 1; i < limits.replayBodyPieces; i++) body.feed(utf8Encode("x"));
    await settle();
    expect(sender.canReplay).toBe(true);
    body.feed(utf8Encode("x"));
    await settle();
    expect(sender.canReplay).toBe(false);
  });

  test("keeps no large buffer alive for a small piece", () => {
    const buffer = new Uint8Array(64 * 1024);
    const { sender } = senderOf(new FedBody([utf8Encode("a"), buffer.subarray(0, 10)], 100));
    const sink = new Sink();
    sender.attach(sink);
    expect(sink.writes.every((bytes) => bytes.buffer.byteLength < 2_000)).toBe(true);
  });

  test("that ends short fails", async () => {
    const body = new FedBody([utf8Encode("abc")], 6);
    const { sender, owner } = senderOf(body);
    sender.attach(new Sink());
    body.feed(null);
    await settle();
    expect(owner.events).toEqual(["BAD_REQUEST"]);
  });

  test("is not read between two streams", async () => {
    const body = new FedBody([utf8Encode("a")], 6);
    const { sender } = senderOf(body);
    sender.attach(new Sink());
    sender.detach();
    const { readCount } = body;
    body.feed(utf8Encode("b"));
    await settle();
    body.feed(utf8Encode("c"));
    await settle();
    expect(body.readCount).toBe(readCount);
    const second = new Sink();
    sender.attach(second);
    expect(second.bodyText).toBe("abc");
  });

  test("is cancelled once when stopped", () => {
    const body = new FedBody([utf8Encode("a")], 6);
    const { sender, owner } = senderOf(body);
    sender.attach(new Sink());
    sender.cut();
    sender.cut();
    expect(body.cancelled?.code).toBe("CANCELLED");
    expect(owner.events).toEqual(["cut"]);
  });
});
