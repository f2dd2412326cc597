// From rows to the body of the POST: what neither vectors nor random cases tell apart
// (docs/protocol.md sections 4.3, 14 and 15.2).
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { kernel } from "../src/kernel/fallback.js";
import { decodeDescriptor } from "../src/protocol/descriptor.js";
import { canonicalJson, parseCanonicalJson } from "../src/protocol/encoding.js";
import { DandelionError, statusOf } from "../src/protocol/errors.js";
import { chooser, execute, type Row } from "../src/protocol/execute.js";
import { parsePlan, type Measure, type Plan } from "../src/protocol/plan.js";
import { gate, mask } from "../src/protocol/report.js";
import { decodeTable } from "../src/protocol/table.js";
import { bytesOf } from "./cases.js";
import type { Vector } from "./vectors.js";

/** A plan of one measure, whatever else is asked. */
function planOf(measure: Measure, more: Readonly<Record<string, unknown>> = {}): Plan {
  const document = {
    delta: "1e-8",
    epsilon: "1",
    event: "page",
    kind: "aggregate",
    measures: [measure],
    outputs: [{ measure: 0, name: "n", op: measure.op }],
    query: "q",
    rows_max: 1,
    sql: "SELECT",
    ...more,
  };
  return parsePlan(parseCanonicalJson(new TextEncoder().encode(canonicalJson(document))));
}

const never = (): never => assert.fail("nothing is to be drawn");

const counted = (column: string): Measure => ({ column, op: "count", scale: 1 });

test("a column that is absent is null, though every object answers to its name", () => {
  for (const column of ["constructor", "__proto__", "toString", "valueOf", "hasOwnProperty"]) {
    assert.deepEqual([...execute(planOf(counted(column)), [{}], never)], [0], column);
  }
});

test("what is neither a text nor a finite number is null", () => {
  const nulls = [null, undefined, true, NaN, Infinity, 4n, [4], { x: 4 }, new Number(4), () => 4];
  for (const value of nulls) {
    assert.deepEqual([...execute(planOf(counted("x")), [{ x: value }], never)], [0]);
  }
  for (const value of ["", "x", 0, -0.5, 1e308]) {
    assert.deepEqual([...execute(planOf(counted("x")), [{ x: value }], never)], [1]);
  }
});

test("rows are drawn only where more than rows_max of them satisfy `where`", () => {
  const where = [{ column: "x", test: "ge", value: 2 }];
  const plan = planOf(
    { centre: 0, column: "x", hi: 100, lo: 0, op: "sum", scale: 1 },
    {
      measures: [
        { centre: 0, column: "x", hi: 100, lo: 0, op: "sum", scale: 1 },
        { column: "x", op: "count", scale: 1 },
      ],
      outputs: [{ count: 1, measure: 0, name: "n", op: "sum" }],
      rows_max: 2,
      where,
    },
  );
  const rows: Row[] = [0, 10, 1, 20, 30].map((x) => ({ x }));
  assert.deepEqual([...execute(plan, rows.slice(0, 4), never)], [30, 2]);
  const asked: number[][] = [];
  const vector = execute(plan, rows, (n, k) => {
    asked.push([n, k]);
    return [2, 0];
  });
  assert.deepEqual([[...vector], asked], [[40, 2], [[3, 2]]]);
});

test("a histogram wider than 2^53 puts every value into the bin it belongs to", () => {
  const most = 2 ** 53 - 1;
  const plan = planOf({ bins: 2, column: "x", hi: most, lo: -most, op: "histogram", scale: 1 });
  const binOf = (x: number): number[] => [...execute(plan, [{ x }], never)];
  assert.deepEqual([binOf(-1e300), binOf(-1), binOf(-0.5)], [[1, 0], [1, 0], [1, 0]]);
  assert.deepEqual([binOf(0), binOf(1), binOf(most)], [[0, 1], [0, 1], [0, 1]]);
  assert.deepEqual(binOf(Infinity), [0, 0]);
});

test("every choice of two rows of three is equally likely, and no row is chosen twice", () => {
  const seen = new Map<string, number>();
  for (let first = 0; first < 3; first++) {
    for (let second = 0; second < 2; second++) {
      const draws = [first, second];
      const pair = [...Array.from(chooser(() => draws.shift()!)(3, 2))].sort().join();
      seen.set(pair, (seen.get(pair) ?? 0) + 1);
    }
  }
  assert.deepEqual([...seen].sort(), [["0,1", 2], ["0,2", 2], ["1,2", 2]]);
});

test("a draw that would make one index likelier than another one is drawn again", () => {
  // 2^32 is 1 modulo 3: only the last value has no share.
  const draws = [2 ** 32 - 1, 2 ** 32 - 2];
  assert.deepEqual(Array.from(chooser(() => draws.shift()!)(3, 1)), [2]);
  assert.equal(draws.length, 0);
});

const BOUNDS = { slots: 2, linf: 3, l2sq: 17 };

test("the gate lets pass what obeys slots, linf and l2sq, and nothing else", () => {
  const passes = (...values: number[]): boolean => gate(BOUNDS, Float64Array.from(values));
  assert.ok(passes(0, 0) && passes(-3, 1) && passes(-0, 3));
  assert.ok(!passes(3, 3) && !passes(4, 0) && !passes(-4, 0));
  assert.ok(!passes(1) && !passes(1, 1, 0));
  assert.ok(!passes(0.5, 0) && !passes(NaN, 0) && !passes(-Infinity, 0));
});

test("the gate is exact where squares leave the integers that a double holds", () => {
  const most = 2 ** 53 - 1;
  const bounds = { slots: 2, linf: 94_906_265, l2sq: most };
  // 94906265^2 is below 2^53; 1 less than what is left fits, and 1 more does not.
  const rest = Math.floor(Math.sqrt(Number(BigInt(most) - 94_906_265n ** 2n)));
  assert.ok(gate(bounds, Float64Array.of(94_906_265, rest)));
  assert.ok(!gate(bounds, Float64Array.of(94_906_265, rest + 1)));
  assert.ok(!gate({ slots: 2, linf: most, l2sq: most }, Float64Array.of(most, 0)));
});

test("masking consumes the key: a second vector under it is refused", () => {
  const vectors = JSON.parse(readFileSync("../tests/vectors/mask.json", "utf8")) as Vector[];
  const { input } = vectors[0]!;
  const descriptor = decodeDescriptor(kernel, bytesOf(input["descriptor"]));
  const values = Float64Array.from(input["values"] as number[]);
  const secret = bytesOf(input["ephemeral_secret"]);
  mask(kernel, descriptor, secret, values);
  assert.ok(secret.every((byte) => byte === 0));
  assert.throws(
    () => mask(kernel, descriptor, secret, values),
    (error: DandelionError) => error.token === "key_consumed",
  );
});

test("an average is withheld below four standard errors of its count, not at four", () => {
  const plan = planOf(
    { op: "count", scale: 1 },
    {
      measures: [
        { centre: 10, column: "x", hi: 20, lo: 0, op: "sum", scale: 1 },
        { column: "x", op: "count", scale: 1 },
      ],
      outputs: [{ count: 1, measure: 0, name: "n", op: "avg" }],
    },
  );
  const at = (count: bigint): number | undefined =>
    decodeTable(plan, [-40n, count], 25)[0]!.answer?.estimate;
  assert.deepEqual([at(20n), at(19n), at(-20n)], [8, undefined, undefined]);
});

const TEXT = readFileSync("../docs/protocol.md", "utf8");

test("limits have the names and the values of the text", () => {
  const limits = new Map(
    [...TEXT.matchAll(/^\| `([a-z_]+)` \| (\d+) \| [a-z]/gm)].map(([, name, value]) => [
      name!.toUpperCase(),
      +value!,
    ]),
  );
  const sources = readdirSync("src/protocol").map((name) =>
    readFileSync(`src/protocol/${name}`, "utf8"),
  );
  const stated = sources
    .flatMap((source) => [...source.matchAll(/const ([A-Z_]+_MAX) = ([\d_]+);/g)])
    .map(([, name, value]) => [name!, +value!.replaceAll("_", "")] as const)
    .filter(([name]) => name !== "ROWS_MAX_MAX"); // of section 15.1
  assert.equal(stated.length, 9);
  for (const [name, value] of stated) assert.equal(value, limits.get(name), name);
});

test("the tokens and their statuses are those of the text", () => {
  const rows = [...TEXT.matchAll(/^\| `([a-z_]+)` \| (\d{3}) \| [A-Z]/gm)];
  assert.ok(rows.length > 60);
  for (const [, token, status] of rows) assert.equal(statusOf(token!), +status!, token);
  const source = readFileSync("src/protocol/errors.ts", "utf8");
  const words = source.slice(0, source.indexOf("as const")).match(/"[a-z_ ]+"/g)!;
  const listed = words.flatMap((line) => line.slice(1, -1).split(" "));
  assert.deepEqual(listed.sort(), rows.map(([, token]) => token).sort());
  assert.equal(statusOf("constructor"), undefined);
});
