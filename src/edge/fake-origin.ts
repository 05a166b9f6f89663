/**
 * A scriptable origin behind in-memory streams, for tests and benchmarks: requests are parsed by the same strict parser
 * as everywhere, the script answers with raw bytes, and FIN and RESET report what was delivered as an agent does.
 */

import type { DialledStream } from "../core/duplex.ts";
import { concatBytes, utf8Decode } from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { MemoryDuplex, type MemoryDuplexOptions } from "../core/memory-duplex.ts";
import type { HeaderList } from "../http/header-list.ts";
import { type BodyDecoder, ChunkedDecoder, LengthDecoder } from "../http/http1/body-decoder.ts";
import { type ParsedRequest, RequestParser } from "../http/http1/head-parser.ts";
import { encodeLatin1Into } from "../http/http1/latin1.ts";
import type { Dialer, DialRequest, DialResult } from "../ports/dialer.ts";

/** A request as the origin understood it. */
export interface SeenRequest {
  readonly head: ParsedRequest;
  readonly body: string;
  readonly trailers: HeaderList | undefined;
  /** The stream it came on: 1, 2, … in the order of dialling. */
  readonly stream: number;
}

/** The edge's end of a stream. */
class EdgeSide extends MemoryDuplex implements DialledStream {
  deliveredBytes: number | undefined;
  isOpened = true;
  isWaiting = false;
  laneLoadBytes = 0;
}

export interface OriginScript {
  /** Called for each complete request. Default: 200 with a small body. */
  onRequest?(request: SeenRequest, side: OriginSide): void;
  /** Called when a head is complete, before its body. */
  onHead?(head: ParsedRequest, side: OriginSide): void;
  /** Called once for each new stream, before anything is delivered. */
  onDial?(side: OriginSide, request: DialRequest): void;
  /** Called with raw bytes; true means that they were dealt with. */
  onBytes?(chunk: Uint8Array, side: OriginSide): boolean;
}

/** The origin's end of a stream, and its HTTP server. */
export class OriginSide extends MemoryDuplex {
  readonly number: number;
  readonly edge: EdgeSide;
  readonly dialled: DialRequest;
  readonly linkId: string;
  /** Bytes that arrived here, counted until FIN or RESET was sent. */
  receivedBytes = 0;
  /** The stream carried the error that its edge end was reset with. */
  closeError: SallyError | undefined;
  isGone = false;
  hasEdgeEnded = false;
  /** False: nothing is read (and nothing credited), as by an origin that is busy. */
  isReading = true;
  readonly #origin: FakeOrigin;
  readonly #parser = new RequestParser(limits);
  #head: ParsedRequest | undefined;
  #decoder: BodyDecoder | undefined;
  #pieces: Uint8Array[] = [];
  #isSealed = false;

  constructor(origin: FakeOrigin, dial: { number: number; request: DialRequest; linkId: string }) {
    super(origin.pipe);
    this.number = dial.number;
    this.dialled = dial.request;
    this.linkId = dial.linkId;
    this.#origin = origin;
    this.edge = new EdgeSide(origin.pipe);
    this.edge.join(this);
    this.join(this.edge);
    this.handler = {
      onData: (chunk) => this.#receive(chunk),
      onEnd: () => {
        this.hasEdgeEnded = true;
        super.end();
      },
      onDrain() {},
      onClose: (error) => {
        this.isGone = true;
        this.closeError = error;
        origin.admit();
      },
    };
  }

  /** Sends text as latin1 bytes. */
  say(text: string): boolean {
    const bytes = new Uint8Array(text.length);
    encodeLatin1Into(text, bytes);
    return this.write(bytes);
  }

  /** FIN, with the report; what arrives later is not delivered. */
  override end(): void {
    this.#seal();
    super.end();
  }

  /** RESET, with the report. */
  break(error = new SallyError("ORIGIN_RESET")): void {
    this.#seal();
    this.edge.fail(error);
    super.reset(error);
  }

  /** REFUSED: the origin was never reached. */
  refuse(error: SallyError): void {
    this.edge.isOpened = false;
    this.#isSealed = true;
    this.edge.deliveredBytes = 0;
    this.edge.fail(error);
  }

  /** The link is gone: no report. */
  lose(): void {
    this.#isSealed = true;
    this.edge.fail(new SallyError("LINK_LOST"));
  }

  #seal(): void {
    if (this.#isSealed) return;
    this.#isSealed = true;
    this.edge.deliveredBytes = this.receivedBytes;
  }

  #receive(chunk: Uint8Array): void {
    if (!this.isReading) return;
    this.consume(chunk.length);
    if (this.#isSealed) return;
    const { closeAfterBytes } = this.#origin;
    if (closeAfterBytes !== undefined && this.receivedBytes + chunk.length >= closeAfterBytes(this)) {
      const taken = Math.max(0, closeAfterBytes(this) - this.receivedBytes);
      this.receivedBytes += taken;
      if (taken > 0) this.#parse(chunk.subarray(0, taken));
      this.#origin.closeBy(this);
      return;
    }
    this.receivedBytes += chunk.length;
    if (this.#origin.script.onBytes?.(chunk, this) !== true) this.#parse(chunk);
  }

  #parse(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#head === undefined || this.#decoder === undefined) {
        const head = this.#parser.push(chunk, at);
        if (head === undefined) return;
        at = this.#parser.end;
        this.#head = head;
        this.#pieces = [];
        const { bodyLength } = head;
        this.#decoder =
          bodyLength === undefined ? new ChunkedDecoder(limits, "BAD_REQUEST") : new LengthDecoder(bodyLength);
        this.#origin.script.onHead?.(head, this);
      }
      const decoder = this.#decoder;
      at = decoder.push(chunk, at, { onBody: (piece) => void this.#pieces.push(piece) });
      if (!decoder.isDone) return;
      const seen: SeenRequest = {
        head: this.#head,
        body: utf8Decode(concatBytes(this.#pieces)),
        trailers: decoder.trailers,
        stream: this.number,
      };
      this.#head = this.#decoder = undefined;
      this.#origin.serve(seen, this);
    }
  }
}

/** Answers what it was told to, on every stream that is dialled. */
export class FakeOrigin implements Dialer {
  script: OriginScript;
  readonly pipe: MemoryDuplexOptions;
  readonly requests: SeenRequest[] = [];
  readonly streams: OriginSide[] = [];
  readonly dials: DialRequest[] = [];
  /** Links in the order in which they are preferred. */
  links = ["link-1"];
  /** Under which streams are dialled. */
  claim = { isCurrent: true };
  /** What `choose` answers. */
  chosen: string | undefined;
  /** The origin goes away once so many bytes arrived on a stream. */
  closeAfterBytes: ((side: OriginSide) => number) | undefined;
  closeBy: (side: OriginSide) => void = (side) => side.end();
  dialError: SallyError | undefined;
  /** Streams that each link may have: one more is refused, or waits if there will be room. */
  places = Infinity;
  /** Streams that there is memory for: one more waits. */
  windows = Infinity;
  /** Whose links these are. */
  owner = "ann";

  constructor(script: OriginScript = {}, pipe: MemoryDuplexOptions = {}) {
    this.script = script;
    this.pipe = { resetCode: "ORIGIN_RESET", ...pipe };
  }

  get last(): OriginSide {
    return this.streams[this.streams.length - 1]!; // tests ask after a dial
  }

  dial(request: DialRequest): DialResult {
    this.dials.push(request);
    if (this.dialError !== undefined) throw this.dialError;
    const linkId = this.links.find((link) => link !== request.avoidLink) ?? this.links[0] ?? "link-1";
    const isFull = this.#placed(linkId) >= this.places;
    if (isFull && request.makeRoom?.(linkId) !== true) throw new SallyError("STREAM_LIMIT");
    const side = new OriginSide(this, { number: this.streams.length + 1, request, linkId });
    side.edge.isWaiting = side.edge.isHeld = isFull || this.#placed() >= this.windows;
    this.streams.push(side);
    this.script.onDial?.(side, request);
    return { stream: side.edge, linkId, claim: this.claim, owner: this.owner };
  }

  /** Opens those that waited, as far as there is room. */
  admit(): void {
    for (const { edge, linkId, isGone } of this.streams) {
      if (isGone || !edge.isWaiting || this.#placed(linkId) >= this.places || this.#placed() >= this.windows) continue;
      edge.isWaiting = edge.isHeld = false;
    }
  }

  #placed(linkId?: string): number {
    const isPlaced = (side: OriginSide): boolean => !side.isGone && !side.edge.isWaiting;
    return this.streams.filter((side) => isPlaced(side) && (linkId === undefined || side.linkId === linkId)).length;
  }

  /** The name changes hands: streams from before stay open. */
  reclaim(): void {
    this.claim.isCurrent = false;
    this.claim = { isCurrent: true };
  }

  choose(): string | undefined {
    return this.chosen;
  }

  serve(request: SeenRequest, side: OriginSide): void {
    this.requests.push(request);
    if (this.script.onRequest !== undefined) this.script.onRequest(request, side);
    else side.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  }
}
