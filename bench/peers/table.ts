/** All tunnels that the benchmark can measure, in the order of the report. */

import { bore } from "./bore.ts";
import { chisel } from "./chisel.ts";
import { frp, frpQuic, frpTcp } from "./frp.ts";
import { localtunnel } from "./localtunnel.ts";
import type { Peer } from "./peer.ts";
import { rathole } from "./rathole.ts";
import { sallyQuic, sallyWebsocket } from "./sallyport.ts";
import { ssh } from "./ssh.ts";

export const ownTunnels: readonly Peer[] = [sallyWebsocket, sallyQuic];
export const otherTunnels: readonly Peer[] = [frp, frpTcp, frpQuic, rathole, chisel, ssh, bore, localtunnel];
