// A restic repository, format version 2: opened or made, read, written to. What is written here is not compressed, which
// the format allows; what others compressed is read.

import { decompress } from "fzstd";
import { createHash, randomBytes } from "node:crypto";
import { Locks } from "./locks.mjs";
import { randomPolynomial } from "./polynomial.mjs";
import { Problem } from "./problem.mjs";
import { Key } from "./seal.mjs";

const PACK = 16 << 20;
const PACKS_PER_INDEX = 8;
const COMPRESSED = 2;
const TYPES = { data: 0, tree: 1 };
const COST = { N: 32_768, r: 8, p: 5 };

const hash = (data) => createHash("sha256").update(data).digest("hex");
const packPath = (id) => `data/${id.slice(0, 2)}/${id}`;

export class Repository {
  #blobs = new Map(); // id: where it lies
  #open = { data: newPack(), tree: newPack() };
  #unlisted = []; // packs that are stored, and in no index file yet

  constructor(target, key, config) {
    Object.assign(this, { target, key, id: config.id, stored: 0, added: 0 });
  }

  static async open(target, password) {
    const sealed = await loadConfig(target);
    const key = await findKey(target, password);
    if (!key) throw new Problem("wrong-password", "no key of the repository opens with this password");
    return new Repository(target, key, JSON.parse(key.open(sealed)));
  }

  /** A key first, the configuration last: that makes it a repository. Of several who try, one wins. */
  static async init(target, password) {
    if (await target.exists("config")) throw new Problem("repository-exists", "there is a repository", "use it as it is");
    const found = await findKey(target, password);
    const key = found ?? Key.random();
    const made = found ? null : await saveKey(target, password, key);
    const config = { version: 2, id: randomBytes(32).toString("hex"), chunker_polynomial: randomPolynomial() };
    try {
      await target.save("config", key.seal(Buffer.from(JSON.stringify(config))));
    } catch (error) {
      if (made) await target.remove(made);
      if (error.code === "already-exists") throw new Problem("repository-exists", "another was faster", "use theirs");
      throw error;
    }
    return new Repository(target, key, config);
  }

  // ---- documents: index files, snapshots, locks

  async saveDocument(folder, document) {
    const sealed = this.key.seal(Buffer.from(JSON.stringify(document)));
    const name = hash(sealed);
    await this.target.save(`${folder}/${name}`, sealed);
    return name;
  }

  async loadDocument({ path }) {
    const sealed = await this.target.load(path);
    if (hash(sealed) !== path.slice(-64)) throw new Problem("damaged", `${path} is not what its name says`);
    const plain = this.key.open(sealed);
    return JSON.parse(Buffer.from(plain[0] === COMPRESSED ? decompress(plain.subarray(1)) : plain));
  }

  /** Hold a lock while `work` goes on. */
  locked(work) {
    return new Locks(this).held(work);
  }

  // ---- snapshots

  async snapshots() {
    const files = await this.target.list("snapshots");
    const load = async (file) => ({ ...(await this.loadDocument(file)), id: file.path.slice(-64) });
    const found = await Promise.all(files.map(load));
    return found.sort((one, other) => Date.parse(one.time) - Date.parse(other.time));
  }

  async findSnapshot({ snapshot = "latest", host, paths = [] }) {
    const found = (await this.snapshots()).filter((one) =>
      snapshot === "latest"
        ? (!host || one.hostname === host) && paths.every((path) => one.paths?.includes(path))
        : one.id.startsWith(snapshot),
    );
    if (!found.length || (snapshot !== "latest" && found.length > 1)) {
      throw new Problem("snapshot-not-found", `no snapshot, or more than one, is meant by ${snapshot}`);
    }
    return found.at(-1);
  }

  /** Only when all is stored and listed, and `check` finds the lock standing. */
  async saveSnapshot(snapshot, check) {
    await this.#storePack("data");
    await this.#storePack("tree");
    check();
    await this.#saveIndex();
    check();
    return this.saveDocument("snapshots", snapshot);
  }

  // ---- blobs

  async loadIndex() {
    for (const file of await this.target.list("index")) {
      const { packs } = await this.loadDocument(file);
      for (const pack of packs ?? []) for (const blob of pack.blobs) this.#blobs.set(blob.id, { ...blob, pack: pack.id });
    }
  }

  async blob(id) {
    const place = this.#blobs.get(id);
    if (!place) throw new Problem("damaged", `no index file knows the blob ${id}`);
    const sealed = await this.target.load(packPath(place.pack), place.offset, place.offset + place.length);
    const opened = this.key.open(sealed);
    const plain = place.uncompressed_length ? Buffer.from(decompress(opened)) : opened;
    if (hash(plain) !== id) throw new Problem("damaged", `the blob ${id} is not what its name says`);
    return plain;
  }

  /** The id of a blob of the type `data` or `tree`, which is stored unless it is there. */
  async save(type, plain) {
    const id = hash(plain);
    if (this.#blobs.has(id)) return id;
    const [pack, sealed] = [this.#open[type], this.key.seal(plain)];
    const blob = { id, type, offset: pack.size, length: sealed.length };
    pack.blobs.push(blob);
    pack.parts.push(sealed);
    pack.size += sealed.length;
    this.added += plain.length;
    this.#blobs.set(id, blob);
    if (pack.size >= PACK) await this.#storePack(type);
    return id;
  }

  async #storePack(type) {
    const { blobs, parts } = this.#open[type];
    if (!blobs.length) return;
    this.#open[type] = newPack();
    const header = this.key.seal(Buffer.concat(blobs.map(headerEntry)));
    const data = Buffer.concat([...parts, header, lengthOf(header)]);
    const id = hash(data);
    await this.target.save(packPath(id), data);
    this.stored += data.length;
    this.#unlisted.push({ id, blobs });
    if (this.#unlisted.length >= PACKS_PER_INDEX) await this.#saveIndex();
  }

  async #saveIndex() {
    if (this.#unlisted.length) await this.saveDocument("index", { packs: this.#unlisted });
    this.#unlisted = [];
  }
}

const newPack = () => ({ blobs: [], parts: [], size: 0 });

function headerEntry({ type, length, id }) {
  const entry = Buffer.alloc(37);
  entry.writeUInt8(TYPES[type]);
  entry.writeUInt32LE(length, 1);
  entry.write(id, 5, "hex");
  return entry;
}

function lengthOf(header) {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(header.length);
  return length;
}

// ---- how it begins

async function loadConfig(target) {
  try {
    return await target.load("config");
  } catch (error) {
    if (error.code !== "not-found") throw error;
    throw new Problem("not-a-repository", "there is no repository at the target", "a job of the kind init makes one");
  }
}

/** The master key, from the first key file that opens with the password. */
async function findKey(target, password) {
  for (const { path } of await target.list("keys")) {
    const file = JSON.parse(await target.load(path));
    const sealing = await Key.ofPassword(password, file);
    try {
      return Key.ofJson(sealing.open(Buffer.from(file.data, "base64")));
    } catch (error) {
      if (error.code !== "unauthentic") throw error;
    }
  }
  return null;
}

async function saveKey(target, password, key) {
  const salt = randomBytes(64).toString("base64");
  const sealing = await Key.ofPassword(password, { salt, ...COST });
  const data = sealing.seal(Buffer.from(key.toJson())).toString("base64");
  const about = { created: new Date().toISOString(), username: "", hostname: "", kdf: "scrypt", ...COST, salt, data };
  const file = Buffer.from(JSON.stringify(about));
  const path = `keys/${hash(file)}`;
  await target.save(path, file);
  return path;
}
