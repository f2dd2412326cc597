// From an admitted round to the body that is sent (docs/protocol.md section 14, steps 4, 5, 7).
//
// Synchronous throughout: a page that is being left calls it. Left out: whether the round may be
// answered and who pays (`store.commit`).

import type { Bytes, Kernel } from "../kernel/kernel.js";
import type { Admitted } from "../protocol/admit.js";
import { canonicalJson, hex } from "../protocol/encoding.js";
import { chooser, execute } from "../protocol/execute.js";
import { gate, mask } from "../protocol/report.js";
import type { RandomBytes } from "./random.js";
import { receipt, type Receipt } from "./receipts.js";
import type { Report, Row } from "./store.js";

/** A report with its body, and what is masked in it: one integer per slot. */
export interface Masked {
  readonly report: Report & { readonly body: Bytes };
  readonly values: Float64Array;
}

/** The receipt of a round that was admitted. */
export function receiptOf(
  { descriptor, plan }: Admitted,
  outcome: Receipt["outcome"],
  at: number,
): Receipt {
  return receipt({
    outcome,
    at,
    round: hex(descriptor.roundId),
    query: plan.query,
    sql: plan.sql,
    scope: descriptor.scope,
    epsilon: plan.epsilon,
    delta: plan.delta,
    plan: canonicalJson(descriptor.plan),
    helpers: descriptor.helpers.length,
    cohortMin: descriptor.cohortMin,
  });
}

/** What a round is promised when it is charged: everything of the report but its body. */
export function promise(admitted: Admitted, at: number): Report {
  const { descriptor, rhoUnits } = admitted;
  return {
    ctx: hex(descriptor.ctx),
    expires: descriptor.expires,
    receipt: { ...receiptOf(admitted, "waiting", at), rhoUnits },
    attempts: 0,
    notBefore: 0,
  };
}

/**
 * The promised report with its body. The ephemeral secret lives in this function only.
 *
 * A fault of plan or gate becomes zeros and a word in the receipt: were nothing sent, sending would
 * be an answer.
 */
export function make(
  kernel: Kernel,
  { descriptor, plan }: Admitted,
  rows: readonly Row[],
  promised: Report,
  random: RandomBytes,
): Masked {
  let values = new Float64Array(descriptor.slots);
  let fault = "plan";
  try {
    const draw = (): number => random(new Uint32Array(1))[0]!;
    const found = execute(plan, rows, chooser(draw));
    fault = "gate";
    if (gate(descriptor, found)) {
      values = found as typeof values;
      fault = "";
    }
  } catch {
    // Zeros, and the word for what went wrong.
  }
  const body = mask(kernel, descriptor, random(new Uint8Array(32)), values);
  const { attempts } = promised;
  const receipt = { ...promised.receipt, attempts, bytesSent: body.length, fault };
  return { report: { ...promised, body, receipt }, values };
}
