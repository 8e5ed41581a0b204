// The plug-in `file`: one file whose writer replaces it in one step, as careful programs do. What is backed up is the file
// that stood there when it was opened.

import { open, link, lstat, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Problem } from "./problem.mjs";

const CHUNK = 1 << 20;
const FOLDER = (0o755 | 0x80000000) >>> 0; // Go's mode of a directory
const OLD = 3_600_000;

const PATH = { type: "string", pattern: "^/" };
const object = (required, properties) => ({ type: "object", additionalProperties: false, required, properties });
export const SCHEMAS = {
  backup: object(["path"], { path: { ...PATH, description: "an absolute path" } }),
  restore: object(["to"], {
    to: { ...PATH, description: "an absolute path, where nothing stands" },
    overwrite: { type: "boolean", default: false, description: "replace what stands there" },
  }),
};

/** Options that the schema allows. */
export function parse(options, { properties, required }) {
  const hint = `the options are ${Object.keys(properties).join(", ")}`;
  for (const name of required) if (!(name in options)) throw new Problem("bad-options", `${name} is missing`, hint);
  for (const [name, value] of Object.entries(options)) {
    const { type, pattern = "" } = properties[name] ?? {};
    if (typeof value !== type) throw new Problem("bad-options", `${name} is no option, or no ${type}`, hint);
    if (type === "string" && (!value.match(pattern) || value !== join(value) || value.endsWith("/"))) {
      throw new Problem("bad-options", `${name} is no absolute path of a file`, hint);
    }
  }
  return options;
}

// ---- backup

/** Whether there is something to back up. */
export async function look({ path }) {
  await (await open(path)).close();
}

/** The id of the root tree. */
export async function backup(repository, { path }, progress, ready) {
  const file = await open(path);
  try {
    const about = await file.stat();
    if (!about.isFile()) throw new Problem("bad-options", `${path} is no file`, "the plug-in files backs up folders");
    const content = [];
    for (let size = 1; size; ) {
      const chunk = Buffer.alloc(CHUNK);
      size = await fill(file, chunk);
      if (size) content.push(await repository.save("data", chunk.subarray(0, size)));
      progress.bytes += size;
      await ready();
    }
    return await trees(repository, path, fileNode(path, about, content, progress.bytes));
  } finally {
    await file.close();
  }
}

/** A chunk always begins where it began the last time, however few bytes a read gives. */
async function fill(file, chunk) {
  let size = 0;
  for (let read = 1; read && size < chunk.length; size += read) {
    read = (await file.read(chunk, size, chunk.length - size)).bytesRead;
  }
  return size;
}

/** The trees from the file up to the root. */
async function trees(repository, path, node) {
  const subtree = await repository.save("tree", Buffer.from(`${JSON.stringify({ nodes: [node] })}\n`));
  const folder = dirname(path);
  return folder === "/" ? subtree : trees(repository, folder, folderNode(folder, subtree));
}

// Names are quoted as Go does it, of which JSON's escapes are a part.
const nameOf = (path) => JSON.stringify(basename(path)).slice(1, -1);

function fileNode(path, { mode, mtime, atime, ctime, uid, gid }, content, size) {
  return { name: nameOf(path), type: "file", mode: mode & 0o777, mtime, atime, ctime, uid, gid, size, links: 1, content };
}

function folderNode(path, subtree) {
  const never = "0001-01-01T00:00:00Z";
  const times = { mtime: never, atime: never, ctime: never };
  return { name: nameOf(path), type: "dir", mode: FOLDER, ...times, uid: 0, gid: 0, content: null, subtree };
}

// ---- restore

/** Under a temporary name first, which says whose it is: the job's next attempt begins with it anew. */
export async function restore(repository, snapshot, { to, overwrite = false }, progress, job, ready) {
  const node = await find(repository, snapshot);
  if (!overwrite && (await exists(to))) throw new Problem("already-exists", `${to} exists`, "set overwrite, or name another");
  await removeOld(to);
  const temporary = join(dirname(to), `.${basename(to)}.snappy-${job}`);
  try {
    await write(repository, node, temporary, progress, ready);
    await (overwrite ? rename(temporary, to) : link(temporary, to)); // a link fails where something stands
  } finally {
    await rm(temporary, { force: true });
  }
}

async function write(repository, node, path, progress, ready) {
  const file = await open(path, "w", 0o600);
  try {
    for (const id of node.content) {
      const chunk = await repository.blob(id);
      await file.writeFile(chunk);
      progress.bytes += chunk.length;
      await ready();
    }
    await file.chmod(node.mode & 0o777);
    await file.utimes(new Date(node.atime), new Date(node.mtime));
    await file.sync();
  } finally {
    await file.close();
  }
}

/** The one file of a snapshot. */
async function find(repository, { tree, paths }) {
  for (let id = tree; ; ) {
    const { nodes } = JSON.parse(await repository.blob(id));
    if (nodes.length !== 1) throw new Problem("bad-options", `${paths} is more than a file`, "use the plug-in files");
    if (nodes[0].type === "file") return nodes[0];
    id = nodes[0].subtree;
  }
}

/** What jobs left that were killed, and never tried again. */
async function removeOld(to) {
  const begin = `.${basename(to)}.snappy-`;
  for (const name of await readdir(dirname(to))) {
    const path = join(dirname(to), name);
    if (name.startsWith(begin) && Date.now() - (await lstat(path)).mtimeMs > OLD) await rm(path);
  }
}

async function exists(path) {
  return lstat(path).then(() => true, (error) => {
    if (error.code !== "ENOENT") throw error;
    return false;
  });
}
