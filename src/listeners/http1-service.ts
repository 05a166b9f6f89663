/**
 * What all HTTP/1.1 connections of one listener have in common: options, limits on their number, one coarse timer
 * instead of one for each request, and draining.
 */

import { addressGroup } from "../core/address-group.ts";
import type { Timer } from "../core/clock.ts";
import type { Duplex } from "../core/duplex.ts";
import { SallyError } from "../core/errors.ts";
import { Http1Connection } from "./http1-connection.ts";
import type { ConnectionHost, ConnectionMeta, Http1Options } from "./http1-options.ts";

const sweepEveryMs = 1_000;

export class Http1Service implements ConnectionHost {
  readonly options: Http1Options;
  readonly writeStallMs: number;
  readonly sweepMs = sweepEveryMs;
  coarseMs: number;
  isDraining = false;
  readonly #connections = new Set<Http1Connection>();
  /** By address group. */
  readonly #countByVisitor = new Map<string, number>();
  #timer: Timer | undefined;
  #nextId = 1;
  #onEmpty: (() => void) | undefined;

  constructor(options: Http1Options) {
    this.options = options;
    this.writeStallMs = options.writeStallMs ?? 2 * options.limits.bodyStallMs;
    this.coarseMs = options.clock.nowMs();
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Serves one connection until it is closed. */
  serve(duplex: Duplex, meta: ConnectionMeta): void {
    const { limits, clock } = this.options;
    if (this.#connections.size === 0) this.coarseMs = clock.nowMs();
    const visitor = addressGroup(meta.remote.host);
    const ofVisitor = (this.#countByVisitor.get(visitor) ?? 0) + 1;
    // Refusals are answered, but not without bound.
    if (this.#connections.size >= 2 * limits.connections || ofVisitor > 2 * limits.connectionsPerVisitor) {
      duplex.reset(new SallyError("OVERLOADED"));
      return;
    }
    this.#countByVisitor.set(visitor, ofVisitor);
    const connection = new Http1Connection(duplex, meta, this.#nextId++, this);
    this.#connections.add(connection);
    this.#timer ??= clock.after(sweepEveryMs, () => this.#sweep());
    if (ofVisitor > limits.connectionsPerVisitor) {
      connection.refuse(new SallyError("TOO_MANY_CONNECTIONS"));
    } else if (this.#connections.size > limits.connections) connection.refuse(new SallyError("OVERLOADED"));
    else if (this.isDraining) connection.refuse(new SallyError("DRAINING"));
  }

  /** Called by a connection, once, when it is gone. */
  remove(connection: Http1Connection): void {
    if (!this.#connections.delete(connection)) return;
    const visitor = addressGroup(connection.meta.remote.host);
    const count = (this.#countByVisitor.get(visitor) ?? 1) - 1;
    if (count > 0) this.#countByVisitor.set(visitor, count);
    else this.#countByVisitor.delete(visitor);
    if (this.#connections.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#onEmpty?.();
  }

  /**
   * Ends every connection after its current reply, which says `Connection: close`; what is left after `graceMs` is
   * reset. Connections idle for a second end at once, others when they have been: a request may be on its way.
   */
  async drain(graceMs: number): Promise<void> {
    this.isDraining = true;
    if (this.#connections.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onEmpty = resolve;
    this.#sweepAll(this.options.clock.nowMs(), 0);
    const grace = this.options.clock.after(graceMs, () => this.abortAll(new SallyError("DRAINING")));
    await promise;
    grace.cancel();
  }

  abortAll(error: SallyError): void {
    this.isDraining = true;
    for (const connection of this.#connections) connection.abort(error);
  }

  #sweep(): void {
    const nowMs = this.options.clock.nowMs();
    const elapsedMs = nowMs - this.coarseMs;
    this.coarseMs = nowMs;
    this.#timer = this.options.clock.after(sweepEveryMs, () => this.#sweep());
    this.#sweepAll(nowMs, elapsedMs);
  }

  #sweepAll(nowMs: number, elapsedMs: number): void {
    for (const connection of this.#connections) connection.sweep(nowMs, elapsedMs);
  }
}
