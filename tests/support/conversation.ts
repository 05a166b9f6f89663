/**
 * Random HTTP/1.1 conversations with an oracle: a visitor sends requests of every shape, cut anywhere and several at
 * once; the origin checks each against what was planned and answers as planned; the visitor checks each answer. The plan
 * travels in a field, so neither side knows anything that did not go through the product.
 */

import { createHash } from "node:crypto";
import { chunk } from "./chunked.ts";
import type { RawSocket } from "./raw-socket.ts";
import type { Seeded } from "./seeded.ts";

interface Plan {
  readonly id: string;
  readonly method: string;
  readonly target: string;
  /** Of the request: none, length or chunked. */
  readonly sends: "none" | "length" | "chunked";
  readonly sendBytes: number;
  readonly replies: "length" | "chunked" | "close" | "empty" | "no content" | "not modified";
  readonly replyBytes: number;
  readonly interims: number;
  /** The origin says that it ends the connection behind the reply, and does. */
  readonly isLast: boolean;
  /** Pieces that the reply is written in. */
  readonly pieces: number;
  readonly trailers: readonly string[];
}

const methods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "x-Custom"] as const;
const sizes = [0, 1, 2, 17, 1_000, 16_384, 16_385, 65_536, 200_000] as const;

function textOf(id: string, bytes: number): string {
  return `${id}|`.repeat(Math.ceil(bytes / (id.length + 1))).slice(0, bytes);
}

const hash = (text: string): string => createHash("sha256").update(text, "latin1").digest("hex").slice(0, 16);

export function drawPlan(chance: Seeded, id: string): Plan {
  const method = chance.pick(methods);
  const sends = chance.pick(["none", "none", "length", "chunked"]);
  return {
    id,
    method,
    target: `/${id}/${chance.pick(["", "a%2Fb", "..", "/", "?x=%00&y", "[|]\xe9"])}`,
    sends,
    sendBytes: sends === "none" ? 0 : chance.pick(sizes),
    replies: chance.pick(["length", "length", "chunked", "chunked", "close", "empty", "no content", "not modified"]),
    replyBytes: chance.pick(sizes),
    interims: chance.pick([0, 0, 0, 1, 3]),
    isLast: chance.next() < 0.2,
    pieces: chance.pick([1, 1, 2, 5]),
    trailers: chance.pick([[], [], ["X-T: 1"], ["X-T: 1", "x-t: \xe9", "Y: "]]),
  };
}

/** The bytes of a request. */
export function encodeRequest(plan: Plan, host: string, chance: Seeded): string {
  const { method, target, sends, sendBytes, id, trailers } = plan;
  const fields = [
    `Host: ${host}`,
    `X-Plan: ${Buffer.from(JSON.stringify(plan)).toString("base64")}`,
    "X-A: 1",
    "x-a: 2",
  ];
  const body = textOf(id, sendBytes);
  if (sends === "length") fields.push(`Content-Length: ${sendBytes}`);
  if (sends === "chunked") fields.push("Transfer-Encoding: chunked");
  const head = `${method} ${target} HTTP/1.1\r\n${fields.join("\r\n")}\r\n\r\n`;
  return sends === "chunked" ? `${head}${encodeChunks(body, chance)}0\r\n${lines(trailers)}\r\n` : head + body;
}

function lines(fields: readonly string[]): string {
  return fields.map((field) => `${field}\r\n`).join("");
}

function encodeChunks(body: string, chance: Seeded): string {
  let text = "";
  for (let at = 0; at < body.length;) {
    const size = Math.min(body.length - at, chance.pick([1, 3, 1_000, 16_384, 100_000]) + (body.length >> 6));
    text += chunk(body.slice(at, at + size));
    at += size;
  }
  return text;
}

interface Message {
  readonly head: string;
  readonly body: string;
  readonly trailers: readonly string[];
}

async function readBody(socket: RawSocket, head: string): Promise<Omit<Message, "head">> {
  const length = /\r\nContent-Length: (\d+)\r\n/i.exec(head)?.[1];
  if (length !== undefined) return { body: await socket.read(Number(length)), trailers: [] };
  if (!/\r\nTransfer-Encoding: chunked\r\n/i.test(head)) return { body: "", trailers: [] };
  let body = "";
  for (;;) {
    const size = Number.parseInt(await socket.readUntil("\r\n"), 16);
    if (size === 0) break;
    body += (await socket.read(size + 2)).slice(0, -2);
  }
  const trailers: string[] = [];
  for (let line = await socket.readUntil("\r\n"); line !== "\r\n"; line = await socket.readUntil("\r\n")) {
    trailers.push(line.slice(0, -2));
  }
  return { body, trailers };
}

/** What the origin saw, as one value that the reply carries back. */
function fingerprint(plan: Plan, { head, body, trailers }: Message): string {
  const first = head.slice(0, head.indexOf("\r\n"));
  const own = head.split("\r\n").filter((line) => /^x-a:/i.test(line));
  return hash(JSON.stringify([plan.id, first, own, body, trailers]));
}

function expectedFingerprint(plan: Plan): string {
  const head = `${plan.method} ${plan.target} HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\n`;
  const trailers = plan.sends === "chunked" ? plan.trailers : [];
  return fingerprint(plan, { head, body: textOf(plan.id, plan.sendBytes), trailers });
}

/** Answers every whole request of a connection as its plan says; `onRequest` gets each plan. */
export async function answerAsPlanned(connection: RawSocket, onRequest: (plan: Plan) => void): Promise<void> {
  for (;;) {
    const head = await connection.readHead().catch(() => undefined);
    if (head === undefined) return;
    const plan = JSON.parse(Buffer.from(/\r\nX-Plan: (\S+)/.exec(head)?.[1] ?? "", "base64").toString()) as Plan; // made above
    const message = await readBody(connection, head).catch(() => undefined);
    if (message === undefined) return;
    const saw = fingerprint(plan, { head, ...message });
    onRequest(plan);
    for (let n = 0; n < plan.interims; n++)
      connection.write(`HTTP/1.1 103 Early Hints\r\nLink: ${plan.id}-${n}\r\n\r\n`);
    const text = encodeReply(plan, saw);
    const step = Math.ceil(text.length / plan.pieces);
    for (let at = 0; at < text.length; at += step) {
      if (at > 0) await Bun.sleep(0); // a piece by itself
      connection.write(text.slice(at, at + step));
    }
    if (plan.isLast || plan.replies === "close") return connection.end();
  }
}

function encodeReply({ id, method, replies, replyBytes, isLast, trailers }: Plan, saw: string): string {
  const status = { "no content": "204 No Content", "not modified": "304 Not Modified" }[replies as string] ?? "200 OK";
  const body = method === "HEAD" ? "" : textOf(id, replyBytes);
  const isAnnounced = isLast || (replies === "close" && method === "HEAD");
  const head = `HTTP/1.1 ${status}\r\nX-Id: ${id}\r\nX-Saw: ${saw}\r\n${isAnnounced ? "Connection: close\r\n" : ""}`;
  if (status !== "200 OK") return `${head}\r\n`;
  if (replies === "empty") return `${head}Content-Length: 0\r\n\r\n`;
  if (replies === "length") return `${head}Content-Length: ${replyBytes}\r\n\r\n${body}`;
  if (replies === "close") return `${head}\r\n${body}`;
  const coded = method === "HEAD" ? "" : `${body === "" ? "" : chunk(body)}0\r\n${lines(trailers)}\r\n`;
  return `${head}Transfer-Encoding: chunked\r\n\r\n${coded}`;
}

/** Reads the reply to a plan; throws where it is not the planned one. */
export async function readPlanned(visitor: RawSocket, plan: Plan): Promise<void> {
  for (let n = 0; n < plan.interims; n++)
    same(plan, await visitor.readHead(), `HTTP/1.1 103 Early Hints\r\nLink: ${plan.id}-${n}\r\n\r\n`);
  const head = await visitor.readHead();
  const status = { "no content": "204", "not modified": "304" }[plan.replies as string] ?? "200";
  same(plan, head.slice(0, 12), `HTTP/1.1 ${status}`);
  same(plan, /\r\nX-Id: (\S+)/.exec(head)?.[1], plan.id);
  same(plan, /\r\nX-Saw: (\S+)/.exec(head)?.[1], expectedFingerprint(plan));
  if (plan.method === "HEAD" || status !== "200") return;
  const { body, trailers } = await readBody(visitor, head);
  same(plan, hash(body), hash(plan.replies === "empty" ? "" : textOf(plan.id, plan.replyBytes)));
  if (plan.replies === "chunked") same(plan, trailers.join(), plan.trailers.join());
}

function same(plan: Plan, found: string | undefined, wanted: string): void {
  if (found !== wanted) throw new Error(`found ${found} instead of ${wanted} for ${JSON.stringify(plan)}`);
}
