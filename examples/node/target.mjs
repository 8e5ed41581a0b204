// The files of one target: small ones in one request, large ones in frames.

import { decode, encode } from "@msgpack/msgpack";
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "./crc.mjs";
import { Problem } from "./problem.mjs";

const [WRITE, COMMIT, ABORT, FETCH, CLOSE, DATA, ANSWER] = [1, 2, 3, 4, 5, 16, 17];
const HEAD = 13;
const ROOM = 4_096; // what of a message is not the object's
const WINDOW = 4;
const TRIES = 5;
const SKEW = 2;
const AGAIN = new Set(["bus-unavailable", "unavailable", "garbled"]);

const sha256 = (data) => createHash("sha256").update(data);

export class Target {
  constructor(bus, name, hold) {
    Object.assign(this, { bus, name, hold });
  }

  /** The names and sizes of all files below a folder. */
  async list(folder) {
    const found = [];
    let page = { listing: "", cursor: "" };
    do {
      try {
        page = await this.#ask("find", { path: folder, listing: page.listing, cursor: page.cursor });
      } catch (error) {
        if (error.code === "not-found") return [];
        throw error;
      }
      for (const [path, size, type] of page.items) if (type === "file") found.push({ path, size });
    } while (page.cursor);
    return found;
  }

  async exists(path) {
    try {
      return Boolean(await this.#ask("info", { path }));
    } catch (error) {
      if (error.code !== "not-found") throw error;
      return false;
    }
  }

  /** Bytes `start` to `end` (exclusive), by default all. */
  load(path, start = 0, end = null) {
    return this.#twice(() => this.#load(path, start, end));
  }

  /** A new file. One that is there with the same bytes counts as written: a repeat finds it so. */
  async save(path, data) {
    try {
      await this.#twice(() => this.#save(path, data));
    } catch (error) {
      if (error.code !== "already-exists" || !data.equals(await this.load(path))) throw error;
    }
  }

  /** Goes on when the work has to stop, as long as there is a grant. */
  remove(path) {
    return this.#ask("rm", { path }, () => {}).catch((error) => {
      if (error.code !== "not-found") throw error;
    });
  }

  async #load(path, start, end) {
    const answer = await this.#ask("read", { path, start, end, digest: true, max_payload: this.bus.maxPayload });
    if (answer.data) return Buffer.from(answer.data);
    const data = Buffer.alloc(answer.size);
    const subject = this.#dataSubject(answer);
    await this.#frames(subject, answer, async (offset, size) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(size);
      const frame = await this.#send(subject, FETCH, offset, length);
      if (frame.kind !== DATA || frame.rest.length !== size) throw new Problem("corrupt", `not the frame asked for`);
      frame.rest.copy(data, offset);
    });
    const { rest } = await this.#send(subject, CLOSE, answer.size);
    if (!sha256(data).digest().equals(rest)) throw new Problem("corrupt", `${path} was damaged on its way`);
    return data;
  }

  async #save(path, data) {
    if (data.length + Buffer.byteLength(path) <= this.bus.maxPayload - ROOM) {
      await this.#ask("put", { path, data, mode: "create" });
      return;
    }
    const request = { path, mode: "create", size: data.length, max_payload: this.bus.maxPayload };
    const answer = { ...(await this.#ask("open", request)), size: data.length };
    const subject = this.#dataSubject(answer);
    await this.#frames(subject, answer, (offset, size) =>
      this.#send(subject, WRITE, offset, data.subarray(offset, offset + size)),
    );
    await this.hold.ready();
    const commit = { size: data.length, sha256: sha256(data).digest("hex"), grant: this.hold.grant, v: 1 };
    await this.#send(subject, COMMIT, data.length, Buffer.from(encode(commit)), 300_000);
  }

  #dataSubject({ replica, transfer }) {
    return `data.${this.name}.${replica}.${this.bus.user}.${transfer}`;
  }

  /** `work` for each frame of a transfer, some at a time; where one fails the target is told to forget it. */
  async #frames(subject, { size, frame }, work) {
    let next = 0;
    const some = async () => {
      while (next < size) {
        const offset = next;
        next += frame;
        await this.hold.ready();
        await work(offset, Math.min(frame, size - offset));
      }
    };
    try {
      await Promise.all(Array.from({ length: WINDOW }, some));
    } catch (error) {
      next = size;
      await this.bus.request(subject, pack(ABORT, 0), 2_000).catch(() => {});
      throw error;
    }
  }

  async #send(subject, kind, offset, rest = Buffer.alloc(0), timeout = 20_000) {
    return this.#tries(async () => {
      const sent = Date.now();
      const frame = unpack(await this.bus.request(subject, pack(kind, offset, rest), timeout));
      if (frame.kind === ANSWER) judge(decode(frame.rest), sent);
      return frame;
    }, (error) => error.code === "bus-unavailable" || error.code === "garbled");
  }

  /** A control operation, under the newest grant; one that the target found run out is waited out. */
  async #ask(operation, request, ready = () => this.hold.ready()) {
    const subject = `fs.${this.name}.${operation}.${this.bus.user}`;
    return this.#tries(
      async () => {
        await ready();
        const { grant } = this.hold;
        const sent = Date.now();
        const answer = unseal(await this.bus.request(subject, seal({ ...request, grant, v: 1 }), 20_000));
        if (answer.failure?.code === "attempt-over") this.hold.lapse(grant);
        return judge(answer, sent);
      },
      (error) => AGAIN.has(error.code) || error.code === "attempt-over",
    );
  }

  async #tries(work, again) {
    for (let failures = 1; ; failures++) {
      try {
        return await work();
      } catch (error) {
        if (failures === TRIES || this.hold.isOver || !again(error)) throw error;
        await sleep(250 * failures);
      }
    }
  }

  /** A transfer that the target lost, that was damaged, or whose grant ran out, begins again once. */
  #twice(work) {
    return work().catch((error) => {
      if (AGAIN.has(error.code) || error.code === "corrupt" || error.code === "attempt-over") return work();
      throw error;
    });
  }
}

function seal(message) {
  const body = Buffer.from(encode(message));
  const sealed = Buffer.alloc(4 + body.length);
  sealed.writeUInt32BE(crc32(body));
  body.copy(sealed, 4);
  return sealed;
}

function unseal(raw) {
  const sealed = Buffer.from(raw.buffer, raw.byteOffset, raw.length);
  const body = sealed.subarray(4);
  if (sealed.length < 4 || sealed.readUInt32BE() !== crc32(body)) throw new Problem("garbled", "an answer was damaged");
  return decode(body);
}

function pack(kind, offset, rest = Buffer.alloc(0)) {
  const head = Buffer.alloc(HEAD);
  head.writeUInt8(kind);
  head.writeBigUInt64BE(BigInt(offset), 1);
  const crc = crc32(head.subarray(0, 9));
  head.writeUInt32BE(kind === WRITE ? crc : crc32(rest, crc), 9);
  return Buffer.concat([head, rest]);
}

function unpack(raw) {
  const frame = Buffer.from(raw.buffer, raw.byteOffset, raw.length);
  const rest = frame.subarray(HEAD);
  if (frame.length < HEAD || frame.readUInt32BE(9) !== crc32(rest, crc32(frame.subarray(0, 9)))) {
    throw new Problem("garbled", "a frame was damaged on its way");
  }
  return { kind: frame.readUInt8(), rest };
}

function judge(answer, sent) {
  const [before, after] = [sent / 1_000 - SKEW, Date.now() / 1_000 + SKEW];
  if (answer.clock < before || answer.clock > after) {
    throw new Problem("clock-skew", "the target's clock is not ours", "set the clocks of both machines");
  }
  if (answer.failure) throw new Problem(answer.failure.code, answer.failure.message, answer.failure.hint);
  return answer;
}
