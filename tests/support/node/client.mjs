// Publishes one job and waits for its end, as any edge service in Node would: transport-node and nothing of Snappy's.
// usage: node client.mjs COMMAND-SUBJECT BODY, with NATS_URL and, where the server asks, NATS_USER and NATS_PASSWORD.
// Prints the durable receipt and then the event that ended the job, a line of JSON each.
import { connect } from "@nats-io/transport-node";

const [subject, body] = process.argv.slice(2);
const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass } = process.env;
const inboxPrefix = user ? `_INBOX.${user}` : "_INBOX";
const connection = await connect({ servers, inboxPrefix, ...(user ? { user, pass } : {}) });

const [prefix] = subject.split(".");
const { request } = JSON.parse(body);
const ends = new Set(["succeeded", "failed", "cancelled", "rejected"]);
const events = connection.subscribe(`${prefix}.event.>`);
await connection.flush();

const receipt = await connection.request(subject, body, { timeout: 10_000 });
console.log(receipt.string());

for await (const message of events) {
  const event = message.json();
  if (event.request === request && ends.has(message.subject.split(".")[3])) {
    console.log(JSON.stringify(event));
    break;
  }
}
await connection.drain();
