/**
 * How a link starts: HELLO, CHALLENGE, PROOF, WELCOME on its first lane. Each side signs one transcript that names
 * both sides, both nonces, the exact HELLO and the TLS connection, so a proof is good for one handshake in one
 * direction over one connection. docs/protocol.md gives the bytes.
 */

import { z } from "zod";
import {
  base64UrlDecode,
  base64UrlEncode,
  concatBytes,
  equalConstantTime,
  hexDecode,
  utf8Encode,
} from "../core/bytes.ts";
import { SallyError } from "../core/errors.ts";
import type { LinkAuth, PeerIdentity, Role } from "../core/identity.ts";
import type { Session } from "../ports/session.ts";
import { parseJson } from "./messages.ts";

/** Versions that this code speaks, best first. */
export const protocolVersions: readonly number[] = [1];

const nonceBytes = 32;
const transcriptLabel = "sallyport link v1\n";

const bytes = (max: number) =>
  z
    .string()
    .max(Math.ceil((max * 4) / 3))
    .regex(/^[A-Za-z0-9_-]*$/)
    .transform(base64UrlDecode);
const nonce = bytes(nonceBytes).refine((value) => value.length === nonceBytes, "a nonce has 32 bytes");
const role = z.enum(["agent", "node"]);

export const helloSchema = z.object({
  type: z.literal("hello"),
  versions: z.array(z.int().min(1).max(0xffff)).min(1).max(16),
  role,
  /** The program's version, for logs. */
  program: z.string().max(100),
  process: z.string().min(1).max(100),
  /** The host that the dialling side meant to reach. */
  host: z.string().max(255),
  certificate: bytes(8_192),
  nonce,
});
export const challengeSchema = z.object({
  type: z.literal("challenge"),
  version: z.int(),
  role,
  program: z.string().max(100),
  process: z.string().min(1).max(100),
  certificate: bytes(8_192),
  nonce,
  /** Whether the accepting side signs its TLS exporter. */
  bindsExporter: z.boolean(),
  /** Whether a proxy ends TLS in front of the accepting side. */
  isProxied: z.boolean(),
  signature: bytes(256),
});
export const proofSchema = z.object({ type: z.literal("proof"), signature: bytes(256) });
export const welcomeSchema = z.object({
  type: z.literal("welcome"),
  link: z.string().min(1).max(64),
  /** Proves on further lanes that they belong to this link. */
  laneSecret: nonce,
  lanesMax: z.int().min(1),
});

export type Challenge = z.infer<typeof challengeSchema>;

/** What both sides sign. */
export interface Transcript {
  readonly signer: "dialler" | "acceptor";
  readonly version: number;
  /** SHA-256 of the HELLO payload as it was sent. */
  readonly helloHash: Uint8Array;
  readonly roles: { readonly dialler: Role; readonly acceptor: Role };
  readonly nonces: { readonly dialler: Uint8Array; readonly acceptor: Uint8Array };
  /** Lower-case hex SHA-256 of the public keys. */
  readonly fingerprints: { readonly dialler: string; readonly acceptor: string };
  readonly processes: { readonly dialler: string; readonly acceptor: string };
  readonly host: string;
  readonly isProxied: boolean;
  readonly exporter: Uint8Array | undefined;
}

/** The exact bytes that are signed. */
export function encodeTranscript(transcript: Transcript): Uint8Array {
  const { roles, nonces, fingerprints, processes, exporter } = transcript;
  const roleByte = (value: Role): number => (value === "agent" ? 1 : 2);
  return concatBytes([
    utf8Encode(transcriptLabel),
    Uint8Array.of(transcript.signer === "dialler" ? 1 : 2, transcript.version >>> 8, transcript.version),
    transcript.helloHash,
    Uint8Array.of(roleByte(roles.dialler), roleByte(roles.acceptor)),
    nonces.dialler,
    nonces.acceptor,
    hexDecode(fingerprints.dialler),
    hexDecode(fingerprints.acceptor),
    withLength(utf8Encode(processes.dialler)),
    withLength(utf8Encode(processes.acceptor)),
    withLength(utf8Encode(transcript.host)),
    Uint8Array.of(transcript.isProxied ? 1 : 0, exporter === undefined ? 0 : 1),
    withLength(exporter ?? new Uint8Array(0)),
  ]);
}

function withLength(value: Uint8Array): Uint8Array {
  return concatBytes([Uint8Array.of(value.length >>> 8, value.length), value]);
}

/** What a finished handshake tells the link. */
export interface HandshakeResult {
  readonly linkId: string;
  readonly laneSecret: Uint8Array;
  readonly lanesMax: number;
  readonly peer: PeerIdentity;
  readonly peerProcess: string;
  readonly peerVersion: string;
}

/** The first lane, as the handshake sees it: one message at a time. */
export interface HandshakeChannel {
  send(payload: Uint8Array): void;
  /** Reads the next message in the same turn in which it arrives. */
  receive<T>(read: (payload: Uint8Array) => T): Promise<T>;
}

export interface HandshakeOptions {
  readonly session: Session;
  readonly auth: LinkAuth;
  readonly channel: HandshakeChannel;
  readonly program: string;
  readonly lanesMax: number;
}

/** The dialling side; `onWelcome` is called in the turn in which WELCOME arrives. @throws SallyError */
export async function dialHandshake(
  options: HandshakeOptions,
  onWelcome: (result: HandshakeResult) => void,
): Promise<void> {
  const { session, auth, channel, program } = options;
  const ours = randomBytes(nonceBytes);
  const helloPayload = encode({
    type: "hello",
    versions: protocolVersions,
    role: auth.role,
    program,
    process: auth.process,
    host: session.host,
    certificate: base64UrlEncode(auth.certificate),
    nonce: base64UrlEncode(ours),
  });
  channel.send(helloPayload);
  const challenge = await channel.receive((payload) => parse(challengeSchema, payload));
  if (!protocolVersions.includes(challenge.version)) throw new SallyError("VERSION_MISMATCH");
  checkPeer(session, auth, challenge.certificate, { ours, theirs: challenge.nonce });
  const transcript: Omit<Transcript, "signer"> = {
    version: challenge.version,
    helloHash: await sha256(helloPayload),
    roles: { dialler: auth.role, acceptor: challenge.role },
    nonces: { dialler: ours, acceptor: challenge.nonce },
    fingerprints: {
      dialler: await auth.fingerprint(auth.certificate),
      acceptor: await auth.fingerprint(challenge.certificate),
    },
    processes: { dialler: auth.process, acceptor: challenge.process },
    host: session.host,
    isProxied: challenge.isProxied,
    exporter: diallerExporter(session, auth, challenge),
  };
  const signedByPeer = encodeTranscript({ ...transcript, signer: "acceptor" });
  const peer = await auth.verify(challenge.certificate, signedByPeer, challenge.signature);
  if (peer.role !== challenge.role) throw new SallyError("CERTIFICATE_INVALID", "the peer's role is not its own");
  const signature = await auth.sign(encodeTranscript({ ...transcript, signer: "dialler" }));
  const welcomed = channel.receive((payload) => {
    const welcome = parse(welcomeSchema, payload);
    onWelcome({
      linkId: welcome.link,
      laneSecret: welcome.laneSecret,
      lanesMax: welcome.lanesMax,
      peer,
      peerProcess: challenge.process,
      peerVersion: challenge.program,
    });
  });
  channel.send(encode({ type: "proof", signature: base64UrlEncode(signature) }));
  await welcomed;
}

/** The accepting side; the caller sends WELCOME with `encodeWelcome` once the link stands. @throws SallyError */
export async function acceptHandshake(options: HandshakeOptions): Promise<HandshakeResult> {
  const { session, auth, channel, program } = options;
  const helloPayload = await channel.receive((payload) => payload);
  if (session.isProxied && !auth.allowsProxiedTls) throw new SallyError("PROXY_UNTRUSTED");
  const hello = parse(helloSchema, helloPayload);
  const version = protocolVersions.find((candidate) => hello.versions.includes(candidate));
  if (version === undefined) throw new SallyError("VERSION_MISMATCH");
  const ours = randomBytes(nonceBytes);
  checkPeer(session, auth, hello.certificate, { ours, theirs: hello.nonce });
  checkHost(session, hello.host);
  const exporter = session.isProxied ? undefined : session.exporter;
  const transcript: Omit<Transcript, "signer"> = {
    version,
    helloHash: await sha256(helloPayload),
    roles: { dialler: hello.role, acceptor: auth.role },
    nonces: { dialler: hello.nonce, acceptor: ours },
    fingerprints: {
      dialler: await auth.fingerprint(hello.certificate),
      acceptor: await auth.fingerprint(auth.certificate),
    },
    processes: { dialler: hello.process, acceptor: auth.process },
    host: hello.host,
    isProxied: session.isProxied,
    exporter,
  };
  const signature = await auth.sign(encodeTranscript({ ...transcript, signer: "acceptor" }));
  const proven = channel.receive((payload) => parse(proofSchema, payload));
  channel.send(
    encode({
      type: "challenge",
      version,
      role: auth.role,
      program,
      process: auth.process,
      certificate: base64UrlEncode(auth.certificate),
      nonce: base64UrlEncode(ours),
      bindsExporter: exporter !== undefined,
      isProxied: session.isProxied,
      signature: base64UrlEncode(signature),
    }),
  );
  const proof = await proven;
  const signedByPeer = encodeTranscript({ ...transcript, signer: "dialler" });
  const peer = await auth.verify(hello.certificate, signedByPeer, proof.signature);
  if (peer.role !== hello.role) throw new SallyError("CERTIFICATE_INVALID", "the peer's role is not its own");
  return {
    linkId: base64UrlEncode(randomBytes(12)),
    laneSecret: randomBytes(nonceBytes),
    lanesMax: options.lanesMax,
    peer,
    peerProcess: hello.process,
    peerVersion: hello.program,
  };
}

export function encodeWelcome({ linkId, laneSecret, lanesMax }: HandshakeResult): Uint8Array {
  return encode({ type: "welcome", link: linkId, laneSecret: base64UrlEncode(laneSecret), lanesMax });
}

/** Rules that hold on either side before a signature is looked at. */
function checkPeer(
  session: Session,
  auth: LinkAuth,
  certificate: Uint8Array,
  nonces: { ours: Uint8Array; theirs: Uint8Array },
): void {
  if (equalConstantTime(nonces.ours, nonces.theirs) || equalConstantTime(certificate, auth.certificate)) {
    throw new SallyError("AUTH_FAILED", "the peer reflects our own messages");
  }
  if (session.peerCertificate !== undefined && !equalConstantTime(session.peerCertificate, certificate)) {
    throw new SallyError("AUTH_FAILED", "the peer's certificate is not the one that it showed in TLS");
  }
  const { transport } = session;
  if (transport === "quic" && session.peerCertificate === undefined) {
    throw new SallyError("CERTIFICATE_INVALID", "the peer showed no certificate in TLS");
  }
  if (transport === "websocket" && !session.isProxied && session.exporter === undefined) {
    throw new SallyError("AUTH_FAILED", "the TLS connection has no exporter to bind the link to");
  }
}

/** Over QUIC the TLS server name is the same for every node, so only the Host field of a WebSocket is compared. */
function checkHost(session: Session, host: string): void {
  if (session.transport !== "websocket" || session.isProxied || session.host === "") return;
  if (hostName(session.host) === hostName(host)) return;
  throw new SallyError("AUTH_FAILED", `the agent meant to reach ${host}, but its request names ${session.host}`);
}

function hostName(host: string): string {
  return host
    .toLowerCase()
    .replace(/:\d+$/, "")
    .replace(/^\[|\]$/g, "");
}

/** The dialling side has an exporter even behind a proxy; only a node that says so, and signs it, may leave it out. */
function diallerExporter(session: Session, auth: LinkAuth, challenge: Challenge): Uint8Array | undefined {
  if (challenge.isProxied && !auth.allowsProxiedTls) throw new SallyError("PROXY_UNTRUSTED");
  if (challenge.bindsExporter) {
    if (challenge.isProxied) throw new SallyError("AUTH_FAILED", "an exporter cannot be bound through a proxy");
    if (session.exporter === undefined) throw new SallyError("AUTH_FAILED", "the node binds an exporter we lack");
    return session.exporter;
  }
  if (session.exporter !== undefined && !challenge.isProxied) {
    throw new SallyError("AUTH_FAILED", "the node does not bind the TLS connection");
  }
  return undefined;
}

export function randomBytes(length: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(length));
}

async function sha256(data: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(data)));
}

function encode(value: unknown): Uint8Array {
  return utf8Encode(JSON.stringify(value));
}

/** @throws SallyError PROTOCOL_VIOLATION */
export function parse<T>(schema: z.ZodType<T>, payload: Uint8Array): T {
  const parsed = schema.safeParse(parseJson(payload));
  if (parsed.success) return parsed.data;
  throw new SallyError(
    "PROTOCOL_VIOLATION",
    `a handshake message is malformed: ${parsed.error.issues[0]?.path.join(".")}`,
  );
}
