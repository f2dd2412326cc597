// Builds the package into dist/, or with the argument `test` the Node tests into build/test/.
//
// The kernel comes from build/kernel.wasm, which `make wasm` makes. It goes into the JavaScript, so
// that one integrity hash covers all that runs and no second request is needed.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateRawSync, gzipSync } from "node:zlib";
import { execFileSync } from "node:child_process";
import * as esbuild from "esbuild";

const ROOT = dirname(fileURLToPath(import.meta.url));
process.chdir(ROOT);

const WASM = "build/kernel.wasm";
const ENTRIES = ["index", "worker"];
/**
 * Each in one file: what they have in common with the others would else be cut into files which a
 * page that only takes part would have to load one by one. A service worker may load nothing later.
 */
const APART = ["extension", "inspect"];
/** Loaded by `import()` when wanted. Each has a file name of its own, since the IIFE names it too. */
const LAZY = ["kernel/fallback", "sdk/explain"];

/** `import packed from "wasm:kernel"`: the kernel, deflated, in base64. */
const inlineWasm = {
  name: "inline-wasm",
  setup(build) {
    build.onResolve({ filter: /^wasm:kernel$/ }, () => ({ path: "kernel", namespace: "wasm" }));
    build.onLoad({ filter: /.*/, namespace: "wasm" }, () => {
      if (!existsSync(WASM)) throw new Error(`${WASM} is missing: run \`make wasm\``);
      const packed = deflateRawSync(readFileSync(WASM), { level: 9, memLevel: 9 });
      return { contents: packed.toString("base64"), loader: "text", watchFiles: [resolve(WASM)] };
    });
  },
};

/** In the IIFE, what is loaded lazily stays a file beside it, which `import()` finds by its URL. */
const lazyStaysOutside = {
  name: "lazy-stays-outside",
  setup(build) {
    build.onResolve({ filter: /^\./ }, ({ kind, path, resolveDir }) => {
      if (kind !== "dynamic-import") return undefined;
      const name = relative(resolve("src"), resolve(resolveDir, path));
      return { path: `./${name}`, external: true };
    });
  },
};

const common = {
  bundle: true,
  target: "es2020",
  charset: "utf8",
  logLevel: "warning",
  legalComments: "none",
};

async function buildModules(names, splitting) {
  await esbuild.build({
    ...common,
    entryPoints: Object.fromEntries(names.map((name) => [name, `src/${name}.ts`])),
    outdir: "dist",
    format: "esm",
    minify: true,
    splitting,
    chunkNames: "chunks/[name]-[hash]",
    plugins: [inlineWasm],
  });
}

async function buildPackage() {
  rmSync("dist", { recursive: true, force: true });
  await buildModules([...ENTRIES, ...LAZY], true);
  await buildModules(APART, false);
  await esbuild.build({
    ...common,
    entryPoints: ["src/iife.ts"],
    outfile: "dist/dandelion.iife.js",
    format: "iife",
    globalName: "dandelion",
    minify: true,
    plugins: [inlineWasm, lazyStaysOutside],
  });
  execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.build.json"], { stdio: "inherit" });
  for (const file of readdirSync("dist", { recursive: true }).sort()) {
    if (!file.endsWith(".js")) continue;
    const bytes = readFileSync(`dist/${file}`);
    const integrity = createHash("sha384").update(bytes).digest("base64");
    const packed = gzipSync(bytes, { level: 9 }).length;
    console.log(`${file}  ${bytes.length} bytes, ${packed} gzip -9  sha384-${integrity}`);
  }
}

async function buildTests() {
  rmSync("build/test", { recursive: true, force: true });
  const tests = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
  await esbuild.build({
    ...common,
    entryPoints: tests.map((name) => `test/${name}`),
    outdir: "build/test",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    format: "esm",
    target: "node20",
    splitting: true,
    packages: "external",
    sourcemap: "inline",
    plugins: [inlineWasm],
  });
}

await (process.argv[2] === "test" ? buildTests() : buildPackage());
