/**
 * The only door to @peculiar/x509. It is opened on the first certificate to be issued, never at import time: the
 * library costs 80 ms and a polyfill of Reflect, and only a node that issues needs it. Checking does without.
 */

import type * as peculiar from "@peculiar/x509";

export type X509 = typeof peculiar;

export async function loadX509(): Promise<X509> {
  await import("reflect-metadata"); // tsyringe, inside the library, refuses to load without it
  return import("@peculiar/x509");
}
