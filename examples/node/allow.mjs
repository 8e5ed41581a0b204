// What a submitter may ask for: the rules of `[source.<service>.allow.<submitter>]`.

import { realpathSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { Problem } from "./problem.mjs";

export function check(settings, submitter, { kind, target, plugin, reads = [], writes = [] }) {
  const rule = settings.allow?.[submitter] ?? settings.allow?.["*"] ?? {};
  const listed = (what, name, names = []) => {
    if (!names.includes(name) && !names.includes("*")) refuse(submitter, `ask for the ${what} ${name}`);
  };
  listed("kind", kind, rule.kinds);
  listed("target", target, rule.targets);
  if (plugin) listed("plug-in", plugin, rule.plugins);
  within(submitter, "read", reads, rule.read ?? []);
  within(submitter, "restore to", writes, [...(rule.restore_to ?? []), ...(settings.scratch ? [settings.scratch] : [])]);
}

/** Each place as it is written, and as it is when all symlinks were followed. */
function within(submitter, verb, asked, allowed) {
  if (allowed.includes("*")) return;
  const real = allowed.map(followed);
  const names = [...real, ...allowed.map((place) => resolve(place))];
  for (const place of asked) {
    if (!isIn(followed(place), real) || !isIn(resolve(place), names)) refuse(submitter, `${verb} ${place}`);
  }
}

const isIn = (path, places) => places.some((place) => path === place || place === "/" || path.startsWith(`${place}/`));

/** What is not there yet counts as what its nearest existing parent leads to. */
function followed(path) {
  try {
    return realpathSync(path);
  } catch (error) {
    if (error.code !== "ENOENT" || dirname(path) === path) throw error;
    return resolve(followed(dirname(path)), path.slice(dirname(path).length).replace(/^\//, ""));
  }
}

function refuse(submitter, what) {
  throw new Problem("denied", `${submitter} may not ${what} here`, "the service's configuration lists what it may");
}
