// Random plans, rows, descriptors, promises and tables: TypeScript says what Python says.
import assert from "node:assert/strict";
import { test } from "node:test";

import { kernel } from "../src/kernel/fallback.js";
import { epsilonOf, rhoUnits, rhoUnitsForEpsilon } from "../src/protocol/accounting.js";
import { admit } from "../src/protocol/admit.js";
import { decodeDescriptor } from "../src/protocol/descriptor.js";
import { hex, parseCanonicalJson } from "../src/protocol/encoding.js";
import { DandelionError } from "../src/protocol/errors.js";
import { execute, type Row } from "../src/protocol/execute.js";
import { gate } from "../src/protocol/report.js";
import { parsePlan } from "../src/protocol/plan.js";
import { decodeTable, type Cell } from "../src/protocol/table.js";
import { bytesOf, cases, told, type Case } from "./cases.js";

type Pair = readonly [name: string, value: unknown, text: string];

const FLOATS = new Map([
  ["nan", NaN],
  ["inf", Infinity],
  ["-inf", -Infinity],
]);

/** Pairs instead of objects, so that a column named `__proto__` arrives as one. */
function rowOf(pairs: readonly Pair[]): Row {
  return Object.fromEntries(pairs.map(([name, value, text]) => [name, FLOATS.get(text) ?? value]));
}

function outcome<Result>(operation: () => Result): Result | { expect: string } {
  try {
    return operation();
  } catch (error) {
    if (error instanceof DandelionError) return { expect: error.token };
    throw error;
  }
}

function runPlan(given: Case): object {
  return outcome(() => {
    const plan = parsePlan(parseCanonicalJson(bytesOf(given["plan"])));
    const rows = (given["rows"] as Pair[][]).map(rowOf);
    const vector = execute(plan, rows, () => given["chosen"] as number[]);
    // 15.3: whatever the rows hold, the vector of a plan stays within the plan's bounds.
    assert.ok(gate(plan, vector));
    return {
      expect: "valid",
      chosen: given["chosen"],
      // Adding zero turns -0 into 0.
      vector: given["vector"] && Array.from(vector, (value) => value + 0),
      slots: plan.slots,
      linf: plan.linf,
      l2sq: plan.l2sq,
    };
  });
}

/** Compares every case and sees that neither verdict is rare. */
function compare(kind: string, count: number, run: (given: Case) => object): void {
  const given = cases(kind, count);
  assert.equal(given.length, count);
  const verdicts = new Set<unknown>();
  given.forEach((each, index) => {
    const found = run(each);
    const expected = Object.fromEntries(Object.keys(found).map((name) => [name, each[name]]));
    assert.deepEqual(found, expected, told(kind, index));
    verdicts.add(each["expect"]);
  });
  assert.ok(verdicts.has("valid") && verdicts.size > 1, told(kind, 0));
}

test("10,000 random plans over random rows have Python's vector and bounds, or its token", () => {
  compare("plans", 10_000, runPlan);
});

test("2,000 plans with a few bytes changed are canonical to both languages or to neither", () => {
  compare("bytes", 2_000, runPlan);
});

test("500 random descriptors end in Python's token, or have its ctx, sizes and bounds", () => {
  compare("descriptors", 500, (given) =>
    outcome(() => {
      const made = decodeDescriptor(kernel, bytesOf(given["descriptor"]));
      return {
        expect: "valid",
        ctx: hex(made.ctx),
        report_bytes: made.reportBytes,
        rho_units: String(rhoUnits(made.l2sq, made.noiseVar)),
        noise_bound: made.noiseBound,
      };
    }),
  );
});

test("80 random envelopes meet the pins and floors of a client as they do in Python", () => {
  compare("admissions", 80, (given) =>
    outcome(() => {
      const pins = {
        suites: given["suites"] as number[],
        collector: given["collector"] as string,
        helpers: given["helpers"] as string[],
      };
      const floors = {
        cohortMin: given["cohort_min"] as number,
        rhoRoundMax: given["rho_round_max"] as number,
        lifetimeMaxS: given["lifetime_max_s"] as number,
      };
      const admitted = admit(kernel, bytesOf(given["envelope"]), pins, floors);
      return { expect: "valid", rho_units: admitted.rhoUnits };
    }),
  );
});

test("100 random promises cost what they cost in Python, and allow what they allow there", () => {
  cases("accounting", 100).forEach((given, index) => {
    const number = (name: string): number => given[name] as number;
    const units = rhoUnits(number("l2sq"), number("noise_var"));
    assert.equal(String(units), given["rho_units"], told("accounting", index));
    close(epsilonOf(units, number("delta")), number("epsilon"), "accounting", index);
    const allowed = rhoUnitsForEpsilon(number("target"), number("delta"));
    // One unit more or less, where the last bit of a logarithm decides.
    assert.ok(
      Math.abs(allowed - number("allowed")) <= 1 + 1e-9 * allowed,
      told("accounting", index),
    );
  });
});

test("500 random tables have Python's cells", () => {
  cases("tables", 500).forEach((given, index) => {
    const plan = parsePlan(parseCanonicalJson(bytesOf(given["plan"])));
    const sums = (given["sums"] as number[]).map(BigInt);
    const cells = decodeTable(plan, sums, given["noise_var"] as number);
    const expected = given["cells"] as Case[];
    assert.equal(cells.length, expected.length, told("tables", index));
    cells.forEach((cell, at) => compareCells(cell, expected[at]!, index));
  });
});

function compareCells(cell: Cell, expected: Case, index: number): void {
  const { group, name, bin, answer } = cell;
  const labels = { group: expected["group"], name: expected["name"], bin: expected["bin"] };
  assert.deepEqual({ group, name, bin }, labels, told("tables", index));
  assert.equal(answer === null, expected["withheld"], told("tables", index));
  if (answer === null) return;
  const pairs = [
    [answer.estimate, expected["estimate"]],
    [answer.stdError, expected["std_error"]],
    [answer.ciLow, expected["ci_low"]],
    [answer.ciHigh, expected["ci_high"]],
  ] as const;
  const scale = Math.max(...pairs.map(([, value]) => Math.abs(value as number)));
  for (const [mine, theirs] of pairs) close(mine, theirs as number, "tables", index, scale);
}

function close(mine: number, theirs: number, kind: string, index: number, scale = 1): void {
  const off = Math.abs(mine - theirs);
  const room = 1e-9 * Math.max(1, Math.abs(theirs), scale);
  assert.ok(off <= room, `${mine}, not ${theirs}: ${told(kind, index)}`);
}
