// The lock that stands while a repository is written to; those that dead attempts left are removed first.

import { setTimeout as sleep } from "node:timers/promises";
import { Problem } from "./problem.mjs";

const SETTLE = 200;
const REFRESH = 5 * 60_000;
const LOST = 20 * 60_000;
const STALE = 30 * 60_000;
const ASKED_AT_ONCE = 16;

export class Locks {
  #path = "";
  #written = 0;

  constructor(repository) {
    Object.assign(this, { repository, target: repository.target, hold: repository.target.hold });
  }

  async held(work) {
    await this.#removeDead();
    await this.#look();
    await this.#write();
    const refreshing = setInterval(() => this.#refresh().catch((error) => console.error(error.message)), REFRESH);
    try {
      await sleep(SETTLE);
      await this.#look();
      return await work(() => this.#check());
    } finally {
      clearInterval(refreshing);
      await this.#remove(this.#path).catch((error) => console.error(`a lock is left: ${error.message}`));
    }
  }

  /** Whoever wrote no new lock for so long may be ignored by others, and must not show anything any more. */
  #check() {
    if (Date.now() - this.#written > LOST) throw new Problem("locked", "our lock on the repository is lost");
  }

  async #write() {
    const { job, attempt, bus, replica } = this.hold;
    const hostname = `${bus.prefix}.${bus.user}.${replica}`;
    const snappy = { job: job.id, attempt };
    const now = Date.now();
    const lock = { time: new Date(now).toISOString(), exclusive: false, hostname, username: "", pid: process.pid, snappy };
    this.#path = `locks/${await this.repository.saveDocument("locks", lock)}`;
    this.#written = now;
  }

  async #refresh() {
    this.#check();
    const old = this.#path;
    await this.#write();
    await this.#remove(old);
  }

  /** A target that was started anew does not know who wrote the lock. */
  async #remove(path) {
    try {
      await this.target.remove(path);
    } catch (error) {
      if (error.code !== "access-denied") throw error;
      const { job, attempt } = this.hold;
      const ours = [{ name: path.slice(-64), job: job.id, attempt, refreshed: this.#written / 1_000 }];
      await this.hold.removing(ours, () => this.target.remove(path));
    }
  }

  async #read() {
    const found = [];
    for (const file of await this.target.list("locks")) {
      try {
        found.push({ ...(await this.repository.loadDocument(file)), name: file.path.slice(-64) });
      } catch (error) {
        if (error.code !== "not-found") throw error; // else it was removed meanwhile
      }
    }
    return found;
  }

  async #removeDead() {
    const left = (await this.#read()).filter((lock) => lock.snappy);
    for (let start = 0; start < left.length; start += ASKED_AT_ONCE) {
      const some = left.slice(start, start + ASKED_AT_ONCE);
      const asked = some.map(({ name, snappy, time }) => ({ name, ...snappy, refreshed: Date.parse(time) / 1_000 }));
      await this.hold.removing(asked, async (dead) => {
        for (const name of dead) await this.target.remove(`locks/${name}`);
      });
    }
  }

  async #look() {
    const inTheWay = (lock) => lock.exclusive && Date.now() - Date.parse(lock.time) < STALE;
    const other = (await this.#read()).find(inTheWay);
    if (other) throw new Problem("locked", `the repository is locked by ${other.hostname}`, "wait for it");
  }
}
