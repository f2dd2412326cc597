// Builds the demo page into build/demo/, or into the folder that is named. The package is not
// bundled into it: the page imports the files of dist/ as they are published, from the folder
// dandelion/ beside it.
import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "..");
process.chdir(ROOT);

const TARGET = process.argv[2] ?? "build/demo";
const ENTRY = { "dandelion-browser": "index", "dandelion-browser/inspect": "inspect" };

/** The package's entry points, by the names under which others import them. */
const asPublished = {
  name: "as-published",
  setup(build) {
    build.onResolve({ filter: /^dandelion-browser/ }, ({ path }) => ({
      path: `./dandelion/${ENTRY[path]}.js`,
      external: true,
    }));
  },
};

for (const entry of Object.values(ENTRY)) {
  if (!existsSync(`dist/${entry}.js`)) throw new Error(`dist/${entry}.js is missing: build first`);
}
rmSync(TARGET, { recursive: true, force: true });
mkdirSync(TARGET, { recursive: true });
await esbuild.build({
  absWorkingDir: ROOT,
  entryPoints: ["demo/page.ts"],
  outdir: TARGET,
  bundle: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  logLevel: "warning",
  plugins: [asPublished],
});
for (const file of ["index.html", "left.html", "style.css", "icon.svg"]) {
  cpSync(`demo/${file}`, `${TARGET}/${file}`);
}
cpSync("dist", `${TARGET}/dandelion`, {
  recursive: true,
  filter: (path) => !path.startsWith("dist/types"),
});
