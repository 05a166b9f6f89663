/** The C library, for the few questions to the system that Bun has no call for. Who asks can do without an answer. */

import { dlopen, type FFIFunction, type Library } from "bun:ffi";

/** Opens the functions that are named. @throws where there is no C library that can be opened */
export function openLibc<T extends Record<string, FFIFunction>>(symbols: T): Library<T> {
  try {
    return dlopen("libc.so.6", symbols);
  } catch {
    return dlopen(`libc.musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`, symbols);
  }
}
