/** The parts of `node:quic` (Bun 1.4.5) that this room uses; bun-types has none of them yet. */
declare module "node:quic" {
  import type { KeyObject, X509Certificate } from "node:crypto";

  interface SocketAddressLike {
    readonly address: string;
    readonly port: number;
    readonly family: "ipv4" | "ipv6";
  }

  interface SniEntry {
    readonly keys: readonly KeyObject[];
    readonly certs: readonly Uint8Array[];
  }

  interface TransportParams {
    readonly initialMaxStreamDataBidiLocal?: number;
    readonly initialMaxStreamDataBidiRemote?: number;
    readonly initialMaxStreamDataUni?: number;
    readonly initialMaxData?: number;
    readonly initialMaxStreamsBidi?: number;
    readonly initialMaxStreamsUni?: number;
    /** Seconds. */
    readonly maxIdleTimeout?: number;
    readonly maxDatagramFrameSize?: number;
  }

  interface EndpointOptions {
    readonly address?: string | { readonly address: string; readonly port: number; readonly family: "ipv4" | "ipv6" };
    readonly ipv6Only?: boolean;
    readonly maxConnectionsPerHost?: number;
    readonly maxConnectionsTotal?: number;
    readonly sessionCreationRate?: number;
    readonly sessionCreationBurst?: number;
    readonly udpReceiveBufferSize?: number;
    readonly udpSendBufferSize?: number;
    readonly rxDiagnosticLoss?: number;
    readonly txDiagnosticLoss?: number;
  }

  interface HandshakeInfo {
    readonly remote: SocketAddressLike | undefined;
    readonly servername: string;
    readonly protocol: string;
    readonly validationErrorReason: string | undefined;
    readonly validationErrorCode: string | undefined;
    readonly earlyDataAttempted: boolean;
    readonly earlyDataAccepted: boolean;
  }

  interface SessionOptions {
    readonly endpoint?: QuicEndpoint | EndpointOptions;
    /** Default true: any endpoint of the process that fits. */
    readonly reuseEndpoint?: boolean;
    readonly alpn?: string | readonly string[];
    readonly ca?: readonly Uint8Array[];
    readonly keys?: readonly KeyObject[];
    readonly certs?: readonly Uint8Array[];
    readonly sni?: Readonly<Record<string, SniEntry>>;
    readonly servername?: string;
    readonly verifyClient?: boolean;
    readonly verifyPeer?: "strict" | "auto" | "manual";
    readonly enableEarlyData?: boolean;
    readonly sessionTicket?: Uint8Array;
    readonly token?: Uint8Array;
    readonly cc?: "reno" | "cubic" | "bbr";
    readonly maxPayloadSize?: number;
    readonly maxStreamWindow?: number;
    readonly maxWindow?: number;
    readonly unacknowledgedPacketThreshold?: number;
    /** Milliseconds. */
    readonly handshakeTimeout?: number;
    readonly transportParams?: TransportParams;
    readonly onerror?: (error: unknown) => void;
    readonly onstream?: (stream: QuicStream) => void;
    readonly onsessionticket?: (ticket: Uint8Array) => void;
    readonly onearlyrejected?: () => void;
    readonly onpathvalidation?: (
      result: "success" | "failure" | "aborted",
      newLocal: SocketAddressLike,
      newRemote: SocketAddressLike,
    ) => void;
  }

  interface CloseOptions {
    readonly code?: bigint | number;
    readonly type?: "transport" | "application";
    readonly reason?: string;
  }

  interface StreamWriter {
    /** Bytes until the buffer is full; 0: full; null: closed. */
    readonly desiredSize: number | null;
    /** False when the buffer was full and nothing was taken; a chunk larger than the room is taken whole. */
    writeSync(chunk: Uint8Array): boolean;
    writevSync(chunks: readonly Uint8Array[]): boolean;
    /** -1 while a drain is awaited. */
    endSync(): number;
    /** Under `Symbol.for("Stream.drainableProtocol")`: null when there is room or the writer is closed. */
    readonly [drainable: symbol]: () => Promise<unknown> | null;
  }

  class QuicStream implements AsyncIterable<Uint8Array[]> {
    /** Null until the library has opened it. */
    readonly id: bigint | null;
    private constructor();
    readonly writer: StreamWriter;
    readonly early: boolean;
    readonly destroyed: boolean;
    readonly closed: Promise<void>;
    highWaterMark: number;
    onerror: ((error: unknown) => void) | undefined;
    onreset: ((error: unknown) => void) | undefined;
    destroy(error?: unknown, options?: { readonly code?: bigint; readonly reason?: string }): void;
    resetStream(code?: bigint): void;
    stopSending(code?: bigint): void;
    [Symbol.asyncIterator](): AsyncIterator<Uint8Array[]>;
  }

  class QuicSession {
    private constructor();
    readonly opened: Promise<HandshakeInfo>;
    readonly closed: Promise<void>;
    readonly closing: boolean;
    readonly destroyed: boolean;
    readonly endpoint: QuicEndpoint | null;
    readonly path: { readonly local: SocketAddressLike; readonly remote: SocketAddressLike } | undefined;
    readonly peerCertificate: X509Certificate | undefined;
    readonly stats: Readonly<Record<string, bigint>>;
    onerror: ((error: unknown) => void) | undefined;
    onstream: ((stream: QuicStream) => void) | undefined;
    onpathvalidation:
      | ((result: "success" | "failure" | "aborted", newLocal: SocketAddressLike, newRemote: SocketAddressLike) => void)
      | undefined;
    createBidirectionalStream(options?: { readonly highWaterMark?: number }): Promise<QuicStream>;
    /** Waits for the streams to end. */
    close(options?: CloseOptions): Promise<void>;
    /** Drops the streams at once. */
    destroy(error?: unknown, options?: CloseOptions): void;
  }

  class QuicEndpoint {
    constructor(options?: EndpointOptions);
    readonly address: SocketAddressLike | undefined;
    readonly destroyed: boolean;
    readonly closing: boolean;
    readonly closed: Promise<void>;
    readonly stats: Readonly<Record<string, bigint>>;
    close(): Promise<void>;
    destroy(error?: unknown): Promise<void>;
  }

  class QuicError extends Error {
    constructor(
      message: string,
      options: { readonly errorCode: bigint | number; readonly type?: "transport" | "application" },
    );
    readonly code: string;
    readonly errorCode: bigint;
    readonly type: "transport" | "application";
  }

  function listen(onsession: (session: QuicSession) => void, options: SessionOptions): Promise<QuicEndpoint>;
  function connect(
    address: { readonly address: string; readonly port: number; readonly family: "ipv4" | "ipv6" } | string,
    options: SessionOptions,
  ): Promise<QuicSession>;
}
