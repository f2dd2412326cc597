// Which built files a page loads, for all who weigh them.
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

/** On each visit, and on one that finds a round to answer. */
export function loadedModules() {
  const index = "dist/index.js";
  const [, joining] = /import\("([^"]*joining[^"]*)"\)/.exec(readFileSync(index, "utf8"));
  const visit = loaded(index);
  return { visit: [...visit], answer: [...loaded(join("dist", joining), new Set(visit))] };
}
