/**
 * Every bound of the program in one place: queues, buffers, waits, retries. Each has a test that reaches it.
 * Those that an operator may change are defaults of the configuration schema; the others are fixed by the protocol.
 */

export const limits = {
  // Wire (docs/protocol.md).
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
  /** 64 KiB for each of 10,000 idle streams of one owner, and a fifth kept for others. */
  processWindowBudgetBytes: 1024 * 1024 * 1024,
  /** How many times what is free of the budget the streams of one owner may hold: 4/5 of it alone, 4/9 of it beside one like it. */
  windowBytesPerFreeByte: 4,
  /** As above, for windows that grow: 3/4 of it alone. */
  grownWindowBytesPerFreeByte: 3,
  openWaitersMax: 1_000,
  openWaitMs: 5_000,
  pingAfterMs: 2_000,
  linkDeadAfterMs: 6_000,
  /** A lane that is silent alone, where all lanes are streams of one connection. */
  sharedLaneDeadAfterMs: 30_000,
  /** A link that is said to be gone has so long to show that it is not. */
  suspectDeadAfterMs: 2_000,
  /** The older link of an agent that has linked anew: QUIC and TCP may take as long again as a cut did to notice its end. */
  retiredDeadAfterMs: 9_000,
  /** A PING that has waited so long, and for several round trips, puts the link in doubt. */
  doubtAfterMs: 1_000,
  /** Indexes of lanes this far behind the newest count as used: no more of them are remembered. */
  laneIndexWindow: 1_024,
  handshakeMs: 10_000,

  // Transports.
  websocketFallbackAfterMs: 250,
  /** QUIC's time after WebSocket was refused by the same node. */
  quicAloneMs: 3_000,
  quicReturnEveryMs: 20_000,
  connectMs: 10_000,
  /** The next address of a host is tried when the one before did not answer for so long (RFC 8305 section 5). */
  nextAddressAfterMs: 250,
  quicAddressesMax: 4,
  reconnectBackoffMinMs: 200,
  reconnectBackoffMaxMs: 15_000,
  /** While a node drains, and so long after, its successor may come any moment: no pause is longer than that. */
  hurriedRetryMs: 1_000,
  hurryAfterGraceMs: 10_000,
  /** Streams for a link that was taken over are accepted for so long. */
  linkRetireMs: 5_000,
  /** While a link is in doubt, each try to have another is given so long, or eight round trips. */
  doubtTryMs: 1_000,
  /** A QUIC link that died early makes the next return wait twice as long, up to so many times. */
  quicPatienceMax: 32,
  pendingHandshakes: 1_000,
  /** That stand, on a node. For one more, the identity that has most of them loses its newest. */
  links: 10_000,
  /** QUIC sessions that act on early data before they have shown that it is no replay; the others wait for that. */
  earlySessions: 100,
  /** What a lane may say in early data: it is kept until the node has taken it, or is sent again. */
  quicEarlyLaneBytes: 16 * 1024,
  /** node:quic cannot connect with a ticket that has expired, which it does after two days. */
  quicTicketMs: 24 * 60 * 60 * 1_000,
  /** A ticket that nobody answered may be tried again, lest each outage cost the next connection its round trip. */
  quicTicketTries: 5,
  /** Received and not consumed, on all lanes of a session: a peer that keeps to its credit never gets there. */
  quicUnreadBytes: 64 * 1024 * 1024,
  /** Our own PINGs run every 2 s, so a connection that is silent for so long is gone. */
  quicIdleMs: 10_000,
  /** How long an end that nothing explains waits for its reason. */
  quicReasonWaitMs: 100,
  /** How long a listener that closes waits for the endpoint itself, after its last connection is over. */
  quicEndpointGoneMs: 250,
  /** Longer writes become several frames; longer frames are refused. */
  websocketFrameBytes: 128 * 1024,

  // Sockets.
  socketQueueHighBytes: 256 * 1024,
  socketQueueLowBytes: 64 * 1024,
  socketReadHighBytes: 256 * 1024,
  socketLingerMs: 5_000,
  /** An idle stream that makes room for a request is reset when the origin has not ended its side by then. */
  givenUpLingerMs: 1_000,

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
  /** Of interim heads that a visitor gets before one reply; the origin may send more. */
  interimReplyBytes: 64 * 1024,
  keepAliveIdleMs: 75_000,
  /** A visitor that ended its side and waits for a silent reply is probed after this, then in growing intervals. */
  halfCloseProbeMs: 500,
  halfCloseProbeMaxMs: 30_000,
  /** Probes that look like zeros before a chunk's size: so many, then none until the next chunk. */
  halfCloseProbeZeros: 8,
  leadingEmptyLines: 2,
  /** Names in Connection. Nobody nominates so many; each one costs a comparison with every field. */
  nominatedFields: 64,
  /** Leading zeros are legal, but not without end. */
  chunkSizeDigits: 16,
  drainedEarlyReplyBytes: 64 * 1024,
  replayBodyBytes: 64 * 1024,
  /** A body in more pieces than this is not kept: each piece costs an object. */
  replayBodyPieces: 256,
  /** RFC 9110 section 10.1.1: a client does not wait for 100 Continue for ever. */
  continueMs: 1_000,
  connectionsPerVisitor: 20_000,
  connections: 50_000,

  // The edge's pool of streams to origins.
  pooledIdleMs: 4_000,
  pooledIdlePerTunnel: 1_024,
  /** So many retries are free; then each request earns this share of one. */
  freeRetries: 10,
  retryShare: 0.1,
  /** Tunnels with retries to earn back, each remembered by itself. */
  retryBudgetsMax: 10_000,
  /** Links that are over, remembered so that no late stream of theirs is kept. */
  retiredLinks: 1_024,
  /** Spellings of field names that are remembered with their kind, and the longest of them. */
  fieldNames: 2_048,
  fieldNameChars: 64,
  /** Nonces of probes under way: the oldest falls out. */
  probes: 10_000,

  // The agent.
  /** A tunnel that the node could not give just now, while others work, is asked for again. */
  claimRetryMs: 5_000,
  probeRetryMinMs: 250,
  probeRetryMaxMs: 5_000,
  probeHeadBytes: 16 * 1024,
  /** While the origin is down. */
  originRecheckMs: 2_000,
  /** How long the system of an origin that ended may take to refuse bytes that crossed with its end. */
  originEndSettleMs: 200,
  /** A node that still says "invalid" after a renewal is not asked for one again before this. */
  renewAgainAfterMs: 60_000,
  /** Of a request's first line, for the live status. */
  tappedLineBytes: 1024,
  /** How long a closing agent waits until what it said last has left. */
  agentLastWordsMs: 500,
  /** How long running requests may take after Ctrl-C. */
  agentStopGraceMs: 5_000,

  // Trust and names.
  agentCertificateMs: 24 * 60 * 60 * 1_000,
  /** Of a key that a node makes at each start and keeps in memory beside the CA's: a shorter life would protect nothing. */
  nodeCertificateMs: 5 * 365 * 24 * 60 * 60 * 1_000,
  caCertificateMs: 20 * 365 * 24 * 60 * 60 * 1_000,
  /** How soon a renewed certificate of the public HTTPS listener is noticed. */
  certificateRereadMs: 10_000,
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
  namesPerIdentity: 500,
  nameBytes: 63,
  tunnelsPerLink: 200,
  /** Tokens for what an agent asks of its node: a name or a probe costs 10, a stream of its own 100, a message 1. */
  linkRequestBurst: 10_000,
  linkRequestsPerSecond: 1_000,
  revocationPollMs: 1_000,
  /** Attempts to enrol or renew that prove nothing. */
  failedEnrolmentsPerMinutePerAddress: 30,
  /** Those whose proof is good. */
  enrolmentsPerMinutePerToken: 120,
  /** Keys on record; those whose certificates can no longer be renewed are forgotten. */
  enrolmentsPerToken: 10_000,
  rateLimitedKeysMax: 10_000,
  proofAgeMs: 5 * 60 * 1_000,
  proofNoncesMax: 20_000,
  apiBodyBytes: 16 * 1024,
  apiListMax: 1_000,
  auditRecordsMax: 100_000,
  /** How long a write waits for another process that writes to the same registry. */
  storeLockMs: 5_000,
  generatedNameAttempts: 8,
  /** Claims of one link that may wait for the policy; an agent sends one at a time. */
  claimsWaiting: 16,
  /** Tunnels that an agent asks for in one claim, so that the answer is one control message too. */
  claimTunnels: 100,
  /** What stands before every target of a tunnel, and in the Host field of its requests. */
  pathPrefixChars: 2_048,
  hostFieldChars: 300,
  /** Names without an agent that are remembered, to answer 503 and not 404 in the moment after a link is lost. */
  offlineNames: 10_000,
  /** Slots, and processes of each, whose order is remembered; the least recently claimed are forgotten first. */
  processSlots: 10_000,
  processesPerSlot: 8,
  tokenPatternsMax: 100,
  tokensMax: 10_000,
  probeMs: 5_000,
  drainGraceMs: 30_000,
  /** After visitors are gone, links only have upgraded streams left to end. */
  drainLinksMs: 1_000,

  // The programs.
  /** Tries at a port that is free for both UDP and TCP, when the system may pick one. */
  portTries: 10,
  /** The whole answer to a request of our own: enrolment, the admin API, a probe. */
  httpAnswerBytes: 4 * 1024 * 1024,
  /** Characters that wait for a reader who does not read: more are dropped. */
  outputQueueChars: 4 * 1024 * 1024,
  /** A daemon that was told to stop does not wait longer for somebody to read its last words. */
  outputLastWordsMs: 1_000,
  /** Each terminal with an agent of its own has an embedded node of its own, with its own folder. */
  embeddedNodes: 8,
} as const;

export type Limits = { readonly [K in keyof typeof limits]: number };
