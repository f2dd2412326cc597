// Released sums become a table with error bars (docs/protocol.md section 15.4).
//
// The intervals speak about the noise alone: not about who took part, nor about values that were
// clamped. Source of the interval of a ratio: Fieller 1954, J. R. Stat. Soc. B 16.

import { sizeOf, type Histogram, type Plan, type Sum } from "./plan.js";

/** The 97.5 % point of the normal distribution. */
const Z95 = 1.959963984540054;

/** An average is shown if its count is at least this many standard errors. */
const COUNT_ERRORS_MIN = 4;

/** One answer. */
export interface Cell {
  /** Group value, or null without a group. */
  readonly group: string | null;
  /** Name of the output. */
  readonly name: string;
  /** Lower and upper end of a bin of a histogram, else null. */
  readonly bin: readonly [number, number] | null;
  /** The answer, or null for an average whose count is not distinct from zero. */
  readonly answer: Interval | null;
}

/** An estimate, its standard error, and the ends of its 95 % interval. */
export interface Interval {
  readonly estimate: number;
  readonly stdError: number;
  readonly ciLow: number;
  readonly ciHigh: number;
}

/**
 * The table of a release: group by group, outputs in the order they were asked.
 *
 * @param plan the plan of the descriptor.
 * @param sums released words, one per slot; for several shards their sum.
 * @param noiseVar variance of the noise in each slot: m * noise_var times the number of shards.
 */
export function decodeTable(plan: Plan, sums: ArrayLike<bigint>, noiseVar: number): Cell[] {
  const { group, measures, outputs } = plan;
  const sigma = Math.sqrt(noiseVar);
  const groups = group ? group.values : [null];
  const starts: number[] = [];
  let end = 0;
  for (const measure of measures) {
    starts.push(end);
    end += groups.length * sizeOf(measure);
  }
  const read = (index: number, place: number, bin = 0): number => {
    const measure = measures[index]!;
    return Number(sums[starts[index]! + place * sizeOf(measure) + bin]!) / measure.scale;
  };
  return groups.flatMap((label, place) =>
    outputs.flatMap((output): Cell[] => {
      const { name, op, measure: index, count } = output;
      const measure = measures[index]!;
      const error = sigma / measure.scale;
      const cell = { group: label, name, bin: null };
      if (measure.op === "histogram") {
        const { bins } = measure;
        return Array.from({ length: bins }, (_, bin) => ({
          ...cell,
          bin: [edge(measure, bin), edge(measure, bin + 1)] as const,
          answer: normal(read(index, place, bin), error),
        }));
      }
      const value = read(index, place);
      if (count === undefined) return [{ ...cell, answer: normal(value, error) }];
      const { centre } = measure as Sum;
      const counted = read(count, place);
      const countError = sigma / measures[count]!.scale;
      const answer =
        op === "sum"
          ? normal(value + centre * counted, Math.hypot(error, centre * countError))
          : average(centre, value, error, counted, countError);
      return [{ ...cell, answer }];
    }),
  );
}

/** Where a bin begins. Exact: the whole range may be wider than what a double holds. */
function edge({ lo, hi, bins }: Histogram, bin: number): number {
  const width = (BigInt(hi) - BigInt(lo)) / BigInt(bins);
  return Number(BigInt(lo) + BigInt(bin) * width);
}

function normal(estimate: number, stdError: number): Interval {
  const reach = Z95 * stdError;
  return { estimate, stdError, ciLow: estimate - reach, ciHigh: estimate + reach };
}

/** `centre` plus the ratio of two noisy sums, with Fieller's interval; null if withheld. */
function average(
  centre: number,
  value: number,
  error: number,
  count: number,
  countError: number,
): Interval | null {
  if (count <= 0 || count < COUNT_ERRORS_MIN * countError) return null;
  const ratio = value / count;
  const lead = count * count - (Z95 * countError) ** 2;
  // The discriminant, written so that no two nearly equal terms are subtracted.
  const root = Z95 * Math.sqrt(lead * error * error + (value * countError) ** 2);
  const middle = value * count;
  return {
    estimate: centre + ratio,
    stdError: Math.hypot(error, ratio * countError) / count,
    ciLow: centre + (middle - root) / lead,
    ciHigh: centre + (middle + root) / lead,
  };
}
