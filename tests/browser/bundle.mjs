// Bundles what a test page needs of the package's sources and tests, beyond what it ships:
//
//     node tests/browser/bundle.mjs OUT.js
//
// The bundle exports the vectors' runner, both kernels, and the choice between them.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateRawSync } from "node:zlib";

const PACKAGE = join(dirname(fileURLToPath(import.meta.url)), "../../wasm_stub");
const WASM = join(PACKAGE, "build/kernel.wasm");
const esbuild = createRequire(join(PACKAGE, "package.json"))("esbuild");

const ENTRY = `
  export { runVectors } from "./test/vectors.ts";
  export { kernel as fallback } from "./src/kernel/fallback.ts";
  export { loadKernel } from "./src/kernel/load.ts";
`;

/** As in build.mjs: the kernel, deflated, in base64. */
const inlineWasm = {
  name: "inline-wasm",
  setup(build) {
    build.onResolve({ filter: /^wasm:kernel$/ }, () => ({ path: "kernel", namespace: "wasm" }));
    build.onLoad({ filter: /.*/, namespace: "wasm" }, () => {
      if (!existsSync(WASM)) throw new Error("build/kernel.wasm is missing: run `make wasm`");
      const packed = deflateRawSync(readFileSync(WASM), { level: 9, memLevel: 9 });
      return { contents: packed.toString("base64"), loader: "text" };
    });
  },
};

await esbuild.build({
  stdin: { contents: ENTRY, resolveDir: PACKAGE, loader: "ts" },
  outfile: process.argv[2],
  bundle: true,
  format: "esm",
  target: "es2020",
  logLevel: "warning",
  plugins: [inlineWasm],
});
