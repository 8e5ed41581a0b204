// The right to work on one attempt: kept fresh here, and asked for before each step of the work.

import { setTimeout as sleep } from "node:timers/promises";
import { Problem } from "./problem.mjs";

const now = () => performance.now() / 1_000;

export class Hold {
  #ending = new AbortController();
  #locks = [];
  #over = false;
  #turn = Promise.resolve();

  /** `claimed` is the answer to the claim that was sent `asked` seconds after the process began. */
  constructor(bus, replica, claimed, asked) {
    Object.assign(this, { bus, replica, job: claimed.job, attempt: claimed.attempt });
    this.#extend(claimed, asked);
  }

  static now = now;

  /** Why the work has to stop, if it has to. */
  get reason() {
    return this.#ending.signal.reason;
  }

  /** Nothing may be touched or reported any more. */
  get isOver() {
    return this.#over;
  }

  end(problem) {
    if (problem.code === "attempt-over") this.#over = true;
    this.#ending.abort(problem);
  }

  /** Returns when work may go on; throws the reason why it may not. */
  async ready() {
    while (!this.reason && now() >= this.validUntil) await sleep(100);
    this.#ending.signal.throwIfAborted();
  }

  /** A target says that this grant ran out. */
  lapse(grant) {
    if (grant === this.grant) this.validUntil = 0;
  }

  /** Renew in time until `done.aborted`, also after a cancel: what is left at the target needs a grant to go. */
  async keep(done) {
    while (!done.aborted && !this.#over) {
      const late = now() >= this.validUntil;
      await sleep(late ? 1_000 : (this.seconds * 1_000) / 3, undefined, { signal: done }).catch(() => {});
      if (!done.aborted) await this.#renew().catch((error) => console.error(`not renewed: ${error.message}`));
    }
  }

  /** Work with the names of those of `locks` that nobody holds; meanwhile the grant allows to remove them. */
  async removing(locks, work) {
    this.#locks = locks;
    try {
      return await work(await this.#renew());
    } finally {
      this.#locks = [];
    }
  }

  release() {
    return this.bus.ask(`hold.release.${this.bus.user}.${this.replica}`, this.#request).catch(() => {});
  }

  get #request() {
    return { job: this.job.id, attempt: this.attempt, locks: this.#locks };
  }

  /** One at a time: an older answer must not take the place of a newer one. */
  #renew() {
    const renewal = this.#turn.then(() => this.#renewNow());
    this.#turn = renewal.catch(() => {});
    return renewal;
  }

  async #renewNow() {
    const asked = now();
    try {
      const answer = await this.bus.ask(`hold.renew.${this.bus.user}.${this.replica}`, this.#request);
      if (answer.cancel) this.end(new Problem("cancelled", "the job was cancelled"));
      this.#extend(answer, asked);
      return answer.locks ?? [];
    } catch (error) {
      if (error.code === "attempt-over") this.end(error);
      throw error;
    }
  }

  #extend(answer, asked) {
    this.grant = answer.grant;
    this.seconds = Math.max(0, answer.deadline - answer.clock);
    this.validUntil = asked + this.seconds;
  }
}
