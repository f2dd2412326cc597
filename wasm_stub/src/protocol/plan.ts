// A plan: what a client computes on its own events, and how far it can go
// (docs/protocol.md sections 15.1 to 15.4).
//
// A plan is data, a closed list of operators. Left out: what it does with rows (`execute`) and how
// released sums are read (`table`).

import { decimal } from "./accounting.js";
import { SLOTS_MAX } from "./descriptor.js";
import { INTEGER_END, type JsonObject } from "./encoding.js";
import { need } from "./errors.js";

/** Limits of sections 13 and 15.1. */
const PLAN_WORK_MAX = 262_144;
const PLAN_CONDITIONS_MAX = 16;
const ROWS_MAX_MAX = 65_535;

/** Rows, or rows in which `column` is not null. */
export interface Count {
  readonly op: "count";
  readonly scale: number;
  readonly column?: string;
}

/** Sum of a column, clamped to `lo..hi` and taken from `centre`. */
export interface Sum {
  readonly op: "sum";
  readonly scale: number;
  readonly column: string;
  readonly lo: number;
  readonly hi: number;
  readonly centre: number;
}

/** Rows per bin of a column clamped to `lo..hi`; `bins` bins of equal width. */
export interface Histogram {
  readonly op: "histogram";
  readonly scale: number;
  readonly column: string;
  readonly lo: number;
  readonly hi: number;
  readonly bins: number;
}

/** One measure, section 15.2. */
export type Measure = Count | Sum | Histogram;

/** The column that splits the answer, and the values that have slots. */
export interface Group {
  readonly column: string;
  readonly values: readonly string[];
}

/** One condition. A null satisfies none, not even `ne`. */
export interface Where {
  readonly column: string;
  readonly test: "eq" | "ne" | "lt" | "le" | "gt" | "ge";
  readonly value: string | number;
}

/** One column of the answer: a measure, and for sums and averages its count. */
export interface Output {
  readonly op: "count" | "sum" | "avg" | "histogram";
  readonly name: string;
  readonly measure: number;
  readonly count?: number;
}

/** The object of section 15.1, as the descriptor holds it. */
export interface PlanObject {
  readonly query: string;
  readonly sql: string;
  readonly event: string;
  readonly epsilon: string;
  readonly delta: string;
  readonly rows_max: number;
  readonly measures: readonly Measure[];
  readonly outputs: readonly Output[];
  readonly group?: Group;
  readonly where?: readonly Where[];
}

/** A plan that is understood, and what follows from it whatever the rows hold. */
export interface Plan extends PlanObject {
  /** Words in the vector. */
  readonly slots: number;
  /** No value exceeds this in magnitude, section 15.3. */
  readonly linf: number;
  /** No sum of squares exceeds this, section 15.3. */
  readonly l2sq: number;
}

/** The members of a measure and its operator; what a mixture lacks is missed where it is read. */
const MEASURE =
  /^((column )?op scale=count|(centre|bins) column hi lo op scale=(sum|histogram))$/;

/** Slots of a measure in one group. */
export function sizeOf(measure: Measure): number {
  return measure.op === "histogram" ? measure.bins : 1;
}

/** The largest magnitude that one row can add to a slot. */
function magnitudeOf(measure: Measure): number {
  const { op, scale } = measure;
  return op === "sum"
    ? scale * Math.max(measure.hi - measure.centre, measure.centre - measure.lo)
    : scale;
}

/**
 * The plan that the object of a descriptor states.
 *
 * @param source canonical JSON, so the keys of every object in it ascend and hold no space.
 * @throws DandelionError `bad_plan`.
 */
export function parsePlan(source: JsonObject): Plan {
  // Typed as what it claims to be; every line below checks one of the claims.
  const plan = source as unknown as PlanObject & { readonly kind: string };
  const { rows_max, measures, outputs, group, where } = plan;
  shape(
    plan,
    /^delta epsilon event (group )?kind measures outputs query rows_max sql( where)?$/,
  );
  ok(plan.kind === "aggregate");
  [plan.query, plan.sql, plan.event].forEach(text);
  ok(decimal(plan.epsilon) > 0 && decimal(plan.delta) > 0 && decimal(plan.delta) < 1);
  integer(rows_max, 1, ROWS_MAX_MAX);
  list(measures, judgeMeasure);
  list(outputs, (output) => judgeOutput(output, measures));
  if (group !== undefined) {
    shape(group, /^column values$/);
    text(group.column);
    list(group.values, (value) => ok(typeof value === "string"));
    ok(new Set(group.values).size === group.values.length);
  }
  if (where !== undefined) {
    ok(Array.isArray(where) && where.length <= PLAN_CONDITIONS_MAX);
    where.forEach(judgeWhere);
  }
  ok(rows_max * measures.length <= PLAN_WORK_MAX);

  // Doubles suffice: rounding keeps order, so what is 2^53 or more never comes out smaller.
  const magnitudes = measures.map(magnitudeOf);
  const derived = {
    slots:
      (group ? group.values.length : 1) * measures.reduce((sum, each) => sum + sizeOf(each), 0),
    linf: rows_max * Math.max(...magnitudes),
    l2sq: rows_max * rows_max * magnitudes.reduce((sum, each) => sum + each * each, 0),
  };
  ok(derived.slots <= SLOTS_MAX && derived.linf < INTEGER_END && derived.l2sq < INTEGER_END);
  return { ...plan, ...derived };
}

function judgeMeasure(measure: Measure): void {
  const { op, scale, column } = measure;
  text(op);
  shape(measure, MEASURE, op);
  integer(scale, 1);
  if (column !== undefined) text(column);
  if (op === "count") return;
  const { lo, hi } = measure;
  integer(lo);
  integer(hi, lo + 1);
  if (op === "sum") {
    integer(measure.centre, lo, hi);
  } else {
    integer(measure.bins, 1);
    // Remainders one by one: the difference of the bounds may exceed what a double holds.
    ok(((hi % measure.bins) - (lo % measure.bins)) % measure.bins === 0);
  }
}

function judgeOutput(output: Output, measures: readonly Measure[]): void {
  const { op, name, measure, count } = output;
  shape(output, /^(measure name op=(count|histogram)|count measure name op=(sum|avg))$/, op);
  text(name);
  integer(measure, 0, measures.length - 1);
  ok(measures[measure]!.op === (op === "avg" ? "sum" : op));
  if (count === undefined) return;
  integer(count, 0, measures.length - 1);
  const counted = measures[count]!;
  ok(counted.op === "count" && counted.column === measures[measure]!.column);
}

function judgeWhere(where: Where): void {
  const { column, test, value } = where;
  shape(where, /^column test value$/);
  text(column);
  text(test);
  const isText = typeof value === "string";
  ok((isText ? /^(eq|ne)$/ : /^(eq|ne|lt|le|gt|ge)$/).test(test));
  if (!isText) integer(value);
}

function ok(condition: unknown): asserts condition {
  need(condition, "bad_plan");
}

/** Judges the names of all members in their order, and after a `=` the operator. */
function shape(value: object, pattern: RegExp, op?: string): void {
  const members = Object.keys(value).join(" ");
  ok(pattern.test(op === undefined ? members : `${members}=${op}`));
}

function text(value: string): void {
  ok(typeof value === "string" && value);
}

function integer(value: number, least = 1 - INTEGER_END, most = INTEGER_END - 1): void {
  ok(typeof value === "number" && value >= least && value <= most);
}

function list<Item>(value: readonly Item[], judge: (item: Item) => void): void {
  ok(Array.isArray(value) && value.length);
  value.forEach(judge);
}
