// The eventsource package as a visitor: prints the id of each event, and each time that it connects.

import "./resolve-localhost.mjs";
import { EventSource } from "eventsource";

const [url] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const source = new EventSource(url);
source.addEventListener("open", () => say({ opened: true }));
source.addEventListener("error", (event) => say({ trouble: event.message ?? "", code: event.code ?? 0 }));
source.addEventListener("message", (event) => {
  say({ [`event${event.lastEventId}`]: event.data, id: Number(event.lastEventId) });
});
