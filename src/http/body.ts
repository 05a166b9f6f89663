/**
 * A message body as something that is pulled: nothing is read from the sender before somebody asks, so backpressure
 * holds from end to end. `read` answers at once when bytes are at hand, which keeps small messages off the microtask
 * queue.
 */

import type { SallyError } from "../core/errors.ts";
import type { HeaderList } from "./header-list.ts";

export interface Body {
  /** Exact byte count if it is known from the head; undefined for chunked or until-close bodies. */
  readonly length: number | undefined;
  /** Next piece; null at the clean end. One read at a time. Rejects with SallyError when the sender broke off. */
  read(): Uint8Array | null | Promise<Uint8Array | null>;
  /** Trailer fields; set once `read` returned null. */
  readonly trailers: HeaderList | undefined;
  /** The reader lost interest: the sender is told, what is queued is dropped. Idempotent; harmless after the end. */
  cancel(error: SallyError): void;
}

class EmptyBody implements Body {
  readonly length = 0;
  readonly trailers = undefined;
  read(): null {
    return null;
  }
  cancel(): void {}
}

export const emptyBody: Body = new EmptyBody();

class BytesBody implements Body {
  readonly length: number;
  readonly trailers = undefined;
  #bytes: Uint8Array | null;

  constructor(bytes: Uint8Array) {
    this.length = bytes.length;
    this.#bytes = bytes.length > 0 ? bytes : null;
  }

  read(): Uint8Array | null {
    const bytes = this.#bytes;
    this.#bytes = null;
    return bytes;
  }

  cancel(): void {
    this.#bytes = null;
  }
}

export function bytesBody(bytes: Uint8Array): Body {
  return new BytesBody(bytes);
}
