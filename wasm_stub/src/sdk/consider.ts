// Whether a listed round is answered, as far as that is settled without data, coin or ledger
// (docs/protocol.md section 14, steps 1 and 2).

import type { Kernel } from "../kernel/kernel.js";
import { admitting, type Admitted, type Floors, type Pins } from "../protocol/admit.js";
import { hex } from "../protocol/encoding.js";
import type { DandelionError } from "../protocol/errors.js";
import { receipt, type Receipt } from "./receipts.js";
import type { Listed } from "./transport.js";

/** Seconds. The collector's clock decides; the page's own may be off by this much. */
const CLOCK_SKEW_S = 300;

/** A round that was admitted, and the token if its name or its moment is wrong; or its refusal. */
export type Considered = readonly [Admitted, string] | Receipt;

/**
 * Judges one line of the listing. `at` is Unix seconds.
 *
 * A signature takes milliseconds, so the page gets its turn, by `pause`, before each of them.
 */
export async function consider(
  kernel: Kernel,
  rules: Pins & Floors,
  { round, envelope }: Listed,
  at: number,
  pause: () => Promise<void>,
): Promise<Considered> {
  try {
    const steps = admitting(kernel, envelope, rules, rules);
    let step;
    while (!(step = steps.next()).done) await pause();
    const admitted = step.value;
    const { roundId, opens, closes } = admitted.descriptor;
    if (round !== hex(roundId)) return [admitted, "wrong_round"];
    if (at < opens - CLOCK_SKEW_S) return [admitted, "not_open"];
    return [admitted, at < closes + CLOCK_SKEW_S ? "" : "round_closed"];
  } catch (error) {
    const { token = "", detail = "" } = error as Partial<DandelionError>;
    return receipt({ outcome: "refused", at, round, token, detail });
  }
}
