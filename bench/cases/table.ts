/** All cases, in the order in which they run and are reported. */

import type { Case } from "../bench.ts";
import { bulkCases } from "./bulk.ts";
import { firstUrlCase } from "./first-url.ts";
import { idleCase } from "./idle.ts";
import { longCase, lossyCase } from "./lossy.ts";
import { requestCases } from "./requests.ts";

export const cases: readonly Case[] = [...requestCases, ...bulkCases, idleCase, firstUrlCase, lossyCase, longCase];
