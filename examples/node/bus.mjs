// A connection to NATS: requests, what must be stored, and one call at a time from the work queue.

import { connect, createInbox, headers } from "@nats-io/transport-node";
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Problem } from "./problem.mjs";

const ANSWER = 5_000;
const PULL = 5_000;

export const token = (bytes) => randomBytes(bytes).toString("hex");

export class Bus {
  static async connect({ url, user, password }, prefix) {
    const inboxPrefix = `_INBOX.${user}`;
    const options = { servers: url, user, pass: password, name: user, inboxPrefix, maxReconnectAttempts: -1 };
    return new Bus(await connect(options), user, prefix);
  }

  constructor(nats, user, prefix) {
    Object.assign(this, { nats, user, prefix });
    this.stream = `${prefix.toUpperCase().replaceAll("-", "_")}_WORK`;
  }

  get maxPayload() {
    return this.nats.info.max_payload;
  }

  /** The bytes of the answer. */
  async request(subject, body, timeout = ANSWER) {
    try {
      return (await this.nats.request(`${this.prefix}.${subject}`, body, { timeout })).data;
    } catch (error) {
      throw new Problem("bus-unavailable", `no answer on ${this.prefix}.${subject}: ${error.message}`);
    }
  }

  /** A core's answer; its error is thrown. */
  async ask(subject, message) {
    const answer = JSON.parse(Buffer.from(await this.request(subject, JSON.stringify(message))));
    if (answer.error) throw new Problem(answer.error.code, answer.error.message, answer.error.hint);
    return answer;
  }

  tell(subject, message) {
    this.nats.publish(`${this.prefix}.${subject}`, JSON.stringify(message));
  }

  /** Until the message is stored, once, or `over()`. */
  async store(subject, message, over) {
    const header = headers();
    header.set("Nats-Msg-Id", token(16));
    const options = { timeout: ANSWER, headers: header };
    while (!over()) {
      try {
        const answer = (await this.nats.request(`${this.prefix}.${subject}`, JSON.stringify(message), options)).json();
        if (!answer.error) return;
        console.error(`not stored yet: ${answer.error.description}`);
      } catch (error) {
        console.error(`not stored yet: ${error.message}`);
      }
      await sleep(1_000);
    }
  }

  /** A call, or nothing if none came; `broken()` is awaited where the queue itself is in trouble. */
  async pull(broken, signal) {
    const inbox = createInbox(`_INBOX.${this.user}`);
    const answers = this.nats.subscribe(inbox, { max: 1, timeout: PULL + 1_000 });
    const leave = () => answers.unsubscribe();
    signal.addEventListener("abort", leave);
    try {
      const body = JSON.stringify({ batch: 1, expires: PULL * 1_000_000 });
      this.nats.publish(`$JS.API.CONSUMER.MSG.NEXT.${this.stream}.work-${this.user}`, body, { reply: inbox });
      for await (const message of answers) {
        const status = message.headers?.code ?? 0;
        if (!status) return message;
        if (![404, 408, 409].includes(status)) await broken();
      }
    } catch (error) {
      if (!signal.aborted) await broken();
    } finally {
      signal.removeEventListener("abort", leave);
      leave();
    }
  }
}
