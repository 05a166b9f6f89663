/**
 * Header fields exactly as they were received: order, letter case and duplicates are kept. Values are latin1 strings,
 * one character a byte, so what came in goes out unchanged (RFC 9110 §5.5).
 */

export class HeaderList {
  /** Names and values alternate. The list's own storage: callers that are not hot use the methods. */
  readonly raw: string[];

  constructor(raw: string[] = []) {
    this.raw = raw;
  }

  get size(): number {
    return this.raw.length / 2;
  }

  /** The first value of a field; `name` in lower case. */
  get(name: string): string | undefined {
    const { raw } = this;
    for (let i = 0; i < raw.length; i += 2) {
      if (isNamed(raw[i]!, name)) return raw[i + 1]!; // pairs
    }
    return undefined;
  }

  /** All values of a field in order; `name` in lower case. */
  getAll(name: string): string[] {
    const { raw } = this;
    const values: string[] = [];
    for (let i = 0; i < raw.length; i += 2) {
      if (isNamed(raw[i]!, name)) values.push(raw[i + 1]!); // pairs
    }
    return values;
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  append(name: string, value: string): void {
    this.raw.push(name, value);
  }

  /** Replaces the first field of that name in place, drops its duplicates, or appends. */
  set(name: string, value: string): void {
    const wanted = name.toLowerCase();
    const { raw } = this;
    let written = false;
    let to = 0;
    for (let i = 0; i < raw.length; i += 2) {
      const isMatch = isNamed(raw[i]!, wanted); // pairs
      if (isMatch && written) continue;
      raw[to] = raw[i]!;
      raw[to + 1] = isMatch ? value : raw[i + 1]!;
      written ||= isMatch;
      to += 2;
    }
    raw.length = to;
    if (!written) raw.push(name, value);
  }

  /** Drops every field of that name; `name` in lower case. */
  delete(name: string): void {
    const { raw } = this;
    let to = 0;
    for (let i = 0; i < raw.length; i += 2) {
      if (isNamed(raw[i]!, name)) continue; // pairs
      raw[to] = raw[i]!;
      raw[to + 1] = raw[i + 1]!;
      to += 2;
    }
    raw.length = to;
  }

  clone(): HeaderList {
    return new HeaderList(this.raw.slice());
  }

  *[Symbol.iterator](): IterableIterator<readonly [string, string]> {
    for (let i = 0; i < this.raw.length; i += 2) yield [this.raw[i]!, this.raw[i + 1]!]; // pairs
  }
}

/** Compares a field name with a lower-case one, ignoring ASCII case. */
export function isNamed(name: string, lowerCase: string): boolean {
  const { length } = name;
  if (length !== lowerCase.length) return false;
  if (name === lowerCase) return true;
  // hot: head parsing; toLowerCase would allocate for each field of a likely length.
  for (let i = 0; i < length; i++) {
    const wanted = lowerCase.charCodeAt(i);
    const code = name.charCodeAt(i);
    if (code !== wanted && (code !== wanted - 32 || wanted < 97 || wanted > 122)) return false;
  }
  return true;
}
