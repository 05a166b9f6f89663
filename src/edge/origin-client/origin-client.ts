/**
 * An HTTP/1.1 client over dialled streams: what it hides is that a stream is not a socket, that streams are reused,
 * and that a request may be sent twice to be executed once.
 */

import type { Clock } from "../../core/clock.ts";
import type { Limits } from "../../core/limits.ts";
import type { Reply } from "../../http/exchange.ts";
import type { Dialer, StreamProtocol } from "../../ports/dialer.ts";
import type { TunnelEntry } from "../../ports/tunnel-directory.ts";
import { Deadlines } from "./deadlines.ts";
import { OriginRequest, type OriginRequestOptions } from "./origin-request.ts";
import { OriginStream } from "./origin-stream.ts";
import { RequestHeadWriter } from "./request-head.ts";
import { RetryBudgets } from "./retry-budget.ts";
import { StreamPool } from "./stream-pool.ts";

export interface OriginClientOptions {
  readonly dialer: Dialer;
  readonly clock: Clock;
  readonly limits: Limits;
  /** Whether what this address says in forwarding fields is believed. Default: nobody is. */
  readonly isTrustedProxy?: ((host: string) => boolean) | undefined;
}

export interface NewStream {
  readonly tunnel: TunnelEntry;
  readonly protocol: StreamProtocol;
  readonly avoidLink: string | undefined;
}

/** What each request uses of the client. */
export interface OriginClientParts {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly pool: StreamPool;
  readonly budgets: RetryBudgets;
  readonly heads: RequestHeadWriter;
  /** @throws SallyError as `Dialer.dial` does */
  dial(request: NewStream): OriginStream;
}

export class OriginClient {
  readonly #parts: OriginClientParts;

  constructor({ dialer, clock, limits, isTrustedProxy }: OriginClientOptions) {
    const pool = new StreamPool({
      clock,
      limits,
      deadlines: new Deadlines(clock),
      choose: (tunnel) => dialer.choose?.(tunnel),
    });
    const nowMs = (): number => clock.nowMs();
    const makeRoom = (linkId: string): boolean => pool.makeRoom(linkId);
    this.#parts = {
      clock,
      limits,
      pool,
      budgets: new RetryBudgets(limits),
      heads: new RequestHeadWriter({ isTrustedProxy }),
      dial({ tunnel, protocol, avoidLink }) {
        const request = { tunnel: tunnel.name, protocol, makeRoom };
        const { stream, linkId, claim, owner } = dialer.dial(
          avoidLink === undefined ? request : { ...request, avoidLink },
        );
        const dialled = new OriginStream({
          stream,
          linkId,
          owner,
          claim,
          tunnel: tunnel.name,
          isPooled: protocol === "http",
          keeper: pool,
          limits,
          nowMs,
        });
        pool.add(dialled);
        if (stream.isWaiting === true) pool.wait(dialled);
        return dialled;
      },
    };
  }

  /**
   * Sends one request; the reply resolves with its head, its body follows as it is read.
   * @throws SallyError whatever the dialer throws, ORIGIN_REFUSED, ORIGIN_CLOSED, ORIGIN_RESET, ORIGIN_BAD_REPLY,
   *   ORIGIN_TIMEOUT, LINK_LOST, VISITOR_GONE, and what the request's body fails with
   */
  send(options: OriginRequestOptions): Promise<Reply> {
    const request = new OriginRequest(this.#parts, options);
    request.start();
    return request.reply;
  }

  /** Streams that idle for a tunnel and may serve anybody. */
  idleCount(tunnel: string): number {
    return this.#parts.pool.idleCount(tunnel);
  }

  /** Nothing new goes over this link: it drains, or lost the right to serve. */
  retireLink(linkId: string): void {
    this.#parts.pool.retireLink(linkId);
  }

  /** The link answers nothing, and its agent has another: safe requests that wait for a reply are sent again there. */
  forsakeLink(linkId: string): void {
    this.#parts.pool.forsakeLink(linkId);
  }

  /** A link lost its claim on the tunnel: idle streams of it close now, busy ones when their reply is complete. */
  retireTunnel(name: string): void {
    this.#parts.pool.retireTunnel(name);
    this.#parts.budgets.forget(name);
  }

  /** Idle streams close now, busy ones when their reply is complete. */
  close(): void {
    this.#parts.pool.close();
  }
}
