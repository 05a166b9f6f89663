/**
 * The parts of a URI that a configuration names and a head repeats byte for byte: what is accepted here can neither end
 * a line nor be read as two parts of it.
 */

/** RFC 3986 §3.3 and the slash. */
const notOfPath = /[^A-Za-z0-9._~!$&'()*+,;=:@/%-]/;
const loosePercent = /%(?![0-9A-Fa-f]{2})/;
/** RFC 9110 §7.2, RFC 3986 §3.2.2: a name, an IPv4 address or an IPv6 address in brackets, and perhaps a port. */
const hostField = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{1,5})?$/;

/** Whether a text may stand in front of a request target: empty, or an absolute path without query and fragment. */
export function isPathPrefix(text: string): boolean {
  return (text === "" || text.startsWith("/")) && !notOfPath.test(text) && !loosePercent.test(text);
}

/** Whether a text may be the value of a Host field. An empty one, though legal, names nobody and is not taken. */
export function isHostField(text: string): boolean {
  return hostField.test(text) && !loosePercent.test(text);
}
