// For pages that show what the client does, and for whoever checks what was published: plans in
// words and in numbers, and releases (docs/protocol.md sections 8, 14 and 15).
//
// Nothing here is needed to take part. A page that only records never loads it.

import type { Descriptor } from "./protocol/descriptor.js";
import { parseCanonicalJson } from "./protocol/encoding.js";
import { chooser, execute, type Row } from "./protocol/execute.js";
import { parsePlan, sizeOf, type Plan } from "./protocol/plan.js";
import type { VerifiedRelease } from "./protocol/release.js";
import { decodeTable, type Cell } from "./protocol/table.js";
import type { Receipt } from "./sdk/receipts.js";

export type { Kernel } from "./kernel/kernel.js";
export { loadKernel } from "./kernel/load.js";
export type { Descriptor } from "./protocol/descriptor.js";
export type { Row } from "./protocol/execute.js";
export type { Count, Group, Histogram, Measure, Output, Plan, Sum, Where } from "./protocol/plan.js";
export { verifyRelease, type Expected, type VerifiedRelease } from "./protocol/release.js";
export { type Cell, type Interval } from "./protocol/table.js";
export { explainPlan, explainReceipt, receiptInWords } from "./sdk/explain.js";
export type { Outcome, Receipt } from "./sdk/receipts.js";

/** One number of the vector, and what it stands for. */
export interface Slot {
  /** Group value, or null without a group. */
  readonly group: string | null;
  /** Index into the plan's measures. */
  readonly measure: number;
  /** Bin of a histogram, else 0. */
  readonly bin: number;
}

/**
 * The plan of a receipt, or of the descriptor of a release.
 *
 * @throws DandelionError the receipt has none: the round was never read or not admitted.
 */
export function planOf({ plan }: Pick<Receipt, "plan"> | Pick<Descriptor, "plan">): Plan {
  return parsePlan(
    typeof plan === "string" ? parseCanonicalJson(new TextEncoder().encode(plan)) : plan,
  );
}

/** What the numbers of a plan's vector stand for, in their order (section 15.2). */
export function slotsOf({ group, measures }: Plan): Slot[] {
  return measures.flatMap((measure, index) =>
    (group?.values ?? [null]).flatMap((value) =>
      Array.from({ length: sizeOf(measure) }, (_, bin) => ({ group: value, measure: index, bin })),
    ),
  );
}

/**
 * The vector that a plan makes of rows, before masking. If more rows match than count, another call
 * may draw other ones, and so may the report.
 */
export function preview(plan: Plan, rows: readonly Row[]): Float64Array {
  return execute(
    plan,
    rows,
    chooser(() => crypto.getRandomValues(new Uint32Array(1))[0]!),
  );
}

/** The table of a verified release, with its error bars. */
export function tableOf({ descriptor, values, shards }: VerifiedRelease): Cell[] {
  return decodeTable(planOf(descriptor), values, noiseVarOf(descriptor) * shards);
}

/** Variance of the noise in each released number of one shard: that of all helpers together. */
export function noiseVarOf({ helpers, noiseVar }: Descriptor): number {
  return helpers.length * noiseVar;
}
