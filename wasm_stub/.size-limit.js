// What may be loaded, gzip -9. The figures of the modules are the sums of their files.
import { loadedModules } from "./loaded.mjs";

const { visit, answer } = loadedModules();

export default [
  { name: "modules, each visit", path: visit, gzip: true, limit: "8.3 kB" },
  { name: "modules, a visit that answers a round", path: answer, gzip: true, limit: "17.2 kB" },
  { name: "one script with all of it", path: "dist/dandelion.iife.js", gzip: true, limit: "16.1 kB" },
];
