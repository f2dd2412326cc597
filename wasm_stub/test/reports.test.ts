// Reports are byte for byte those of Python's client, given the same randomness.
//
// SEED=… and REPORTS=… choose others than the usual ones.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";

import { loadKernel } from "../src/kernel/load.js";
import { kernel as fallback } from "../src/kernel/fallback.js";
import type { Kernel } from "../src/kernel/kernel.js";

const SEED = process.env["SEED"] ?? "1";
/** In the repository's root, where Python runs. */
const PYTHON = ".venv/bin/python";
const REPORTS = Number(process.env["REPORTS"] ?? 10_000);
/** The fallback makes one in so many: it takes several times as long. */
const FALLBACK_STEP = 20;

interface Client {
  readonly suite: number;
  readonly width: number;
  readonly ctx: string;
  readonly secret: string;
  readonly mask_keys: string;
  readonly values: number[];
  readonly report: string;
}

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const hex = (data: Uint8Array): string => Buffer.from(data).toString("hex");

/** The report as docs/protocol.md section 5 has it. */
function report(kernel: Kernel, client: Client): string {
  const round = { suite: client.suite, width: client.width, ctx: bytes(client.ctx) };
  const maskKeys = bytes(client.mask_keys);
  const { epk, payload } = kernel.mask(round, bytes(client.secret), maskKeys, client.values);
  return `01${client.ctx.slice(0, 32)}${hex(epk)}${hex(payload)}`;
}

test(`${REPORTS} random reports are those of Python's client (SEED=${SEED})`, async () => {
  const kernel = await loadKernel([1, 2]);
  assert.equal(kernel.name, "wasm");
  const python = spawn(PYTHON, ["-m", "tests.browser.random_reports", SEED, String(REPORTS)], {
    cwd: "..",
    stdio: ["ignore", "pipe", "inherit"],
  });
  let compared = 0;
  for await (const line of createInterface({ input: python.stdout })) {
    const client = JSON.parse(line) as Client;
    const which = `report ${compared} of SEED=${SEED}`;
    assert.equal(report(kernel, client), client.report, which);
    if (compared % FALLBACK_STEP === 0) {
      assert.equal(report(fallback, client), client.report, `${which}, in TypeScript`);
    }
    compared += 1;
  }
  assert.equal(compared, REPORTS);
});
