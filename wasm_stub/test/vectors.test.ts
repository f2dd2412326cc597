// The published vectors, run in Node against both kernels.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { kernel as fallback } from "../src/kernel/fallback.js";
import { loadKernel } from "../src/kernel/load.js";
import { NOT_A_BROWSERS, runVectors, type VectorFiles } from "./vectors.js";

const DIRECTORY = "../tests/vectors";

const files = Object.fromEntries(
  readdirSync(DIRECTORY)
    .filter((name) => name.endsWith(".json"))
    .map((name) => [
      name.slice(0, -".json".length),
      JSON.parse(readFileSync(`${DIRECTORY}/${name}`, "utf8")),
    ]),
) as VectorFiles;

const kernels = [fallback, await loadKernel([1, 2])];

test("the two kernels are the compiled one and the one in TypeScript", () => {
  assert.deepEqual(
    kernels.map(({ name }) => name),
    ["typescript", "wasm"],
  );
});

for (const kernel of kernels) {
  test(`${kernel.name}: every vector has the output or the token that the file says`, () => {
    assert.deepEqual(runVectors(kernel, files), []);
  });
}

test("what is left out is what only a helper does", () => {
  assert.deepEqual(Object.keys(NOT_A_BROWSERS).sort(), ["answer", "ask", "noise"]);
});

test("a runner that is shown a wrong vector says so, and so it does of a file too few", () => {
  const few = Object.fromEntries(Object.entries(files).map(([name, [first]]) => [name, [first!]]));
  assert.deepEqual(runVectors(fallback, few), []);
  const wrong = { ...few["plan"]![0]!, expect: "bad_plan", output: {} };
  assert.equal(runVectors(fallback, { ...few, plan: [wrong] }).length, 1);
  const { keys: _, ...fewer } = few;
  assert.equal(runVectors(fallback, fewer).length, 2);
});
