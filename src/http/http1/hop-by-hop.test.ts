import { expect, test } from "bun:test";
import { HeaderList } from "../header-list.ts";
import { withoutHopByHop } from "./hop-by-hop.ts";

const strip = (raw: string[], nominated: string[] = [], keepsUpgrade = false) =>
  withoutHopByHop(new HeaderList(raw), nominated, keepsUpgrade).raw;

test("fields of one connection go, the others keep order, case and duplicates", () => {
  const raw = [
    "B",
    "1",
    "CONNECTION",
    "x",
    "Keep-Alive",
    "5",
    "b",
    "2",
    "Proxy-Connection",
    "x",
    "Transfer-Encoding",
    "chunked",
  ];
  expect(strip([...raw, "Upgrade", "x", "Trailer", "X-T"])).toEqual(["B", "1", "b", "2", "Trailer", "X-T"]);
});

test("what an edge says of its own reply is not taken over from another's", () => {
  expect(strip(["SALLY-error", "FAKE", "Sally-Request-Id", "1", "Sally-Errors", "2"])).toEqual([
    "Sally-Request-Id",
    "1",
    "Sally-Errors",
    "2",
  ]);
});

test("what Connection names goes too", () => {
  expect(strip(["X-Hop", "1", "x-hop", "2", "X-Stay", "3"], ["x-hop"])).toEqual(["X-Stay", "3"]);
});

test("Connection cannot remove what others rely on", () => {
  const raw = [
    "Host",
    "a",
    "Content-Length",
    "1",
    "Cookie",
    "c",
    "Authorization",
    "x",
    "X-Forwarded-For",
    "1",
    "Sally-Probe",
    "n",
  ];
  const names = [
    "host",
    "content-length",
    "cookie",
    "authorization",
    "x-forwarded-for",
    "sally-probe",
    "te",
    "upgrade",
  ];
  expect(strip(raw, names)).toEqual(raw);
});

test("of TE only trailers stays", () => {
  expect(strip(["TE", "gzip, Trailers;q=1"])).toEqual([]);
  expect(strip(["TE", "gzip, Trailers"], ["te"])).toEqual(["TE", "trailers"]);
  expect(strip(["te", "deflate"])).toEqual([]);
});

test("an upgrade keeps Upgrade and one Connection where it stood", () => {
  const raw = ["Connection", "keep-alive, Upgrade", "Upgrade", "websocket", "connection", "x", "Keep-Alive", "5"];
  expect(strip(raw, ["x"], true)).toEqual(["Connection", "Upgrade", "Upgrade", "websocket"]);
});
