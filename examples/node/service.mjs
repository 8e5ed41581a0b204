// A replica of a source service: it lives, takes calls, and sees one attempt at a time through to its report.

import { setTimeout as sleep } from "node:timers/promises";
import { token } from "./bus.mjs";
import { Hold } from "./hold.mjs";
import { Problem } from "./problem.mjs";
import { schemas, work } from "./tasks.mjs";

const BEAT = 5_000;
const TELL = 250;
const CLAIMS = 4;

export class Service {
  #hold = null;
  #etag = "";
  #stop = new AbortController();

  constructor(bus, settings) {
    Object.assign(this, { bus, settings, replica: settings.replica || token(4), started: Date.now() / 1_000 });
  }

  async run() {
    while (!(await this.#beat()) && !this.#stop.signal.aborted) await sleep(500);
    const beating = setInterval(() => this.#beat(), BEAT);
    const control = this.bus.nats.subscribe(`${this.bus.prefix}.control.${this.bus.user}`, {
      callback: (_, message) => this.#onControl(message.json()),
    });
    while (!this.#stop.signal.aborted) {
      const call = await this.bus.pull(() => this.#broken(), this.#stop.signal);
      if (call) await this.#answer(call);
    }
    clearInterval(beating);
    control.unsubscribe();
    await this.bus.nats.drain();
  }

  stop() {
    this.#stop.abort();
    this.#hold?.end(new Problem("interrupted", "the service stops"));
  }

  async #beat() {
    const { bus, replica, started, settings } = this;
    const keys = Object.keys(settings.keys ?? {});
    const beat = { service: bus.user, replica, role: "source", version: "1.0", keys, started };
    const ask = async (plugins) => await bus.ask(`hold.beat.${bus.user}.${replica}`, { beat: { ...beat, ...plugins } });
    try {
      let answer = this.#etag ? await ask({ etag: this.#etag }) : {};
      if (!answer.etag) answer = await ask({ plugins: schemas() });
      this.#etag = answer.etag;
      return answer;
    } catch (error) {
      console.error(`no core heard us: ${error.message}`);
      return null;
    }
  }

  async #broken() {
    await sleep(500);
    await this.#beat();
  }

  #onControl({ verb, job }) {
    if (verb === "cancel" && this.#hold?.job.id === job) this.#hold.end(new Problem("cancelled", "the job was cancelled"));
  }

  /** Claim, and only then acknowledge: a call that was not answered comes again. */
  async #answer(call) {
    let hold;
    try {
      hold = await this.#claim();
    } catch (error) {
      console.error(`a call was not answered: ${error.message}`);
      call.respond(`-NAK {"delay": 1000000000}`);
      return;
    }
    call.respond("+ACK");
    if (!hold) return;
    this.#hold = hold;
    await this.#attempt(hold);
    this.#hold = null;
  }

  async #claim() {
    const nonce = token(16);
    for (let tried = 1; ; tried++) {
      const asked = Hold.now();
      try {
        const again = tried > 1;
        const answer = await this.bus.ask(`hold.claim.${this.bus.user}.${this.replica}`, { nonce, again });
        return answer.job ? new Hold(this.bus, this.replica, answer, asked) : null;
      } catch (error) {
        if (error.code !== "bus-unavailable" || tried === CLAIMS) throw error;
        await sleep(500);
      }
    }
  }

  async #attempt(hold) {
    const done = new AbortController();
    const progress = { files: 0, bytes: 0 };
    const helpers = [hold.keep(done.signal), this.#tell(hold, progress, done.signal)];
    try {
      const result = await work(this.bus, this.settings, hold, progress);
      await this.#report(hold, { kind: "succeeded", result });
    } catch (error) {
      await this.#ended(hold, hold.reason ?? Problem.of(error));
    } finally {
      done.abort();
      await Promise.all(helpers);
    }
  }

  async #ended(hold, problem) {
    console.error(`job ${hold.job.id}, attempt ${hold.attempt}: ${problem.code}: ${problem.message}`);
    if (hold.isOver) return;
    if (problem.code === "interrupted") await hold.release();
    else if (problem.code === "cancelled") await this.#report(hold, { kind: "cancelled" });
    else await this.#report(hold, { kind: problem.rejects ? "rejected" : "failed", error: problem.info });
  }

  #report(hold, told) {
    const report = { job: hold.job.id, attempt: hold.attempt, at: Date.now() / 1_000, ...told };
    return this.bus.store(`report.${this.bus.user}.${this.replica}`, report, () => hold.isOver);
  }

  /** Whenever it has changed. */
  async #tell(hold, progress, done) {
    for (let told = 0; !done.aborted; ) {
      await sleep(TELL, undefined, { signal: done }).catch(() => {});
      if (progress.bytes === told) continue;
      told = progress.bytes;
      this.bus.tell(`progress.${hold.job.id}`, { job: hold.job.id, attempt: hold.attempt, ...progress });
    }
  }
}
