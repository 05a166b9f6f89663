/**
 * One request and what comes back, as the pipeline sees it. Our own light types, not WHATWG Request and Response:
 * heads keep order, case and duplicates, replies may be upgrades or carry trailers, bodies are pulled.
 */

import type { Address } from "../core/address.ts";
import type { Duplex } from "../core/duplex.ts";
import type { SallyError } from "../core/errors.ts";
import type { Body } from "./body.ts";
import type { HeaderList } from "./header-list.ts";

export interface RequestHead {
  readonly method: string;
  /** The request target byte for byte as the visitor sent it (latin1); never normalised. */
  readonly target: string;
  /** 0 or 1 for HTTP/1.x; 1 for later versions. */
  readonly minorVersion: number;
  readonly headers: HeaderList;
}

export interface ReplyHead {
  readonly status: number;
  readonly reason: string;
  readonly headers: HeaderList;
}

/** What outlives one request: the visitor's connection. Connection-bound authentication pins streams to it. */
export interface VisitorConnection {
  readonly id: number;
  readonly remote: Address;
  /** Calls back once when the connection is gone, at once if it already is. */
  onClose(callback: () => void): void;
}

export interface Exchange {
  /** Shown to the visitor and in logs; unguessable, one per request. */
  readonly id: string;
  readonly request: RequestHead;
  /** Always a Body; `emptyBody` when the request has none. Pulling it first sends 100 Continue where it is awaited. */
  readonly body: Body;
  /** True when the request asks to switch protocols (Connection: upgrade, and an Upgrade field). */
  readonly wantsUpgrade: boolean;
  readonly scheme: "http" | "https";
  readonly connection: VisitorConnection;
  /** Host and optional port of the request in lower case, validated: `demo.localhost:8080`. */
  readonly authority: string;
  readonly startedMs: number;
  /** Relays an interim reply (1xx, except 101) to the visitor at once. */
  inform(head: ReplyHead): void;
  /** Calls back once if the visitor goes away before the reply is complete. */
  onAbort(callback: (error: SallyError) => void): void;
}

export type Reply =
  | {
      readonly kind: "message";
      readonly head: ReplyHead;
      /** For HEAD, 204 and 304 the body is empty, whatever the head's Content-Length says. */
      readonly body: Body;
    }
  | {
      /** 101: after the head both sides' bytes are relayed as they are. */
      readonly kind: "upgrade";
      readonly head: ReplyHead;
      readonly stream: Duplex;
    };

/** Answers one request. Throws SallyError for expected trouble; the listener turns it into an error page. */
export type Handler = (exchange: Exchange) => Promise<Reply>;
