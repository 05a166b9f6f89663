/**
 * The one table of expected troubles. Every trouble that a user, a visitor or a peer can cause has a code here;
 * branch on the code, never on message text. docs/errors.md is generated from this table.
 */

export interface ErrorRow {
  /** HTTP status that the edge answers, when the trouble reaches a visitor. */
  readonly status: number;
  /** Code carried by REFUSED, RESET and GOAWAY frames. Stable: it is part of the protocol. */
  readonly wire: number;
  /** Exit code of the command line. */
  readonly exit: 0 | 1 | 2 | 3 | 4;
  /** One sentence for the documentation and the visitor. */
  readonly text: string;
}

export const errorTable = {
  // The visitor's request.
  BAD_REQUEST: { status: 400, wire: 10, exit: 1, text: "The request is malformed or ambiguous." },
  REQUEST_TIMEOUT: { status: 408, wire: 11, exit: 1, text: "The request arrived too slowly." },
  BODY_TOO_LARGE: { status: 413, wire: 12, exit: 1, text: "The request body is larger than this tunnel allows." },
  TARGET_TOO_LONG: { status: 414, wire: 13, exit: 1, text: "The request target is too long." },
  HEADERS_TOO_LARGE: {
    status: 431,
    wire: 14,
    exit: 1,
    text: "The request header is too large or has too many fields.",
  },
  EXPECTATION_FAILED: { status: 417, wire: 15, exit: 1, text: "The Expect field asks for something unknown." },
  METHOD_REFUSED: { status: 501, wire: 16, exit: 1, text: "The edge does not relay this method." },
  VERSION_UNSUPPORTED: { status: 505, wire: 17, exit: 1, text: "Only HTTP/1.0 and HTTP/1.1 are spoken here." },
  MISDIRECTED: { status: 421, wire: 18, exit: 1, text: "This connection may not be used for that host." },
  TOO_MANY_CONNECTIONS: { status: 429, wire: 19, exit: 1, text: "Too many connections from this address." },
  RATE_LIMITED: { status: 429, wire: 21, exit: 1, text: "Too many requests: wait a moment and try again." },
  VISITOR_GONE: { status: 499, wire: 20, exit: 1, text: "The visitor went away before the reply was complete." },

  // The tunnel.
  TUNNEL_UNKNOWN: { status: 404, wire: 30, exit: 1, text: "No tunnel has this host name." },
  TUNNEL_OFFLINE: { status: 503, wire: 31, exit: 1, text: "No agent is connected for this tunnel." },
  ORIGIN_REFUSED: { status: 502, wire: 32, exit: 1, text: "The agent could not connect to the local service." },
  ORIGIN_BAD_REPLY: { status: 502, wire: 33, exit: 1, text: "The local service sent something that is not HTTP." },
  ORIGIN_CLOSED: {
    status: 502,
    wire: 34,
    exit: 1,
    text: "The local service closed the connection without a complete reply.",
  },
  ORIGIN_TIMEOUT: { status: 504, wire: 35, exit: 1, text: "The local service sent no reply in time." },
  ORIGIN_RESET: { status: 502, wire: 36, exit: 1, text: "The local service reset the connection." },
  LINK_LOST: { status: 502, wire: 37, exit: 1, text: "The link to the agent was lost." },
  OVERLOADED: { status: 503, wire: 38, exit: 1, text: "A limit on streams or memory is reached: try again." },
  DRAINING: { status: 503, wire: 39, exit: 1, text: "This node is shutting down." },
  INTERNAL: { status: 500, wire: 40, exit: 1, text: "A bug in Sallyport: please report it with the request id." },
  ORIGIN_TLS: {
    status: 502,
    wire: 41,
    exit: 1,
    text: "The TLS certificate of the local service could not be verified.",
  },

  // The wire.
  PROTOCOL_VIOLATION: { status: 502, wire: 50, exit: 1, text: "The peer broke the tunnel protocol." },
  FRAME_TOO_LARGE: { status: 502, wire: 51, exit: 1, text: "The peer sent a frame over the limit." },
  CREDIT_EXCEEDED: { status: 502, wire: 52, exit: 1, text: "The peer sent more than it was granted." },
  STREAM_LIMIT: { status: 503, wire: 53, exit: 1, text: "The peer opened too many streams." },
  LINK_IDLE: { status: 502, wire: 54, exit: 1, text: "The link was silent for too long." },
  VERSION_MISMATCH: {
    status: 502,
    wire: 55,
    exit: 1,
    text: "The two sides share no protocol version: update the older one.",
  },
  CANCELLED: { status: 499, wire: 56, exit: 1, text: "The work was cancelled." },
  CONNECT_FAILED: { status: 502, wire: 57, exit: 1, text: "The node could not be reached." },
  CONNECT_TIMEOUT: { status: 504, wire: 58, exit: 1, text: "The node did not answer in time." },

  // Trust and names.
  AUTH_FAILED: { status: 401, wire: 70, exit: 3, text: "The credentials were not accepted." },
  TOKEN_INVALID: { status: 401, wire: 71, exit: 3, text: "The token is unknown, expired or revoked." },
  CERTIFICATE_INVALID: { status: 401, wire: 72, exit: 3, text: "The certificate is not valid here." },
  CERTIFICATE_REVOKED: { status: 401, wire: 73, exit: 3, text: "The certificate or its token was revoked." },
  CA_MISMATCH: { status: 401, wire: 74, exit: 3, text: "The node is not the one that the token was made for." },
  PROXY_UNTRUSTED: {
    status: 403,
    wire: 75,
    exit: 3,
    text: "A proxy ends TLS in front of this node: start it with --trust-tls-proxy to allow that.",
  },
  NAME_TAKEN: { status: 409, wire: 76, exit: 4, text: "The name belongs to somebody else." },
  NAME_IN_USE: {
    status: 409,
    wire: 77,
    exit: 4,
    text: "Another installation serves this name: use --shared on both to share it.",
  },
  NAME_INVALID: { status: 400, wire: 78, exit: 2, text: "The name is not a valid host label." },
  NAME_NOT_ALLOWED: { status: 403, wire: 79, exit: 3, text: "The token does not allow this name." },
  REPLACED: { status: 409, wire: 80, exit: 4, text: "A newer process took this tunnel over." },
  FORBIDDEN: { status: 403, wire: 81, exit: 3, text: "This is not allowed." },
  ENROLMENT_LIMIT: {
    status: 403,
    wire: 83,
    exit: 3,
    text: "The limit of machines for this token is reached.",
  },
  NAME_LIMIT: { status: 403, wire: 82, exit: 3, text: "The limit of names for this identity is reached." },

  // The command line and the program.
  USAGE: { status: 400, wire: 90, exit: 2, text: "The command line or the configuration is wrong." },
  NOT_FOUND: { status: 404, wire: 91, exit: 1, text: "There is no such thing." },
  METHOD_NOT_ALLOWED: { status: 405, wire: 96, exit: 1, text: "This path does not take this method." },
  ADDRESS_IN_USE: { status: 500, wire: 92, exit: 1, text: "Another program listens on this address." },
  LISTEN_FAILED: { status: 500, wire: 95, exit: 1, text: "The address cannot be listened on." },
  DATA_IN_USE: { status: 500, wire: 94, exit: 1, text: "Another node uses this data folder." },
  STORE_FAILED: { status: 500, wire: 93, exit: 1, text: "The data folder could not be read or written." },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;

/** Expected trouble. `message` says what failed and what to try; it never holds tokens or bodies. */
export class SallyError extends Error {
  override readonly name = "SallyError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message?: string, options?: { readonly cause?: unknown }) {
    super(message ?? errorTable[code].text, options);
    this.code = code;
  }

  get row(): ErrorRow {
    return errorTable[this.code];
  }
}

const codeByWire = new Map<number, ErrorCode>(
  Object.entries(errorTable).map(([code, row]) => [row.wire, code as ErrorCode]), // keys of the table are its codes
);

/** The code for a number seen on the wire; unknown numbers (a newer peer) become `fallback`. */
export function errorCodeFromWire(wire: number, fallback: ErrorCode = "LINK_LOST"): ErrorCode {
  return codeByWire.get(wire) ?? fallback;
}

/** Wraps anything thrown in a SallyError; one that already is stays as it is. */
export function toSallyError(thrown: unknown, fallback: ErrorCode = "INTERNAL"): SallyError {
  if (thrown instanceof SallyError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new SallyError(fallback, `${errorTable[fallback].text} (${message})`, { cause: thrown });
}

/** Ends the smallest scope that holds a bug. Never caught to be swallowed. */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${what}`);
}
