// What `make bench-browser` measures, inside one page. The numbers go back to
// tests/bench/bench_browser.py as samples in milliseconds.
//
// Operations that are compared are taken in turns, call by call, so that a busy machine slows all of
// them. Divvi Up's client makes a report of Prio3 with a proof that it is well-formed, which ours
// lacks; the two stand side by side because a page would use either for the same question.

import { Task } from "@divviup/dap";
import { kernel as typescript } from "../src/kernel/fallback.js";
import { BASE_POINT, type Kernel } from "../src/kernel/kernel.js";
import { loadKernel } from "../src/kernel/load.js";
import type { Descriptor } from "../src/protocol/descriptor.js";
import { chooser, execute, type Row } from "../src/protocol/execute.js";
import { parsePlan } from "../src/protocol/plan.js";
import { gate, mask } from "../src/protocol/report.js";

type Samples = Record<string, number[]>;
type Operation = () => unknown;

const HELPERS = 2;
const BUCKETS = 100;
/** What hpke-js and a Janus aggregator agree on: X25519, HKDF-SHA256, AES-128-GCM. */
const HPKE = [7, 0, 0x20, 0, 1, 0, 1];

const random = (bytes: number): Uint8Array<ArrayBuffer> =>
  crypto.getRandomValues(new Uint8Array(bytes));

/** The part of a descriptor that gate, mask and frame read. */
function round(kernel: Kernel, slots: number, linf: number, l2sq: number): Descriptor {
  const helpers = Array.from({ length: HELPERS }, () => ({
    identity: random(32),
    maskKey: kernel.x25519(random(32), BASE_POINT),
  }));
  const shape = { suite: 1, width: 32, ctx: random(32), roundId: random(16) };
  return { ...shape, helpers, slots, linf, l2sq } as unknown as Descriptor;
}

/** A whole report from values: the last gate, the mask and the frame. */
function reporting(kernel: Kernel, slots: number): Operation {
  const descriptor = round(kernel, slots, 127, 127 * 127 * slots);
  const values = Float64Array.from(new Int8Array(random(slots).buffer), (x) => Math.max(x, -127));
  return () => {
    if (!gate(descriptor, values)) throw new Error("gate");
    return mask(kernel, descriptor, random(32), values);
  };
}

/** A report from rows, for a histogram. */
function histogram(kernel: Kernel): () => Uint8Array {
  const plan = parsePlan({
    delta: "1e-8",
    epsilon: "1",
    event: "visit",
    kind: "aggregate",
    measures: [{ bins: BUCKETS, column: "v", hi: BUCKETS, lo: 0, op: "histogram", scale: 1 }],
    outputs: [{ measure: 0, name: "HISTOGRAM(v, 100)", op: "histogram" }],
    query: "bench",
    rows_max: 1,
    sql: "SELECT HISTOGRAM(v, 100) FROM visit",
  });
  const descriptor = round(kernel, plan.slots, plan.linf, plan.l2sq);
  const choose = chooser(() => crypto.getRandomValues(new Uint32Array(1))[0]!);
  let turn = 0;
  return () => {
    const rows: Row[] = [{ v: turn++ % BUCKETS }];
    const values = execute(plan, rows, choose);
    if (!gate(descriptor, values)) throw new Error("gate");
    return mask(kernel, descriptor, random(32), values);
  };
}

/** The same histogram by Divvi Up's client, whose aggregators' keys are answered from here. */
async function divviup(): Promise<() => Promise<Uint8Array>> {
  const keys = await Promise.all(
    [0, 1].map(async () => {
      const pair = (await crypto.subtle.generateKey("X25519", true, ["deriveBits"])) as CryptoKeyPair;
      const key = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
      const config = [...HPKE, 0, key.length, ...key];
      return new Uint8Array([0, config.length, ...config]);
    }),
  );
  const task = new Task({
    type: "histogram",
    length: BUCKETS,
    // The square root of the length, as Divvi Up's own tasks have it.
    chunkLength: 10,
    id: "3XTBHxTtUAtI516GeXZsVIKjBPYVNIYmF94vEBb4jcY",
    leader: "https://leader.invalid",
    helper: "https://helper.invalid",
    timePrecisionSeconds: 3600,
  });
  const headers = { "content-type": "application/dap-hpke-config-list" };
  task.fetch = (url) => {
    const key = String(url instanceof Request ? url.url : url).includes("leader") ? keys[0] : keys[1];
    return Promise.resolve(new Response(key!, { headers }));
  };
  let turn = 0;
  return async () => (await task.generateReport(turn++ % BUCKETS)).encode();
}

async function inTurns(operations: Record<string, Operation>, turns: number): Promise<Samples> {
  const samples: Samples = {};
  for (let turn = -3; turn < turns; turn++) {
    for (const [name, operation] of Object.entries(operations)) {
      const began = performance.now();
      await operation();
      const took = performance.now() - began;
      // The first turns find everything cold.
      if (turn >= 0) (samples[name] ??= []).push(took);
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
  return samples;
}

/** Mask and frame, and the two histograms; milliseconds by name, and bytes of the two reports. */
export async function measure(turns: number): Promise<{ samples: Samples; bytes: number[] }> {
  const wasm = await loadKernel();
  if (wasm.name !== "wasm") throw new Error("WebAssembly does not run here");
  const [ours, theirs] = [histogram(wasm), await divviup()];
  const operations = {
    "1,000 slots": reporting(wasm, 1_000),
    "1,000 slots, TypeScript": reporting(typescript, 1_000),
    "16,000 slots": reporting(wasm, 16_000),
    "16,000 slots, TypeScript": reporting(typescript, 16_000),
    histogram: ours,
    "histogram, TypeScript": histogram(typescript),
    "histogram, Divvi Up": theirs,
  };
  const samples = await inTurns(operations, turns);
  return { samples, bytes: [ours().length, (await theirs()).length] };
}

/** What a page goes through. Milliseconds. */
export interface Passed {
  readonly outcomes: string[];
  /** Tasks of 50 ms and more, as the browser reports them. */
  readonly longTasks: number;
  /** The longest time between two turns of a timer that asks for one every few milliseconds. */
  readonly longest: number;
  readonly milliseconds: number;
}

/** Watches the main thread while something happens in it. */
async function watched(work: () => Promise<string[]>): Promise<Passed> {
  let longTasks = 0;
  new PerformanceObserver((list) => (longTasks += list.getEntries().length)).observe({
    entryTypes: ["longtask"],
  });
  const began = performance.now();
  let [longest, last] = [0, began];
  const timer = setInterval(() => {
    const now = performance.now();
    [longest, last] = [Math.max(longest, now - last), now];
  });
  const outcomes = await work();
  const milliseconds = performance.now() - began;
  // Long tasks are told a moment later.
  await new Promise((resolve) => setTimeout(resolve, 100));
  clearInterval(timer);
  return { outcomes, longTasks, longest, milliseconds };
}

/** The baseline of a contribution: a page that does nothing for as long, on the same machine. */
export async function idle(milliseconds: number): Promise<Passed> {
  return watched(async () => {
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    return [];
  });
}

/** One whole contribution by the built package, from the first line of the page to the answer. */
export async function contribute(sdk: string, options: object, rows: number): Promise<Passed> {
  return watched(async () => {
    const { init } = (await import(sdk)) as typeof import("../src/index.js");
    const client = init({ ...options, consent: "granted" } as Parameters<typeof init>[0]);
    for (let row = 0; row < rows; row++) void client.record("visit", { v: row % BUCKETS });
    await client.ready;
    await client.flush();
    return (await client.receipts()).map(({ outcome, token }) => `${outcome} ${token}`.trim());
  });
}
