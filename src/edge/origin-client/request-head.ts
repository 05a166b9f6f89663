/**
 * Writes the head that the origin gets. The target and every end-to-end field go out byte for byte and in their order;
 * what belongs to the visitor's connection, what frames the body and what says who asks is written anew.
 */

import type { Exchange, RequestHead } from "../../http/exchange.ts";
import { HeaderList } from "../../http/header-list.ts";
import { withoutHopByHop } from "../../http/http1/hop-by-hop.ts";
import { listMembers } from "../../http/http1/field-list.ts";
import type { HostHeaderPolicy, TunnelEntry } from "../../ports/tunnel-directory.ts";
import * as kinds from "./field-kinds.ts";
import { ForwardedFields, forwardedFields } from "./forwarded-fields.ts";

export interface RequestHeadOptions {
  /** Whether what this address says in forwarding fields is believed. Default: nobody is. */
  readonly isTrustedProxy?: ((host: string) => boolean) | undefined;
}

/** The head for the origin, ready for `encodeRequestHead`, and what the client must know about it. */
export interface OriginHead {
  readonly method: string;
  readonly target: string;
  readonly headers: HeaderList;
  /** The request asks for 100 Continue before its body. */
  readonly expectsContinue: boolean;
  /** The origin is asked to switch protocols. */
  readonly wantsUpgrade: boolean;
  /** The credentials belong to the connection (NTLM, Negotiate): it serves this visitor only from now on. */
  readonly isConnectionBound: boolean;
}

interface Claims {
  for: string | undefined;
  host: string | undefined;
  proto: string | undefined;
  forwarded: string | undefined;
}

/** Options of Connection that name no further field to drop. */
const ordinaryOptions: ReadonlySet<string> = new Set(["keep-alive", "close", "upgrade", "te"]);

/** `NTLM …` and `Negotiate …` authenticate a connection, not a request (RFC 4559 §6). */
export function isConnectionBoundScheme(value: string): boolean {
  return /^(?:ntlm|negotiate)(?:[ \t,]|$)/i.test(value);
}

export class RequestHeadWriter {
  readonly #isTrustedProxy: ((host: string) => boolean) | undefined;
  readonly #kinds = new kinds.FieldKinds();
  readonly #forwarded = new ForwardedFields();

  constructor({ isTrustedProxy }: RequestHeadOptions = {}) {
    this.#isTrustedProxy = isTrustedProxy;
  }

  /** `keepsProbe`: the nonce of a probe goes along, for the agent that answers it. */
  write(exchange: Exchange, tunnel: TunnelEntry, keepsProbe = false): OriginHead {
    const pass = new HeadPass(exchange, tunnel, keepsProbe);
    const { headers } = exchange.request;
    pass.run(headers.raw, this.#kinds);
    // Rare: Connection names more fields to drop, so go through them again now that the names are known.
    if (pass.nominated.length > 0) {
      pass.run(withoutHopByHop(headers, pass.nominated, pass.wantsUpgrade).raw, this.#kinds);
    }
    // Without claims it makes no difference who asks.
    const isTrusted = pass.claims !== undefined && this.#isTrustedProxy?.(exchange.connection.remote.host) === true;
    pass.finish(isTrusted ? forwardedFields(exchange, pass.claims) : this.#forwarded.of(exchange));
    return pass;
  }
}

/** One head on its way through; it becomes the result. */
class HeadPass implements OriginHead {
  readonly method: string;
  readonly target: string;
  headers = new HeaderList();
  expectsContinue = false;
  readonly wantsUpgrade: boolean;
  isConnectionBound = false;
  readonly nominated: string[] = [];
  claims: Claims | undefined;
  readonly #exchange: Exchange;
  readonly #tunnel: TunnelEntry;
  readonly #keepsProbe: boolean;
  #hasHost = false;
  #hasFraming = false;
  #hasConnection = false;
  #acceptsTrailers = false;

  constructor(exchange: Exchange, tunnel: TunnelEntry, keepsProbe: boolean) {
    this.method = exchange.request.method;
    this.target = originTarget(exchange.request, tunnel.pathPrefix);
    this.#exchange = exchange;
    this.#tunnel = tunnel;
    this.#keepsProbe = keepsProbe;
    this.wantsUpgrade = exchange.wantsUpgrade && !asksForHttp2(exchange);
  }

  run(raw: readonly string[], fieldKinds: kinds.FieldKinds): void {
    const out: string[] = [];
    this.headers = new HeaderList(out);
    this.claims = undefined;
    this.#hasHost = this.#hasFraming = this.#hasConnection = this.#acceptsTrailers = false;
    for (let i = 0; i < raw.length; i += 2) {
      const name = raw[i]!; // pairs
      const kind = fieldKinds.of(name);
      if (kind === kinds.keepField) out.push(name, raw[i + 1]!);
      else if (kind !== kinds.dropField) this.#special(kind, name, raw[i + 1]!);
    }
  }

  #add(name: string, value: string): void {
    this.headers.raw.push(name, value);
  }

  #special(kind: number, name: string, value: string): void {
    switch (kind) {
      case kinds.hostField:
        if (!this.#hasHost) this.#add(name, hostValue(this.#tunnel.hostHeader, value, this.#exchange.authority));
        this.#hasHost = true;
        break;
      case kinds.lengthField:
        if (this.#exchange.body.length !== undefined) this.#addFraming(name, "");
        break;
      case kinds.codingField:
        if (this.#exchange.body.length === undefined) this.#addFraming("", name);
        break;
      case kinds.connectionField:
        this.#noteConnection(name, value);
        break;
      case kinds.upgradeField:
        if (this.wantsUpgrade) this.#add(name, value);
        break;
      case kinds.teField:
        this.#acceptsTrailers ||= !this.wantsUpgrade && listMembers(value).includes("trailers");
        break;
      case kinds.expectField:
        if (this.#exchange.request.minorVersion === 0) break; // RFC 9110 §10.1.1: ignored, so not passed on either
        this.expectsContinue ||= listMembers(value).includes("100-continue");
        this.#add(name, value);
        break;
      case kinds.authorizationField:
        this.isConnectionBound ||= isConnectionBoundScheme(value);
        this.#add(name, value);
        break;
      case kinds.probeField:
        if (this.#keepsProbe) this.#add(name, value);
        break;
      default:
        this.#claim(kind, value);
    }
  }

  #addFraming(lengthName: string, codingName: string): void {
    if (this.#hasFraming) return;
    this.#hasFraming = true;
    const { length } = this.#exchange.body;
    if (length === undefined) this.#add(codingName, "chunked");
    else this.#add(lengthName, String(length));
  }

  #noteConnection(name: string, value: string): void {
    if (this.wantsUpgrade && !this.#hasConnection) this.#add(name, "Upgrade");
    this.#hasConnection = true;
    for (const option of listMembers(value)) if (!ordinaryOptions.has(option)) this.nominated.push(option);
  }

  #claim(kind: number, value: string): void {
    const claims = (this.claims ??= { for: undefined, host: undefined, proto: undefined, forwarded: undefined });
    const join = (before: string | undefined): string => (before === undefined ? value : `${before}, ${value}`);
    if (kind === kinds.forwardedForField) claims.for = join(claims.for);
    else if (kind === kinds.forwardedHostField) claims.host = join(claims.host);
    else if (kind === kinds.forwardedProtoField) claims.proto = join(claims.proto);
    else claims.forwarded = join(claims.forwarded);
  }

  finish(forwarded: readonly string[]): void {
    const { body, authority } = this.#exchange;
    if (!this.#hasFraming && body.length === undefined) this.#addFraming("", "Transfer-Encoding");
    else if (!this.#hasFraming && body.length !== 0) this.#addFraming("Content-Length", "");
    if (this.wantsUpgrade && !this.#hasConnection) this.#add("Connection", "Upgrade");
    // RFC 9110 §10.1.4: whoever sends TE names it in Connection.
    if (this.#acceptsTrailers) this.headers.raw.push("Connection", "TE", "TE", "trailers");
    this.headers.raw.push(...forwarded);
    if (!this.#hasHost) this.headers.raw.unshift("Host", hostValue(this.#tunnel.hostHeader, authority, authority));
  }
}

/** Never towards the origin: the requests inside an h2c connection would pass the edge unseen. */
function asksForHttp2(exchange: Exchange): boolean {
  return exchange.request.headers.getAll("upgrade").some((value) => listMembers(value).includes("h2c"));
}

function hostValue(policy: HostHeaderPolicy, asSent: string, authority: string): string {
  if (policy.kind === "rewrite") return policy.originHost;
  if (policy.kind === "value") return policy.value;
  // An absolute-form target wins over Host (RFC 9112 §3.2.2): the origin must see what was routed on.
  return asSent === authority || asSent.toLowerCase() === authority ? asSent : authority;
}

/** The target as the origin gets it: prefix, then the visitor's bytes; scheme and host of an absolute form are cut. */
export function originTarget({ method, target }: Pick<RequestHead, "method" | "target">, pathPrefix: string): string {
  if (target.charCodeAt(0) === 0x2f) return pathPrefix === "" ? target : pathPrefix + target;
  const schemeEnd = target.indexOf("://");
  if (schemeEnd < 0) return target; // "*"
  let pathStart = schemeEnd + 3;
  while (pathStart < target.length && !"/?".includes(target.charAt(pathStart))) pathStart++;
  const rest = target.slice(pathStart);
  if (rest === "" && method === "OPTIONS") return "*"; // RFC 9112 §3.2.4: the last proxy says so
  return `${pathPrefix}${rest.startsWith("/") ? "" : "/"}${rest}`;
}
