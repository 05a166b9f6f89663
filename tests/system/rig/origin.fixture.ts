/** The checked origin as a program of its own; says its port, and stays until it is killed. */

import { CheckedOrigin } from "../../support/checked-origin.ts";

const origin = await CheckedOrigin.listen();
process.stdout.write(`${JSON.stringify({ event: "listening", port: origin.port })}\n`);
