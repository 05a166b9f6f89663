/**
 * What the fields of a head say about where the message ends and what happens to the connection after it, collected
 * in the one pass that looks at names. Anything two parsers could read differently is refused (RFC 9112 §6.3, §11.2).
 */

import { limits } from "../../core/limits.ts";
import { isNamed } from "../header-list.ts";
import { listMembers, parseContentLength, type Refuse } from "./field-list.ts";

const noNames: readonly string[] = [];

export class FramingFields {
  /** -1 when there is none. */
  contentLength = -1;
  isChunked = false;
  hasClose = false;
  hasKeepAlive = false;
  /** Connection has the option `upgrade`. */
  hasUpgradeOption = false;
  /** There is an Upgrade field. */
  hasUpgrade = false;
  /** An Upgrade field asks for HTTP/2. */
  hasRefusedUpgrade = false;
  host: string | undefined;
  expect: string | undefined;
  #nominated: string[] | undefined;

  /** Names that Connection lists besides close, keep-alive and upgrade; lower case. */
  get nominated(): readonly string[] {
    return this.#nominated ?? noNames;
  }

  /** Looks at every field once. */
  static of(raw: readonly string[], minorVersion: number, refuse: Refuse): FramingFields {
    const found = new FramingFields();
    for (let i = 0; i < raw.length; i += 2) found.#note(raw[i]!, raw[i + 1]!, refuse); // pairs
    if (!found.isChunked) return found;
    if (found.contentLength >= 0) throw refuse("it has both Content-Length and Transfer-Encoding");
    if (minorVersion === 0) throw refuse("Transfer-Encoding does not exist in HTTP/1.0");
    return found;
  }

  // hot: head parsing; the length of the name rules out nearly every field without looking at its letters.
  #note(name: string, value: string, refuse: Refuse): void {
    switch (name.length) {
      case 4:
        if (isNamed(name, "host")) this.#noteHost(value, refuse);
        break;
      case 6:
        if (isNamed(name, "expect")) this.expect = this.expect === undefined ? value : `${this.expect}, ${value}`;
        break;
      case 7:
        if (isNamed(name, "upgrade")) this.#noteUpgrade(value);
        break;
      case 10:
        if (isNamed(name, "connection")) this.#noteConnection(value, refuse);
        break;
      case 14:
        if (isNamed(name, "content-length")) this.#noteLength(value, refuse);
        break;
      case 17:
        if (isNamed(name, "transfer-encoding")) this.#noteCoding(value, refuse);
        break;
      default:
    }
  }

  #noteHost(value: string, refuse: Refuse): void {
    if (this.host !== undefined) throw refuse("it has several Host fields");
    this.host = value;
  }

  #noteLength(value: string, refuse: Refuse): void {
    if (this.contentLength >= 0) throw refuse("it has several Content-Length fields");
    this.contentLength = parseContentLength(value, refuse);
  }

  #noteCoding(value: string, refuse: Refuse): void {
    if (this.isChunked) throw refuse("it has several Transfer-Encoding fields");
    if (value.toLowerCase() !== "chunked") throw refuse("its Transfer-Encoding is not exactly chunked");
    this.isChunked = true;
  }

  #noteUpgrade(value: string): void {
    // h2c would turn the connection into a tunnel past every later check, so it is ignored, as RFC 9110 §7.8 allows.
    if (!listMembers(value).some((protocol) => protocol === "h2c" || protocol === "h2")) this.hasUpgrade = true;
    else this.hasRefusedUpgrade = true;
  }

  #noteConnection(value: string, refuse: Refuse): void {
    if (value === "keep-alive" || value === "Keep-Alive") this.hasKeepAlive = true;
    else if (value === "close") this.hasClose = true;
    else {
      for (const option of listMembers(value)) {
        if (option === "close") this.hasClose = true;
        else if (option === "keep-alive") this.hasKeepAlive = true;
        else if (option === "upgrade") this.hasUpgradeOption = true;
        else this.#nominate(option, refuse);
      }
    }
  }

  #nominate(name: string, refuse: Refuse): void {
    this.#nominated ??= [];
    this.#nominated.push(name);
    if (this.#nominated.length > limits.nominatedFields) throw refuse("its Connection field names too many fields");
  }
}

/** A switch of protocols that we relay. */
export function asksUpgrade(fields: FramingFields): boolean {
  return fields.hasUpgrade && fields.hasUpgradeOption && !fields.hasRefusedUpgrade;
}

/** Whether the connection persists after this message (RFC 9112 §9.3). */
export function persists(fields: FramingFields, minorVersion: number): boolean {
  return !fields.hasClose && (minorVersion === 1 || fields.hasKeepAlive);
}
