// Not every resolver knows the names under localhost (RFC 6761 §6.3); browsers and curl do.

import dns from "node:dns";

const { lookup } = dns;
dns.lookup = (host, options, callback) => {
  const given = typeof options === "function" ? {} : options;
  const answer = typeof options === "function" ? options : callback;
  if (!host.endsWith(".localhost")) return lookup(host, given, answer);
  const address = "127.0.0.1";
  if (given.all) return queueMicrotask(() => answer(null, [{ address, family: 4 }]));
  return queueMicrotask(() => answer(null, address, 4));
};
