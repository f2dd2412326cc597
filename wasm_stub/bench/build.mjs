// Builds what `make bench-browser` loads into build/bench/, and prints sizes as one JSON object:
// bytes and gzip -9 of the base SDK, and of Divvi Up's client bundled by the same tool.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateRawSync, gzipSync } from "node:zlib";
import * as esbuild from "esbuild";
import { loadedModules } from "../loaded.mjs";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "..");
process.chdir(ROOT);

const TARGET = "build/bench";
const PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark</title>';

/** As in build.mjs: the kernel, deflated, in base64. */
const inlineWasm = {
  name: "inline-wasm",
  setup(build) {
    build.onResolve({ filter: /^wasm:kernel$/ }, () => ({ path: "kernel", namespace: "wasm" }));
    build.onLoad({ filter: /.*/, namespace: "wasm" }, () => {
      const packed = deflateRawSync(readFileSync("build/kernel.wasm"), { level: 9, memLevel: 9 });
      return { contents: packed.toString("base64"), loader: "text" };
    });
  },
};

const common = { absWorkingDir: ROOT, bundle: true, target: "es2022", charset: "utf8", logLevel: "warning" };

function sizes(...files) {
  const contents = files.map((file) => readFileSync(file));
  return {
    bytes: contents.reduce((sum, content) => sum + content.length, 0),
    gzip: contents.reduce((sum, content) => sum + gzipSync(content, { level: 9 }).length, 0),
  };
}

rmSync(TARGET, { recursive: true, force: true });
mkdirSync(TARGET, { recursive: true });
await esbuild.build({
  ...common,
  entryPoints: ["bench/page.ts"],
  outfile: `${TARGET}/page.js`,
  format: "esm",
  plugins: [inlineWasm],
});
await esbuild.build({
  ...common,
  stdin: {
    contents: 'import { Task } from "@divviup/dap"; globalThis.Task = Task;',
    resolveDir: ROOT,
  },
  outfile: `${TARGET}/divviup.js`,
  format: "iife",
  minify: true,
});
writeFileSync(`${TARGET}/index.html`, PAGE);
const { visit, answer } = loadedModules();
console.log(
  JSON.stringify({
    visit: sizes(...visit),
    modules: sizes(...answer),
    script: sizes("dist/dandelion.iife.js"),
    divviup: sizes(`${TARGET}/divviup.js`),
  }),
);
