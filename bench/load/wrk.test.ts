import { expect, test } from "bun:test";
import { parseWrk } from "./wrk.ts";

const report = `Running 2s test @ http://127.0.0.1:8080/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    60.41ms  101.25ms   1.05s    92.10%
    Req/Sec     1.00k   111.42     1.20k    75.00%
  Latency Distribution
     50%  850.00us
     75%   55.31ms
     90%  140.22ms
     99%    1.02s 
  2000 requests in 2.00s, 2.50MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 10
Requests/sec:    999.80
Transfer/sec:      1.25MB
`;

test("percentiles come in milliseconds, whatever their unit and padding", () => {
  const { p50Ms, p99Ms } = parseWrk(report);
  expect(p50Ms).toBeCloseTo(0.85);
  expect(p99Ms).toBeCloseTo(1020);
});

test("every kind of error counts", () => {
  const { requests, requestsPerSecond, errors } = parseWrk(report);
  expect({ requests, requestsPerSecond, errors }).toEqual({ requests: 2000, requestsPerSecond: 999.8, errors: 17 });
});

test("a run without errors has none", () => {
  const clean = report.replace(/^ {2}(Socket|Non).*\n/gm, "");
  expect(parseWrk(clean).errors).toBe(0);
});
