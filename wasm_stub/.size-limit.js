// What may be loaded, gzip -9. The two module figures are the sums of their files.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** A built module and all that it imports statically. */
function loaded(file, found = new Set()) {
  if (found.has(file)) return found;
  found.add(file);
  for (const [, path] of readFileSync(file, "utf8").matchAll(/(?:from|import)"(\.[^"]*)"/g)) {
    loaded(join(dirname(file), path), found);
  }
  return found;
}

const index = "dist/index.js";
const [, joining] = /import\("([^"]*joining[^"]*)"\)/.exec(readFileSync(index, "utf8"));
const visit = loaded(index);
const all = loaded(join("dist", joining), new Set(visit));

export default [
  { name: "modules, each visit", path: [...visit], gzip: true, limit: "8.3 kB" },
  { name: "modules, a visit that answers a round", path: [...all], gzip: true, limit: "17.2 kB" },
  { name: "one script with all of it", path: "dist/dandelion.iife.js", gzip: true, limit: "16.1 kB" },
];
