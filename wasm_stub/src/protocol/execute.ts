// What a client's rows become under a plan (docs/protocol.md section 15.2).

import { sizeOf, type Histogram, type Plan, type Where } from "./plan.js";

/** One event: column name to string, number or null. What is none of these counts as null. */
export type Row = Readonly<Record<string, unknown>>;

/** `choose(n, k)`: k distinct indices below n, drawn uniformly. The only randomness of a plan. */
export type Choose = (n: number, k: number) => ArrayLike<number>;

/**
 * The client's vector: integers of magnitude below 2^53, one per slot. Without matching rows it is
 * all zeros, never shorter.
 *
 * @param rows the rows of the plan's event, oldest first.
 */
export function execute(plan: Plan, rows: readonly Row[], choose: Choose): Float64Array {
  const { group, measures, where, rows_max } = plan;
  const vector = new Float64Array(plan.slots);
  const groups = group && new Map(group.values.map((value, index) => [value as unknown, index]));
  const numbers = new Set<string | undefined>([
    ...measures.map((each) => (each.op === "count" ? undefined : each.column)),
    ...(where ?? []).map((each) => (typeof each.value === "string" ? undefined : each.column)),
  ]);
  let used = where ? rows.filter((row) => where.every((each) => holds(each, row))) : rows;
  if (used.length > rows_max) {
    used = Array.from(choose(used.length, rows_max), (index) => used[index]!);
  }
  for (const row of used) {
    const place = group ? groups!.get(row[group.column]) : 0;
    if (place === undefined) continue;
    let start = 0;
    for (const measure of measures) {
      const { op, column, scale } = measure;
      const size = sizeOf(measure);
      const slot = start + place * size;
      start += (groups ? groups.size : 1) * size;
      const value = column === undefined ? 0 : row[column];
      const number = floor(value);
      if (op === "count") {
        if (number !== null || (typeof value === "string" && !numbers.has(column))) {
          vector[slot]! += scale;
        }
      } else if (number !== null) {
        const clamped = Math.min(Math.max(number, measure.lo), measure.hi);
        if (op === "sum") vector[slot]! += scale * (clamped - measure.centre);
        else vector[slot + binOf(measure, clamped)]! += scale;
      }
    }
  }
  return vector;
}

/**
 * A {@link Choose} from a source of uniform 32-bit integers.
 *
 * @param draw returns an integer, uniform below 2^32.
 */
export function chooser(draw: () => number): Choose {
  const below = (end: number): number => {
    for (;;) {
      const drawn = draw();
      // Whole multiples of `end` only, so that no index is likelier than another one.
      if (drawn < 2 ** 32 - (2 ** 32 % end)) return drawn % end;
    }
  };
  return (n, k) => {
    const indices = Uint32Array.from({ length: n }, (_, index) => index);
    for (let at = 0; at < k; at++) {
      const other = at + below(n - at);
      [indices[at], indices[other]] = [indices[other]!, indices[at]!];
    }
    return indices.subarray(0, k);
  };
}

function holds({ column, test, value }: Where, row: Row): boolean {
  const isText = typeof value === "string";
  const found = isText ? row[column] : floor(row[column]);
  if (typeof found !== typeof value) return false;
  if (found === value) return /eq|le|ge/.test(test);
  return test === "ne" || (!isText && test[0] === ((found as number) < value ? "l" : "g"));
}

/** A number rounded down to an integer; null for what is not a finite number. */
function floor(value: unknown): number | null {
  return Number.isFinite(value) ? Math.floor(value as number) : null;
}

/** The bin of a clamped value: the upper bound belongs to the last one. */
function binOf({ lo, hi, bins }: Histogram, clamped: number): number {
  const index =
    hi - lo < 2 ** 53
      ? Math.floor((clamped - lo) / ((hi - lo) / bins))
      : // Both differences may exceed what a double holds.
        Number(((BigInt(clamped) - BigInt(lo)) * BigInt(bins)) / (BigInt(hi) - BigInt(lo)));
  return Math.min(bins - 1, index);
}
