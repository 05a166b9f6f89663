import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { SallyError } from "../core/errors.ts";
import { fetchCa } from "./enrol-client.ts";
import { ApiError, expectDone, readReply } from "./request.ts";
import { enrolTranscript, renewTranscript } from "./transcript.ts";

function failure(work: () => unknown): SallyError {
  try {
    work();
  } catch (error) {
    if (error instanceof SallyError) return error;
  }
  throw new Error("a SallyError was expected");
}

const problem = { title: "t", status: 401, detail: "log in again", code: "TOKEN_INVALID" };
const schema = z.object({ value: z.number() });

describe("replies", () => {
  test("are read when they are what was asked for", () => {
    expect(readReply({ status: 200, body: '{"value":1}' }, schema)).toEqual({ value: 1 });
    expectDone({ status: 204, body: "" });
  });

  test("of the node's refusal become its error", () => {
    const error = failure(() => readReply({ status: 401, body: JSON.stringify({ ...problem, nowMs: 5 }) }, schema));
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ code: "TOKEN_INVALID", message: "log in again", nodeNowMs: 5 });
    expect(failure(() => expectDone({ status: 401, body: JSON.stringify(problem) })).code).toBe("TOKEN_INVALID");
  });

  test("that are not ours, or have a code from the future, are named as such", () => {
    for (const body of ["", "<html>", "[]", '{"value":"x"}']) {
      expect(failure(() => readReply({ status: 200, body }, schema)).code).toBe("PROTOCOL_VIOLATION");
    }
    expect(failure(() => readReply({ status: 502, body: "<html>" }, schema)).message).toContain("502");
    for (const code of ["NEW_CODE", "toString", "__proto__"]) {
      expect(failure(() => readReply({ status: 400, body: JSON.stringify({ ...problem, code }) }, schema)).code).toBe(
        "PROTOCOL_VIOLATION",
      );
    }
  });

  test("without a certificate are no CA", async () => {
    const fetched = fetchCa(async () => ({ status: 200, body: "hello" }));
    expect(await fetched.catch((error: unknown) => error)).toMatchObject({ code: "PROTOCOL_VIOLATION" });
  });
});

test("no two sets of fields give the same bytes to sign", () => {
  const base = { caFingerprint: "c", publicKey: "k", installation: "i", timestampMs: 1, nonce: "n" };
  const texts = [
    base,
    { ...base, caFingerprint: "ck", publicKey: "" },
    { ...base, publicKey: "ki", installation: "" },
    { ...base, installation: "i1", timestampMs: 1 },
    { ...base, timestampMs: 11 },
    { ...base, nonce: "" },
  ].map((fields) => enrolTranscript(fields).toHex());
  texts.push(renewTranscript({ caFingerprint: "c", certificate: "k", timestampMs: 1, nonce: "n" }).toHex());
  expect(new Set(texts).size).toBe(texts.length);
});
