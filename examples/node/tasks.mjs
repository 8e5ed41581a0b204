// What is done for each kind of job.

import { readFile } from "node:fs/promises";
import * as allow from "./allow.mjs";
import * as file from "./file.mjs";
import { Problem } from "./problem.mjs";
import { Repository } from "./repository.mjs";
import { Target } from "./target.mjs";

const TAG = "snappy-job:";
const OF_ANY = "source target key request priority not_before deadline attempts time_limit duplicates bandwidth v";
const FIELDS = {
  init: OF_ANY,
  backup: `${OF_ANY} plugin options init force parent host tags compression`,
  restore: `${OF_ANY} plugin options snapshot host paths`,
};
const PLUGINS = { file };

/** The result. All that can be refused is refused before anything is touched. */
export async function work(bus, settings, hold, progress) {
  const { kind, command, submitter } = hold.job;
  const prepare = { init: prepareInit, backup: prepareBackup, restore: prepareRestore }[kind];
  if (!prepare) throw new Problem("invalid-command", `this service does no ${kind}`, "ask another one");
  allow.check(settings, submitter, { kind, target: command.target, plugin: kind === "init" ? "" : pluginOf(command) });
  checkFields(kind, command);
  const task = prepare(command);
  allow.check(settings, submitter, { kind, target: command.target, ...task });
  const password = await passwordOf(settings, command.key ?? "default");
  const target = new Target(bus, command.target, hold);
  const began = performance.now();
  const result = await task.run({ target, password, hold, progress, host: settings.host ?? bus.user });
  return { ...result, seconds: (performance.now() - began) / 1_000 };
}

/** What is asked for and cannot be done here is refused, not passed over. */
function checkFields(kind, command) {
  const known = FIELDS[kind].split(" ");
  const isAsked = (value) => value !== null && value !== false && value?.length !== 0;
  for (const [name, value] of Object.entries(command)) {
    if (!known.includes(name) && isAsked(value)) throw new Problem("bad-options", `this service does no ${name}`, "leave it out");
  }
}

const pluginOf = (command) => command.plugin ?? "files";

function loaded({ plugin = "files" }) {
  if (plugin in PLUGINS) return PLUGINS[plugin];
  throw new Problem("unknown-plugin", `there is no plug-in ${plugin} here`, `there is: ${Object.keys(PLUGINS)}`);
}

async function passwordOf(settings, name) {
  const secret = settings.keys?.[name];
  if (!secret) throw new Problem("unknown-key", `there is no key ${name} here`, `there is: ${Object.keys(settings.keys ?? {})}`);
  return (await readFile(secret.file, "utf8")).replace(/\r?\n$/, "");
}

// ---- init

function prepareInit() {
  const run = async ({ target, password }) => ({ repository: (await Repository.init(target, password)).id });
  return { run };
}

// ---- backup

function prepareBackup(command) {
  const plugin = loaded(command);
  const options = plugin.parse(command.options ?? {}, plugin.SCHEMAS.backup);
  if (command.tags?.some((tag) => tag.startsWith(TAG))) throw new Problem("bad-options", `${TAG} is not yours to give`);
  return { reads: [options.path], run: (shop) => backup(shop, command, plugin, options) };
}

async function backup({ target, password, hold, progress, host }, command, plugin, options) {
  const repository = await opened(target, password, command.init, () => plugin.look(options));
  return repository.locked(async (check) => {
    const tag = `${TAG}${hold.job.id}`;
    const before = hold.attempt > 1 ? (await repository.snapshots()).find((one) => one.tags?.includes(tag)) : null;
    if (before) return { ...resultOf(repository, before), bytes_processed: before.summary?.total_bytes_processed ?? 0 };
    await repository.loadIndex();
    const time = new Date();
    const tree = await plugin.backup(repository, options, progress, () => hold.ready());
    const snapshot = { time, tree, paths: [options.path], hostname: command.host ?? host, username: "" };
    snapshot.tags = [...(command.tags ?? []), tag];
    snapshot.summary = summary(repository, time, progress);
    const id = await repository.saveSnapshot(snapshot, check);
    const done = { files_new: 1, bytes_new: repository.added, bytes_stored: repository.stored };
    return { ...resultOf(repository, { ...snapshot, id }), ...done, bytes_processed: progress.bytes, bytes_read: progress.bytes };
  });
}

/** A source that is not there must not leave an empty repository. */
async function opened(target, password, init, look) {
  try {
    return await Repository.open(target, password);
  } catch (error) {
    if (error.code !== "not-a-repository" || !init) throw error;
  }
  await look();
  return Repository.init(target, password);
}

function summary(repository, began, { bytes }) {
  return {
    backup_start: began,
    backup_end: new Date(),
    files_new: 1,
    data_added: repository.added,
    data_added_packed: repository.stored,
    total_files_processed: 1,
    total_bytes_processed: bytes,
  };
}

function resultOf(repository, { id, hostname, paths, time }) {
  const seconds = new Date(time).getTime() / 1_000;
  return { snapshot: id, host: hostname, paths, time: seconds, repository: repository.id, files: 1 };
}

// ---- restore

function prepareRestore(command) {
  const plugin = loaded(command);
  const options = plugin.parse(command.options ?? {}, plugin.SCHEMAS.restore);
  return { writes: [options.to], run: (shop) => restore(shop, command, plugin, options) };
}

async function restore({ target, password, hold, progress }, command, plugin, options) {
  const repository = await Repository.open(target, password);
  const snapshot = await repository.findSnapshot(command);
  await repository.loadIndex();
  await plugin.restore(repository, snapshot, options, progress, hold.job.id, () => hold.ready());
  return { snapshot: snapshot.id, repository: repository.id, files: 1, bytes_processed: progress.bytes };
}

export const schemas = () => Object.fromEntries(Object.entries(PLUGINS).map(([name, { SCHEMAS }]) => [name, SCHEMAS]));
