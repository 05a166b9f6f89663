/**
 * Every bound of the program in one place: queues, buffers, waits, retries. Each has a test that reaches it.
 * Those that an operator may change are defaults of the configuration schema; the others are fixed by the protocol.
 */

export const limits = {
  // Wire (docs/protocol.md).
  frameHeaderBytes: 8,
  framePayloadBytes: 64 * 1024,
  streamWindowInitialBytes: 64 * 1024,
  streamWindowMaxBytes: 4 * 1024 * 1024,
  laneSendQueueBytes: 256 * 1024,
  laneQuantumBytes: 16 * 1024,
  lanesPerLink: 8,
  lanesPerLinkMax: 32,
  streamsPerLink: 10_000,
  /** Stream ids of a lane grow and are never used twice; a link whose lanes have used theirs up is replaced. */
  streamIdMax: 0xffff_ffff,
  controlMessageBytes: 64 * 1024,
  /** Control messages sent and not yet acknowledged. */
  controlUnackedMax: 1_024,
  /** Frames other than DATA that wait because the peer does not read, on top of the lane's send queue. */
  laneControlQueueBytes: 1024 * 1024,
  handshakeMessageBytes: 16 * 1024,
  /** Text that REFUSED, RESET and GOAWAY carry. */
  reasonBytes: 512,
  /** Streams that a peer may open and reset, or open over a limit: so many at once, and so many a second. */
  streamChurnBurst: 10_000,
  streamChurnPerSecond: 1_000,
  /** 64 KiB for each of 10,000 idle streams, and a quarter kept for new ones. */
  processWindowBudgetBytes: 1024 * 1024 * 1024,
  openWaitersMax: 1_000,
  openWaitMs: 5_000,
  pingAfterMs: 2_000,
  linkDeadAfterMs: 6_000,
  handshakeMs: 10_000,

  // Transports.
  websocketFallbackAfterMs: 250,
  /** QUIC's time after WebSocket was refused by the same node. */
  quicAloneMs: 3_000,
  quicReturnEveryMs: 20_000,
  connectMs: 10_000,
  reconnectBackoffMinMs: 200,
  reconnectBackoffMaxMs: 15_000,
  pendingHandshakes: 1_000,
  /** QUIC sessions that act on early data before they have shown that it is no replay; the others wait for that. */
  earlySessions: 100,
  websocketSessions: 10_000,

  // Sockets.
  socketQueueHighBytes: 256 * 1024,
  socketQueueLowBytes: 64 * 1024,
  socketReadHighBytes: 256 * 1024,
  socketLingerMs: 5_000,

  // HTTP/1.1 heads and bodies.
  requestLineBytes: 16 * 1024,
  headBytes: 64 * 1024,
  headFields: 200,
  headMs: 15_000,
  trailerBytes: 16 * 1024,
  chunkExtensionBytes: 4 * 1024,
  /** Of a request. No limit in practice: an operator sets a lower one. */
  bodyBytes: 1024 ** 4,
  bodyMinRateBytesPerSecond: 100,
  bodyStallMs: 30_000,
  replyHeadMs: 300_000,
  replyHeadBytes: 256 * 1024,
  interimReplies: 32,
  keepAliveIdleMs: 75_000,
  /** A visitor that ended its side and waits for a silent reply is probed after this, then in growing intervals. */
  halfCloseProbeMs: 500,
  halfCloseProbeMaxMs: 30_000,
  /** Probes that look like zeros before a chunk's size: so many, then none until the next chunk. */
  halfCloseProbeZeros: 8,
  drainedEarlyReplyBytes: 64 * 1024,
  replayBodyBytes: 64 * 1024,
  connectionsPerVisitor: 20_000,
  connections: 50_000,

  // The edge's pool of streams to origins.
  pooledIdleMs: 4_000,
  pooledIdlePerTunnel: 1_024,
  retryShare: 0.1,
  /** Tunnels with retries to earn back, each remembered by itself. */
  retryBudgetsMax: 10_000,

  // Trust and names.
  agentCertificateMs: 24 * 60 * 60 * 1_000,
  /** Of a key that a node makes at each start and keeps in memory beside the CA's: a shorter life would protect nothing. */
  nodeCertificateMs: 5 * 365 * 24 * 60 * 60 * 1_000,
  caCertificateMs: 20 * 365 * 24 * 60 * 60 * 1_000,
  certificateBackdateMs: 5 * 60 * 1_000,
  nodeCertificateBackdateMs: 24 * 60 * 60 * 1_000,
  certificateBytes: 4 * 1024,
  certificateCacheMax: 2_000,
  clockSkewMs: 60_000,
  renewAfterExpiryMs: 30 * 24 * 60 * 60 * 1_000,
  nameLeaseMs: 30 * 24 * 60 * 60 * 1_000,
  /** A lease with more than this share left is not written again: touching thousands of names costs no writes. */
  nameLeaseFreshShare: 0.95,
  nameQuarantineMs: 24 * 60 * 60 * 1_000,
  namesPerIdentity: 100,
  nameBytes: 63,
  tunnelsPerLink: 200,
  revocationPollMs: 1_000,
  enrolmentsPerMinutePerAddress: 30,
  rateLimitedAddressesMax: 10_000,
  proofAgeMs: 5 * 60 * 1_000,
  proofNoncesMax: 20_000,
  apiBodyBytes: 16 * 1024,
  apiListMax: 1_000,
  auditRecordsMax: 100_000,
  generatedNameAttempts: 8,
  tokenPatternsMax: 100,
  tokensMax: 10_000,
  probeMs: 5_000,
  drainGraceMs: 30_000,
} as const;

export type Limits = { readonly [K in keyof typeof limits]: number };
